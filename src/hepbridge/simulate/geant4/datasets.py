"""Geant4's data sets: which there are, which are found, and the environment that names them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hepbridge.core.errors import ConfigError

__all__ = ["DATASETS", "DATA_DIR", "DataSet", "Found", "find_datasets", "worker_environment"]

DATA_DIR = "GEANT4_DATA_DIR"
_HOME = ".geant4_pybind"  # where geant4-pybind puts what it downloads


@dataclass(frozen=True)
class DataSet:
    """A data set of Geant4.

    Attributes:
        name: start of its folder's name; the version follows.
        version: the one that Geant4 11.4 was released with.
        variable: environment variable that names the folder.
        purpose: what is in it.
        needed_for: "em" (every simulation), "hadrons" (hadronic and photo-nuclear processes of the
            usual physics lists as well) or "" (special physics lists only).
    """

    name: str
    version: str
    variable: str
    purpose: str
    needed_for: str = ""


DATASETS = (
    DataSet("G4EMLOW", "8.8", "G4LEDATA", "electromagnetic cross sections", "em"),
    DataSet("PhotonEvaporation", "6.1.2", "G4LEVELGAMMADATA", "nuclear levels", "hadrons"),
    DataSet("G4PARTICLEXS", "4.2", "G4PARTICLEXSDATA", "hadronic cross sections", "hadrons"),
    DataSet("G4ENSDFSTATE", "3.0", "G4ENSDFSTATEDATA", "nuclear states", "hadrons"),
    DataSet("G4SAIDDATA", "2.0", "G4SAIDXSDATA", "nucleon and pion cross sections", "hadrons"),
    DataSet("RadioactiveDecay", "6.1.2", "G4RADIOACTIVEDATA", "radioactive decay"),
    DataSet("G4NDL", "4.7.1", "G4NEUTRONHPDATA", "neutrons below 20 MeV (lists …_HP)"),
    DataSet("G4ABLA", "3.3", "G4ABLADATA", "nuclear de-excitation (lists …INCLXX)"),
    DataSet("G4INCL", "1.3", "G4INCLDATA", "nuclear densities (lists …INCLXX)"),
    DataSet("G4PII", "1.3", "G4PIIDATA", "ionisation of inner shells"),
    DataSet("RealSurface", "2.2", "G4REALSURFACEDATA", "optical surfaces"),
    DataSet("G4CHANNELING", "2.0", "G4CHANNELINGDATA", "channeling in crystals"),
)


@dataclass(frozen=True)
class Found:
    """What was found of a data set: its folder, or None; a version of "?" is one without a number."""

    dataset: DataSet
    path: Path | None = None
    version: str = ""

    @property
    def usable(self) -> bool:
        """The folder is there and holds something: folders or files with content, not hidden ones."""
        return self.path is not None and any(
            not entry.name.startswith(".") and (entry.is_dir() or entry.stat().st_size > 0)
            for entry in self.path.iterdir()
        )

    @property
    def reduced(self) -> bool:
        """Electromagnetic tables without atomic de-excitation: not the official data set."""
        return (
            self.dataset.name == "G4EMLOW"
            and self.usable
            and self.path is not None
            and not (self.path / "fluor").is_dir()
        )


def find_datasets(environ: Mapping[str, str] | None = None) -> list[Found]:
    """Look for every data set: its own variable, then ``GEANT4_DATA_DIR``, then where
    geant4-pybind downloads to.

    Of several versions in a folder, the one of Geant4 11.4 is taken, else the newest.

    Raises ConfigError if ``GEANT4_DATA_DIR`` names no folder.
    """
    environ = os.environ if environ is None else environ
    folders = [Path(environ.get("HOME") or Path.home()) / _HOME]
    if named := environ.get(DATA_DIR):
        if not Path(named).is_dir():
            raise ConfigError(
                f"{DATA_DIR}={named} is no folder; let it name the folder that holds G4EMLOW8.8 and "
                "the other data sets of Geant4, or unset it"
            )
        folders.insert(0, Path(named).absolute())
    return [_find(dataset, folders, environ) for dataset in DATASETS]


def _find(dataset: DataSet, folders: list[Path], environ: Mapping[str, str]) -> Found:
    if (own := environ.get(dataset.variable)) and Path(own).is_dir():
        path = Path(own).absolute()
        return Found(dataset, path, path.name.removeprefix(dataset.name) or "?")
    for folder in folders:
        versions = {
            path.name.removeprefix(dataset.name): path
            for path in (folder.iterdir() if folder.is_dir() else ())
            if path.is_dir() and re.fullmatch(rf"{dataset.name}[0-9][0-9.]*", path.name)
        }
        if versions:
            version = dataset.version if dataset.version in versions else max(versions, key=_number)
            return Found(dataset, versions[version], version)
    return Found(dataset)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)


def worker_environment(
    found: list[Found], folder: Path, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a worker: a variable for every data set, and ``GEANT4_DATA_DIR``.

    geant4-pybind asks on standard input, or with ``CI=true`` downloads, only if that variable is
    not set. Geant4 does not start unless the others name folders, and the nuclear states a file,
    even where nothing reads them: what is missing is an empty folder made in ``folder``.
    """
    environ = os.environ if environ is None else environ
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    (empty / "ENSDFSTATE.dat").touch()
    variables = {name: value for name, value in environ.items() if name != "CI"}
    variables.update({f.dataset.variable: str(f.path or empty) for f in found})
    variables[DATA_DIR] = str(folder)
    return variables
