"""Full simulation with Geant4, in worker processes (``pip install 'hepbridge[geant4]'``)."""

from hepbridge.simulate.geant4.check import check
from hepbridge.simulate.geant4.engine import geant4_version, provenance, require, simulate

__all__ = ["check", "geant4_version", "provenance", "require", "simulate"]
