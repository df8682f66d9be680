"""Tables of events that a command reads: which one of a file, in which units, under which names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hepbridge.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from hepbridge.data.tables import Table

__all__ = ["Reader", "bundled_events", "mapping_of", "names_of"]


def names_of(text: str | None) -> list[str]:
    """``mass,width`` as a list; empty for None."""
    return [] if text is None else [name.strip() for name in text.split(",") if name.strip()]


def mapping_of(entries: Sequence[str], option: str) -> dict[str, str]:
    """``["mass=GeV"]`` as a mapping. Raises ConfigError for what has no equals sign, or stands twice."""
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not (equals and name and value):
            raise ConfigError(f"{option} {entry!r}: expected NAME=VALUE")
        if name in found:
            raise ConfigError(f"{option}: {name!r} is given twice")
        found[name] = value
    return found


@dataclass(frozen=True)
class Reader:
    """How the tables of a command are read.

    Attributes:
        units: column -> unit, for files that do not say.
        weights: the column of such files of simulated events that holds the weights.
        data_weights: the same of measured events.
        prefixes: of the columns of particle and detector level that stand in one table.
        levels: names of the tables otherwise.
    """

    units: dict[str, str] = field(default_factory=dict)
    weights: str | None = None
    data_weights: str | None = None
    prefixes: tuple[str, str] | None = None
    levels: tuple[str, str] = ("particle", "detector")
    columns: set[str] = field(default_factory=set)  # of all that was read

    @classmethod
    def of(
        cls,
        units: Sequence[str],
        weights: str | None,
        data_weights: str | None,
        prefixes: str | None,
        levels: str,
    ) -> Reader:
        """From options. Raises ConfigError unless prefixes and levels are two each."""
        pairs = []
        for option, text in (("--prefixes", prefixes), ("--tables", levels)):
            pair = names_of(text)
            if text is not None and (len(pair) != 2 or pair[0] == pair[1]):
                raise ConfigError(
                    f"{option} {text!r}: expected two different ones, particle level and detector "
                    "level, as in gen_,reco_"
                )
            pairs.append(pair)
        both = (pairs[0][0], pairs[0][1]) if pairs[0] else None
        named = (pairs[1][0], pairs[1][1])
        return cls(mapping_of(units, "--unit"), weights, data_weights, both, named)

    def table(self, path: Path, level: int, *, measured: bool = False) -> Table:
        """The events of a file at one level: its table of that name, or its only one."""
        tables = self._read(path, self.data_weights if measured else self.weights)
        if self.prefixes is not None and len(tables) == 1:
            whole = next(iter(tables.values()))
            if any(name.startswith(self.prefixes[level]) for name in whole.columns):
                return _stripped(whole, self.prefixes[level])
        if len(tables) == 1:
            return next(iter(tables.values()))
        name = self.levels[level]
        if name not in tables:
            raise DataError(
                f"{path} has several tables and none is called {name!r}: {', '.join(tables)}; say "
                "which are meant with --tables"
            )
        return tables[name]

    def response(self, path: Path, detector: Path | None) -> dict[str, Table]:
        """Both levels, from two files, from two tables of one, or from one table with prefixes."""
        if detector is not None:
            return {"particle": self.table(path, 0), "detector": self.table(detector, 1)}
        if self.prefixes is None:
            tables = self._read(path, self.weights)
            if missing := [name for name in self.levels if name not in tables]:
                raise DataError(
                    f"{path} has no table {missing[0]!r}, only: {', '.join(tables)}. Name the tables "
                    "of particle and detector level with --tables, a second file with "
                    "--response-detector, or, if both levels are columns of one table, how their "
                    "names begin: --prefixes gen_,reco_"
                )
            return {
                name: tables[own]
                for name, own in zip(("particle", "detector"), self.levels, strict=True)
            }
        return {"particle": self.table(path, 0), "detector": self.table(path, 1)}

    def _read(self, path: Path, weights: str | None) -> dict[str, Table]:
        from hepbridge.data.table_files import read_tables

        bundled = bundled_events(path)
        found = (
            read_tables(bundled)
            if bundled is not None
            else read_tables(path, units=self.units, weights=weights)
        )
        for table in found.values():
            self.columns.update(table.columns)
        return found

    def check(self) -> None:
        """Raise ConfigError for a unit of a column that no file has had."""
        if self.columns and (stray := [name for name in self.units if name not in self.columns]):
            raise ConfigError(
                f"--unit {stray[0]}={self.units[stray[0]]}: no file has a column {stray[0]!r}; they have: "
                f"{', '.join(sorted(self.columns))}"
            )


def bundled_events(path: Path) -> Path | None:
    """The file of the bundled events of that name, if it is one and no file here."""
    from hepbridge.data.sample import ZJETS, zjets_path

    named = {f"zjets-{generator}": generator for generator in ZJETS}
    return zjets_path(named[str(path)]) if str(path) in named and not path.exists() else None


def _stripped(table: Table, prefix: str) -> Table:
    """The columns and flags that begin with ``prefix``, without it; flags without a prefix stay."""
    from dataclasses import replace

    own = {name.removeprefix(prefix): name for name in table.columns if name.startswith(prefix)}
    return replace(
        table,
        columns={new: table.columns[name] for new, name in own.items()},
        units={new: table.units[name] for new, name in own.items()},
        defined={new: table.defined[name] for new, name in own.items() if name in table.defined},
        flags={name.removeprefix(prefix): flag for name, flag in table.flags.items()},
    )
