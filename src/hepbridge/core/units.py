"""Units. Energies inside hepbridge are MeV; tables and figures are in GeV."""

MEV = 1.0
GEV = 1000.0 * MEV
TEV = 1000.0 * GEV
