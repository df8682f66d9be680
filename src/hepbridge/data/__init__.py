"""Calorimeter showers: the containers, file formats, pairing, readout, and where data come from."""

from __future__ import annotations

from hepbridge.data.geometry import SQUIRELS, Geometry
from hepbridge.data.io import load, open_reader, open_writer, read_manifest, save
from hepbridge.data.pairs import match_by_energy
from hepbridge.data.readout import DeadCells, Noise, Readout, Saturation, Threshold
from hepbridge.data.showers import Showers
from hepbridge.data.symmetry import SymmetryCheck

__all__ = [
    "SQUIRELS",
    "DeadCells",
    "Geometry",
    "Noise",
    "Readout",
    "Saturation",
    "Showers",
    "SymmetryCheck",
    "Threshold",
    "load",
    "match_by_energy",
    "open_reader",
    "open_writer",
    "read_manifest",
    "save",
]
