"""Many rows of a kind, such as those of single layers, as one line of a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hepbridge.report.text import name_of, times
from hepbridge.report.words import grade

__all__ = ["Group", "lines"]

_LEVEL = 0.05  # corrected p below which a row stands out

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """Rows of one ``group`` of one set."""

    name: str
    rows: Sequence[Record]

    @property
    def title(self) -> str:
        """``energies of layers (30 rows)``."""
        return f"{name_of(self.name)} ({len(self.rows)} rows)"

    def cell(self, candidate: str) -> tuple[str, str]:
        """In words how the candidate does, and the key of `hepbridge.report.words.GRADES`.

        The grade is that of the worst row if one stands out among all rows of the evaluation, else
        "floor": of 30 rows of a perfect candidate 1.5 lie above their 95 % quantile by chance.
        """
        cells = [
            (row, row["candidates"][candidate])
            for row in self.rows
            if candidate in row["candidates"]
        ]
        judged = [(row, cell) for row, cell in cells if cell["above_q95"] is not None]
        if not judged:
            return "–", "none"
        row, worst = max(judged, key=lambda found: _size(found[1]))
        above = sum(cell["above_q95"] for _, cell in judged)
        outstanding = [c for _, c in judged if (c["p_adjusted"] or 1.0) < _LEVEL]
        kind = grade(worst) if outstanding else "floor"
        place = str(row["observable"]).removeprefix(f"{self.name}_")
        return (
            f"{above} of {len(judged)} above, worst {times(worst['ratio'])} (layer {place})",
            kind,
        )


def lines(rows: Sequence[Record]) -> Iterator[Record | Group]:
    """The rows of a set, each group as one `Group` where its first row stood."""
    done = set()
    for row in rows:
        group = row.get("group")
        if group is None:
            yield row
        elif group not in done:
            done.add(group)
            yield Group(group, [r for r in rows if r.get("group") == group])


def _size(cell: Record) -> float:
    ratio = cell["ratio"]
    if ratio is None:
        return math.inf if cell["above_q95"] else 0.0
    return float(ratio)
