"""Simulation: detectors, beams, and the engines GFLASH and Geant4."""
