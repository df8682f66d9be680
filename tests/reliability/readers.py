"""A process that reads hostile files and says what became of each: for tests/reliability/test_fuzz.py.

Reads lines ``TARGET PATH``; answers ``ok``, ``refused: message`` or ``bug: …``, then a tab and the
growth of the largest memory in MB. That a C library crashes ends only this process.
"""

from __future__ import annotations

import logging
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from hepbridge.core.errors import HepbridgeError
from hepbridge.data import io
from hepbridge.data.binning_xml import read_binning
from hepbridge.data.formats.points import load_points
from hepbridge.data.formats.tables import load_tables
from hepbridge.deploy.onnx.contract import read_contract
from hepbridge.simulate.detector import load_detector
from hepbridge.systems import model_file
from hepbridge.systems.generation.model_file import load_generator
from hepbridge.systems.recipe import load_recipe
from hepbridge.training.checkpoint import read_checkpoint


def showers(path: Path) -> None:
    with io.open_reader(path) as reader:
        for _ in reader.blocks(512):
            pass
        assert reader.event_uid >= 0


def recipe(path: Path) -> None:
    load_recipe("squirels", path, [])


TARGETS: dict[str, Callable[[Path], object]] = {
    "hdf5": showers,
    "npy": showers,
    "root": showers,
    "xml": read_binning,
    "detector": load_detector,
    "recipe": recipe,
    "model": model_file.load,
    "generator": load_generator,
    "checkpoint": read_checkpoint,
    "points": load_points,
    "tables": load_tables,
    "contract": read_contract,
}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        name, path = line.rstrip("\n").split(" ", 1)
        before = peak()
        try:
            TARGETS[name](Path(path))
            word = "ok"
        except HepbridgeError as error:
            word = f"refused: {str(error)[:100]!r}"
        except BaseException:
            word = f"bug: {traceback.format_exc()[-1500:]!r}"
        sys.stdout.write(f"{word}\t{peak() - before:.1f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
