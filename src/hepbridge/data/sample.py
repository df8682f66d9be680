"""The bundled sample: real Geant4 and GFLASH electron showers, small enough to ship.

6,000 training pairs and 1,000 showers each of full, full2 and gflash at 20, 50 and 80 GeV
(3.7 MB), cut by ``tools/make_sample.py``; the attributes of each file say from which rows of
which file, and how that was simulated (``Showers.meta``). The event ids are those of the source.

To be small, cell energies are rounded to 12 mantissa bits (relative error at most 1.2e-4).
Effect, ``python tools/make_sample.py --measure``: EMD between 1,000 full showers and the same
ones rounded, divided by the mean EMD between two samples of 1,000 full showers (the floor),
the largest of 20, 50 and 80 GeV::

    e_sum  e_max  n_hit  e_spec  e_spec_log  profile_x  profile_y
    0.061  0.028  0.018  0.037   0.007       0.001      0.0003

Of 300,000 cells 5 cross the 1 MeV threshold and none the one of 0.1 MeV.

For unfolding there are Z + jet events of two generators without multiparton interactions, about 60,000 each
with 50,000 pairs, at particle and at detector level (`zjets`), made by ``hepbridge simulate zjets`` and cut by
``tools/make_zjets_sample.py``.
"""

from __future__ import annotations

from pathlib import Path

from hepbridge.core.errors import ConfigError
from hepbridge.data.formats.calochallenge import CaloChallengeReader
from hepbridge.data.formats.tables import load_tables
from hepbridge.data.geometry import SQUIRELS
from hepbridge.data.showers import Showers
from hepbridge.data.tables import Table

__all__ = ["ENERGIES", "FIXED", "TRAIN", "ZJETS", "load", "path", "zjets", "zjets_path"]

FOLDER = Path(__file__).parent / "bundled"
TRAIN = ("train_fast", "train_full")
FIXED = ("full", "full2", "gflash")
ENERGIES = (20, 50, 80)  # GeV
ZJETS = ("a14", "vincia")  # Pythia with the tune A14, and its shower Vincia


def path(kind: str, energy: int | None = None) -> Path:
    """The file of a part of the sample; arguments and errors as in `load`."""
    if kind in TRAIN and energy is None:
        return FOLDER / f"{kind}.h5"
    if kind in FIXED and energy in ENERGIES:
        return FOLDER / f"{kind}_{energy:d}.h5"
    raise ConfigError(
        f"the bundled sample has no part {kind!r} with energy={energy}; it has "
        f"{', '.join(TRAIN)} without energy, and {', '.join(FIXED)} with energy "
        f"{', '.join(map(str, ENERGIES))} (GeV)"
    )


def load(kind: str, energy: int | None = None) -> Showers:
    """A part of the bundled sample.

    Args:
        kind: "train_fast" or "train_full" (row i of both has the same incident energy, 10 to
            100 GeV), or "full", "full2" (an independent second full simulation) or "gflash".
        energy: 20, 50 or 80 (GeV) for the last three; None for the training pairs.

    Raises ConfigError if there is no such part.
    """
    with CaloChallengeReader(path(kind, energy), geometry=SQUIRELS) as reader:
        return reader.read()


def zjets_path(generator: str) -> Path:
    """The file of the Z + jet events of a generator; errors as in `zjets`."""
    if generator not in ZJETS:
        raise ConfigError(
            f"there are no bundled Z + jet events of {generator!r}; there are those of "
            f"{', '.join(ZJETS)}"
        )
    return FOLDER / f"zjets_{generator}.h5"


def zjets(generator: str) -> dict[str, Table]:
    """Z + jet events of ``"a14"`` or ``"vincia"``: tables ``particle`` and ``detector``, row by row.

    Without multiparton interactions.

    Raises ConfigError if there are none of this generator.
    """
    return load_tables(zjets_path(generator))
