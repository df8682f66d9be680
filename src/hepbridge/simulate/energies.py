"""What a user may say about a quantity of the beam: ``fixed:35``, ``uniform:10-100``, a file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.files import file_digest
from hepbridge.core.units import GEV
from hepbridge.data.formats.hdf5 import open_hdf5
from hepbridge.data.showers import UNITS

__all__ = ["Distribution", "Energies", "FileEnergies", "distribution", "energies"]

HIGHEST_GEV = 1e5  # the end of Geant4's electromagnetic tables, 100 TeV
DATASET = "incident_energies"

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SPEC = re.compile(rf"([a-z]+):({_NUMBER})(?:-({_NUMBER}))?")


@dataclass(frozen=True)
class Distribution:
    """The distribution of one number, given by its quantile function.

    ``fixed``: always ``low``; ``uniform``: from ``low`` to ``high``; ``log``: the same with a
    uniform logarithm, so that every decade is equally frequent.

    >>> Distribution("uniform", 10, 100).quantile(np.array([0.5]))
    array([55.])
    """

    kind: str
    low: float
    high: float

    def quantile(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values (N,) at the probabilities ``u`` (N,)."""
        if self.kind == "log":
            return np.asarray(self.low * np.exp(u * math.log(self.high / self.low)))
        return np.asarray(self.low + u * (self.high - self.low))

    def __str__(self) -> str:
        one = f"{self.kind}:{self.low:.17g}"
        return one if self.kind == "fixed" else f"{one}-{self.high:.17g}"


def distribution(
    text: str, what: str, unit: str, *, kinds: tuple[str, ...], allowed: Callable[[float], str]
) -> Distribution:
    """The distribution that ``text`` asks for, e.g. ``uniform:10-100``.

    ``allowed`` says what is wrong with a number ("" if nothing). Raises ConfigError.
    """
    forms = {"fixed": "fixed:A", "uniform": "uniform:A-B", "log": "log:A-B"}
    wanted = f"{what} {text!r}: write {' or '.join(forms[k] for k in kinds)} ({unit})"
    match = _SPEC.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or match[1] not in kinds:
        raise ConfigError(wanted)
    kind, low = match[1], float(match[2])
    if (kind == "fixed") != (match[3] is None):
        raise ConfigError(f"{wanted}; {kind} takes {'one number' if match[3] else 'two numbers'}")
    high = low if match[3] is None else float(match[3])
    for value in (low, high):
        if wrong := allowed(value):
            raise ConfigError(f"{what} {text!r}: {wrong}")
    if high <= low and kind != "fixed":
        raise ConfigError(f"{what} {text!r}: the range must go from a smaller to a larger number")
    return Distribution(kind, low, high)


@dataclass(frozen=True)
class Energies:
    """Incident energies from a distribution in GeV, drawn anew for every event."""

    law: Distribution

    size = None  # there are as many as one likes

    @property
    def range_gev(self) -> tuple[float, float]:
        return self.law.low, self.law.high

    def mev(self, start: int, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """The energies (N,) of the rows from ``start``, of uniform numbers ``u`` (N,)."""
        return self.law.quantile(u) * GEV

    def __str__(self) -> str:
        return str(self.law)


@dataclass(frozen=True)
class FileEnergies:
    """Incident energies of the rows of a file.

    Attributes:
        path: an HDF5 file with a dataset ``incident_energies`` in MeV (or in the unit that the
            attribute ``units`` of the file says), such as a CaloChallenge file.
        size: how many there are.
        range_gev: the smallest and the largest.
        digest: of the content of the file, which is what names the energies.
    """

    path: str
    size: int
    range_gev: tuple[float, float]
    digest: str

    @classmethod
    def of(cls, path: str | Path) -> FileEnergies:
        """Look at all energies of a file once.

        Raises DataError if the file or the dataset is missing, or an energy is not allowed.
        """
        values = _read(Path(path), slice(None))
        if not len(values):
            raise DataError(f"{path}: holds no energies")
        bad = np.flatnonzero(~((values > 0) & (values <= HIGHEST_GEV * GEV)))
        if len(bad):
            wrong = _wrong_energy(float(values[bad[0]]) / GEV)
            raise DataError(f"{path}: {DATASET!r}: {wrong} (row {bad[0]})")
        span = float(values.min()) / GEV, float(values.max()) / GEV
        return cls(str(Path(path).resolve()), len(values), span, file_digest(path))

    def mev(self, start: int, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """The energies (N,) of the rows from ``start``; of ``u`` only the length matters."""
        return _read(Path(self.path), slice(start, start + len(u)))

    def __str__(self) -> str:
        return f"file:{self.digest}"


def energies(text: str) -> Energies | FileEnergies:
    """Energies as a user asks for them: ``fixed:35``, ``uniform:10-100``, ``log:1-1000`` (GeV) or
    ``file:E.h5``.

    Raises:
        ConfigError: another form, numbers that are no energies, a range that is reversed.
        DataError: a file without energies.
    """
    if isinstance(text, str) and text.startswith("file:"):
        return FileEnergies.of(text.removeprefix("file:"))
    try:
        law = distribution(
            text, "energies", "GeV", kinds=("fixed", "uniform", "log"), allowed=_wrong_energy
        )
    except ConfigError as error:
        hint = " or file:E.h5" if "write fixed" in str(error) else ""
        raise ConfigError(f"{error}{hint}") from None
    return Energies(law)


def _wrong_energy(gev: float) -> str:
    if not gev > 0:
        return f"an energy must be positive, not {gev:g} GeV"
    if gev > HIGHEST_GEV:
        return f"{gev:g} GeV is more than {HIGHEST_GEV:g} GeV, the highest energy that is simulated"
    return ""


def _read(path: Path, rows: slice) -> NDArray[np.float64]:
    """Some of the energies of a file, MeV."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of energies")
    try:
        with open_hdf5(path) as file:
            dataset = file.get(DATASET)
            if not isinstance(dataset, h5py.Dataset):
                raise DataError(
                    f"{path}: there is no dataset {DATASET!r}; the file has: "
                    f"{', '.join(file) or 'nothing'}"
                )
            if dataset.dtype.kind not in "fiu" or dataset.shape not in (
                (dataset.size,),
                (dataset.size, 1),
            ):
                raise DataError(
                    f"{path}: {DATASET!r} must be numbers of shape (N,) or (N, 1), got "
                    f"{dataset.dtype} of shape {dataset.shape}"
                )
            unit = file.attrs.get("units", "MeV")
            unit = unit.decode() if isinstance(unit, bytes) else str(unit)
            if unit not in UNITS:
                raise DataError(
                    f"{path}: the unit {unit!r} is unknown; allowed: {', '.join(UNITS)}"
                )
            return np.asarray(dataset[rows]).reshape(-1).astype(np.float64) * UNITS[unit]
    except OSError as error:
        raise DataError(f"{path}: is not a readable HDF5 file ({error})") from error
