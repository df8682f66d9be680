"""Is Geant4 ready? The answer in words."""

from __future__ import annotations

import time
from importlib import metadata, util

from hepbridge.core.errors import HepbridgeError
from hepbridge.core.units import GEV
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.detector import Detector
from hepbridge.simulate.geant4.datasets import DATA_DIR, Found, find_datasets
from hepbridge.simulate.geant4.engine import geant4_version, require, simulate

__all__ = ["check"]

_DOWNLOAD = f"""\
To install Geant4's official data sets (about 2 GB), do one of these:
- run python -c 'import geant4_pybind' in a terminal and answer y: they go to ~/.geant4_pybind,
  where hepbridge finds them;
- download them from https://geant4.web.cern.ch/download, unpack them into one folder, and let the
  environment variable {DATA_DIR} name it;
- where Geant4 is installed already, let {DATA_DIR} name its folder of data sets."""

_CRYSTAL = {
    "name": "crystal",
    "layers": [
        {
            "slices": [{"material": "G4_PbWO4", "mm": 240.0, "active": True}],
            "cells": {"kind": "xy", "n": [1, 1], "pitch_mm": [300.0, 300.0]},
        }
    ],
}


def check() -> str:
    """What is installed, which data sets are found, what `simulate` will use, and what to do.

    Makes one shower of 1 GeV, to see that all of it works. Raises nothing that a wrong
    installation could be the cause of.
    """
    if util.find_spec("geant4_pybind") is None:
        return (
            "geant4-pybind is not installed. Install it with\n"
            "  pip install 'hepbridge[geant4]'\n"
            "and run this check again: it will say which data sets of Geant4 are found."
        )
    lines = [f"geant4-pybind {metadata.version('geant4-pybind')} is installed."]
    try:
        lines[0] = f"{lines[0][:-1]}, with Geant4 {geant4_version()}."
        found = find_datasets()
    except HepbridgeError as error:
        return "\n".join([*lines, str(error)])
    lines += ["", *_table(found), ""]
    try:
        chosen = require()
    except HepbridgeError as error:
        return "\n".join([*lines, f"Nothing can be simulated: {error}", "", _DOWNLOAD])
    return "\n".join([*lines, *_advice(chosen, found), "", _test_shower()])


def _table(found: list[Found]) -> list[str]:
    rows = []
    for f in found:
        if f.path is None:
            state = "missing"
        elif not f.usable:
            state = f"empty: {f.path}"
        else:
            other = "" if f.version == f.dataset.version else f" ({f.dataset.version} expected)"
            state = f"{f.version}{other}{', reduced' if f.reduced else ''}: {f.path}"
        need = f" [{f.dataset.needed_for}]" if f.dataset.needed_for else ""
        rows.append(f"  {f.dataset.name:<18} {f.dataset.purpose}{need}: {state}")
    return ["Data sets (needed for):", *rows]


def _advice(chosen: str, found: list[Found]) -> list[str]:
    missing = [f.dataset.name for f in found if f.dataset.needed_for and not f.usable]
    lines = []
    if missing:
        lines += [
            f"Physics list: {chosen}, electromagnetic processes only: e-, e+ and gamma in any material.",
            f"For hadrons and nuclear processes these are missing: {', '.join(missing)}.",
        ]
    else:
        lines += [f"Physics list: {chosen}, all particles."]
    if any(f.reduced for f in found):
        lines += [
            "G4EMLOW is reduced (no atomic de-excitation): enough for physics lists em, em_option1 "
            "and em_option2."
        ]
    if missing or any(f.reduced for f in found):
        lines += ["", _DOWNLOAD]
    return lines


def _test_shower() -> str:
    start = time.monotonic()
    try:
        cells = simulate(Detector.from_dict(_CRYSTAL), Beam.of(1 * GEV), seed=1)
    except HepbridgeError as error:
        return f"The test shower failed: {error}"
    seconds = time.monotonic() - start
    return (
        f"Test: an electron of 1 GeV left {cells.sum() / GEV:.3f} GeV in 24 cm of lead tungstate "
        f"({seconds:.1f} s with the start of the worker). Geant4 is ready."
    )
