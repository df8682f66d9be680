"""Input against output of a refiner, shower by shower."""

from __future__ import annotations

from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from hepbridge.core.units import GEV
from hepbridge.data.showers import Showers
from hepbridge.metrics.fidelity import rank_correlation

__all__ = ["draw_scatter"]


def draw_scatter(
    ax: Axes, fast: Showers, refined: Showers, names: tuple[str, str], *, mixed: bool
) -> float:
    """Energy sum before and after, shower by shower; returns the rank correlation that is printed.

    At mixed incident energies the sums are divided by them: the sums would all lie on the diagonal.
    The correlation is taken at fixed incident energy (`hepbridge.metrics.rank_correlation`): the
    range of incident energies alone would make any map look perfect.
    """
    x, y = (s.e_sum / (s.incident_energy if mixed else GEV) for s in (fast, refined))
    limits = np.quantile(x, [0.001, 0.999]), np.quantile(y, [0.001, 0.999])
    low, high = min(q[0] for q in limits), max(q[1] for q in limits)
    rho = rank_correlation(fast, refined)
    quantity = r"$E_\mathrm{sum}/E_\mathrm{inc}$" if mixed else r"$E_\mathrm{sum}$"
    unit = "" if mixed else " [GeV]"
    pad = 0.06 * (high - low)
    box = (low - pad, high + pad)
    image = ax.hexbin(
        x,
        y,
        gridsize=45,
        extent=(*box, *box),
        norm=LogNorm(1),
        cmap="viridis_r",
        mincnt=1,
        linewidths=0.1,
    )
    ax.plot(box, box, color="#3d3d3d", linewidth=0.9, linestyle=(0, (4, 3)))
    ax.set_xlim(*box)
    ax.set_ylim(*box)
    ax.set_aspect("equal")
    ax.set_xlabel(f"{quantity} before ({names[0]}){unit}")
    ax.set_ylabel(f"{quantity} after ({names[1]}){unit}")
    ax.text(
        0.04,
        0.96,
        f"rank correlation of {quantity}:\n{rho:.3f}  (n = {len(x):,})",
        transform=ax.transAxes,
        va="top",
        fontsize=8.5,
    )
    bar = cast(Figure, ax.get_figure()).colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    bar.set_label("showers / bin")
    return rho
