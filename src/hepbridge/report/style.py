"""How figures look: one place for fonts, sizes, and the colour of every sample.

Full simulation is a grey filled histogram, the fast simulation dashed red, baselines dash-dotted
orange (then green, pink, sky), the refined showers solid blue. The colours stay apart for the
common colour-vision deficiencies and in grey-scale print; line style and marker differ as well,
so no meaning hangs on colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hepbridge.core.errors import ConfigError

__all__ = ["FLOOR", "RC", "REFERENCE", "Style", "roles", "styles"]

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.labelsize": 10.5,
    "axes.titlesize": 11,
    "axes.linewidth": 0.8,
    "axes.formatter.use_mathtext": True,
    "axes.formatter.limits": (-3, 5),
    "legend.fontsize": 8.5,
    "legend.title_fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.9,
    "legend.borderaxespad": 0.5,
    "legend.labelspacing": 0.35,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.5,
    "hatch.linewidth": 0.5,
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,
    "figure.dpi": 100,
    "savefig.dpi": 200,
}


@dataclass(frozen=True)
class Style:
    """Colour, line style and marker of one sample."""

    colour: str
    line: Any = "-"
    marker: str = "o"
    fill: str | None = None
    front: int = 3


REFERENCE = Style("#3d3d3d", fill="#cfcfcf", front=1)
FLOOR = Style("#3d3d3d", line=(0, (1, 1.2)), marker="", front=2)
_FAST = Style("#b2182b", line=(0, (5, 1.5)), marker="s", front=3)
_REFINED = Style("#0064b0", marker="o", front=6)
_BASELINES = (
    Style("#e69f00", line=(0, (5, 1.2, 1, 1.2)), marker="^", front=4),
    Style("#009e73", line=(0, (3, 1, 1, 1, 1, 1)), marker="v", front=4),
    Style("#cc79a7", line=(0, (2, 1)), marker="D", front=4),
    Style("#56b4e9", line=(0, (8, 2)), marker="P", front=4),
    Style("#7f5f3f", line=(0, (1, 1)), marker="X", front=4),
)
_FAST_NAMES = ("gflash", "fast", "fastsim", "fast simulation")


def roles(
    names: Iterable[str], fast: str | None = None, refined: str | None = None
) -> tuple[str | None, str | None]:
    """Which candidate is the fast simulation and which the refined one.

    Unless given, the fast simulation is the candidate called gflash or fast, and the refined one
    is called refined, or is the last candidate that is not the fast simulation.
    Raises ConfigError if a given name is no candidate.
    """
    known = list(names)
    for role, name in (("fast", fast), ("refined", refined)):
        if name is not None and name not in known:
            raise ConfigError(f"{role}={name!r} is no candidate; candidates: {', '.join(known)}")
    if fast is None:
        fast = next((n for n in known if n.lower() in _FAST_NAMES and n != refined), None)
    if refined is None:
        others = [n for n in known if n != fast]
        refined = next(
            (n for n in others if n.lower() == "refined"), others[-1] if others else None
        )
    return fast, refined


def styles(names: Iterable[str], fast: str | None, refined: str | None) -> dict[str, Style]:
    """The style of each candidate, in the order of ``names``."""
    baselines = iter(range(10**6))
    return {
        n: _FAST
        if n == fast
        else _REFINED
        if n == refined
        else _BASELINES[next(baselines) % len(_BASELINES)]
        for n in names
    }
