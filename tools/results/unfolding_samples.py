"""The events of the results of unfolding, made by ``hepbridge simulate zjets``, and how they are read."""

from __future__ import annotations

from pathlib import Path

from hepbridge.data.formats.tables import load_tables
from hepbridge.data.tables import Table
from hepbridge.simulate.zjets.generator import Setup
from hepbridge.simulate.zjets.produce import Selection, produce_zjets
from hepbridge.systems.unfolding.data import Data
from hepbridge.systems.unfolding.response import Response

NAMES = ["mass", "width", "multiplicity", "ln_rho", "z_g", "tau21"]
SAMPLES = {  # name -> configuration, multiparton interactions, seed
    "a14": ("a14", True, 1),
    "a14-nompi": ("a14", False, 4),
    "vincia-nompi": ("vincia", False, 5),
    "monash": ("monash", True, 2),
    "a14-data": ("a14", True, 3),
}
STUDIES = {  # name -> response, pseudo-data
    "closure": ("a14", "a14-data"),
    "monash": ("a14", "monash"),
    "vincia": ("a14-nompi", "vincia-nompi"),
}
LEVELS = ("particle", "detector")


def make(work: Path, n: int) -> None:
    """All samples, resumably."""
    for name, (config, mpi, seed) in SAMPLES.items():
        produce_zjets(
            n,
            work / f"{name}.h5",
            setup=Setup(config, mpi, 14_000.0, 150.0),
            selection=Selection(0.4, 150.0),
            seed=seed,
        )


def commands(n: int) -> list[str]:
    """What makes the samples, for the page."""
    return [
        f"hepbridge simulate zjets --config {config} --mpi {'on' if mpi else 'off'} --n {n} "
        f"--seed {seed} -o {name}.h5"
        for name, (config, mpi, seed) in SAMPLES.items()
    ]


class Sample:
    """A sample as a response and as pseudo-data.

    ``pairs`` are the events that pass at both levels and belong together: what the published tables
    are about. ``whole`` has misses and fakes, too.
    """

    def __init__(self, work: Path, name: str) -> None:
        self.tables = load_tables(work / f"{name}.h5")
        self.whole = Response.from_tables(self.tables, NAMES)
        self.pairs = self.whole[self.whole.pairs]

    def level(self, level: str, *, passing: bool = False) -> Table:
        """The pairs at a level; ``passing``: all that passes there."""
        table = self.tables[level]
        return table[table.flag("pass") if passing else self.whole.pairs]

    def data(self, rows: slice = slice(None)) -> Data:
        """The pairs as measured events."""
        return Data.from_table(self.level("detector")[rows], self.whole.observables)
