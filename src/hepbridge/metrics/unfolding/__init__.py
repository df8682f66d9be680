"""How good an unfolded sample is: distances, correlations, a classifier, calibration, support."""
