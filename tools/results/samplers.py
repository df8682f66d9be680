"""Error of the samplers of diffusions on a mixture whose denoiser is known: draws samplers.png.

    python tools/results/samplers.py [--docs docs/results] [--n 50000]

Left, deterministic samplers: distance to the exact path against the number of steps. Right, all: the
Wasserstein-1 distance between n samples and the mixture, against the number of evaluations; a
sample of the mixture itself is the floor. Prints the distances at about 20 and 80 evaluations.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import ndtr
from torch import Tensor

from hepbridge.core.rng import stream
from hepbridge.report.plate import Plate, grid_of, new_figure, write_picture
from hepbridge.transports.samplers import SAMPLERS
from hepbridge.transports.samplers.noise_levels import karras

WEIGHTS = np.array([0.3, 0.5, 0.2])
PLACES = np.array([-1.5, 0.2, 1.6])
WIDTHS = np.array([0.3, 0.5, 0.25])
HIGH, LOW = 80.0, 0.002
STEPS = (8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256)
EVALUATIONS = (6, 8, 12, 16, 20, 28, 40, 56, 80, 112)
SHOWN = (20, 80)  # in the printed table
STYLES: dict[str, tuple[str, str, Any]] = {  # colour of the family, marker, line
    "euler": ("#3d3d3d", "o", "-"),
    "ddpm": ("#3d3d3d", "v", ":"),
    "euler_maruyama": ("#7a7a7a", "X", ":"),
    "heun": ("#b2182b", "s", "-"),
    "edm": ("#b2182b", "D", ":"),
    "restart": ("#e69f00", "P", ":"),
    "dpmpp_2m": ("#009e73", "^", "-"),
    "dpmpp_2m_sde": ("#009e73", "v", ":"),
    "lms2": ("#56b4e9", ".", "-"),
    "lms3": ("#56b4e9", "o", "-"),
    "lms4": ("#56b4e9", "s", "-"),
    "unipc2": ("#0064b0", "o", "-"),
    "unipc3": ("#0064b0", "*", "-"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[2] / "docs" / "results")
    parser.add_argument("--n", type=int, default=20_000)
    args = parser.parse_args()
    path = {name: from_the_path(name) for name in SAMPLERS if not SAMPLERS[name].stochastic}
    target = quantiles(args.n)
    drawn = {name: from_the_mixture(name, args.n, target) for name in SAMPLERS}
    draws = (mixture(args.n, 0.0, stream(2, "floor", str(k))) for k in range(20))
    floor = float(np.mean([distance(sample, target) for sample in draws]))
    for name, points in drawn.items():
        near = (min(points, key=lambda p, at=at: abs(p[0] - at)) for at in SHOWN)
        cells = " | ".join(f"{error:.3f} ({nfe})" for nfe, error in near)
        print(f"| `{name}` | {cells} |")
    print(f"floor {floor:.4f}")
    write_picture(
        partial(draw, path, drawn, floor), args.docs / "samplers.png", dpi=110, overwrite=True
    )


def denoise(x: Tensor, sigma: float) -> Tensor:
    """E[x0 | x] of the mixture, exactly."""
    weights, places, widths = (torch.from_numpy(a) for a in (WEIGHTS, PLACES, WIDTHS))
    variance = widths**2 + sigma**2
    away = x - places
    chance = torch.softmax(weights.log() - 0.5 * variance.log() - 0.5 * away**2 / variance, dim=1)
    return (chance * (places + widths**2 / variance * away)).sum(dim=1, keepdim=True)


def mixture(n: int, sigma: float, rng: np.random.Generator) -> Tensor:
    which = rng.choice(3, n, p=WEIGHTS)
    spread = np.sqrt(WIDTHS[which] ** 2 + sigma**2)
    return torch.from_numpy(PLACES[which] + spread * rng.standard_normal(n))[:, None]


def quantiles(n: int) -> NDArray[np.float64]:
    """The quantiles of the mixture in the middle of n equal shares."""
    x = np.linspace(-5, 5, 20_001)
    cdf = ndtr((x[:, None] - PLACES) / WIDTHS) @ WEIGHTS
    return np.interp((np.arange(n) + 0.5) / n, cdf, x)


def distance(sample: Tensor, target: NDArray[np.float64]) -> float:
    """Wasserstein-1 of a sample (n, 1)."""
    return float(np.abs(np.sort(sample[:, 0].numpy()) - target).mean())


def from_the_path(name: str) -> list[tuple[int, float]]:
    """(steps, root of the mean square distance to the exact path), ending at the lowest level."""
    x = mixture(200, HIGH, stream(0, "start"))

    def slope(u: float, y: NDArray[np.float64]) -> NDArray[np.float64]:
        here = torch.from_numpy(y)[:, None]
        return (here - denoise(here, float(np.exp(u)))).numpy()[:, 0]

    ends = np.log(HIGH), np.log(LOW)
    path = solve_ivp(slope, ends, x[:, 0].numpy(), "DOP853", rtol=1e-12, atol=1e-12)
    truth = denoise(torch.from_numpy(path.y[:, -1])[:, None], LOW)
    found = []
    for steps in STEPS:
        out = SAMPLERS[name](denoise, x, karras(steps, LOW, HIGH))
        found.append((steps, float((out - truth).square().mean().sqrt())))
    return found


def from_the_mixture(name: str, n: int, target: NDArray[np.float64]) -> list[tuple[int, float]]:
    """(evaluations, distance to the mixture) for about as many evaluations as are asked for."""
    sampler, found = SAMPLERS[name], []
    for most in EVALUATIONS:
        steps = max((k for k in range(2, most + 1) if sampler.nfe(k) <= most), default=0)
        if not steps:
            continue
        rng = stream(1, "start", most)  # the same start for all
        noise = torch.from_numpy(rng.standard_normal((sampler.draws(steps), n, 1)))
        out = sampler(denoise, mixture(n, HIGH, rng), karras(steps, LOW, HIGH), noise)
        found.append((sampler.nfe(steps), distance(out, target)))
    return found


def draw(
    path: dict[str, list[tuple[int, float]]],
    drawn: dict[str, list[tuple[int, float]]],
    floor: float,
) -> Plate:
    figure = new_figure(9.6, 4.2)
    grid = grid_of(figure, 1, 2, left=0.75, right=1.75, bottom=0.6, top=0.35, wspace=0.28)
    left, right = (figure.add_subplot(grid[0, k]) for k in range(2))
    for axes, curves in ((left, path), (right, drawn)):
        for name, points in curves.items():
            colour, marker, line = STYLES[name]
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=colour, marker=marker, ls=line, ms=4.5, lw=1.2, label=name)
        axes.set(xscale="log", yscale="log")
    right.axhline(floor, color="#3d3d3d", lw=1, ls=(0, (1, 1.2)), label="floor")
    left.set(
        xlabel="steps",
        ylabel="distance to the exact path (r.m.s.)",
        title="Deterministic samplers: order",
        xlim=(7, 400),
        ylim=(1e-7, 2),
    )
    for order, at in ((1, 1.0e-2), (2, 2.8e-4), (3, 1.8e-5), (4, 1.0e-6)):  # behind the curves
        left.annotate(f"$n^{{-{order}}}$", (285, at), va="center", fontsize=9, color="0.35")
    right.set(
        xlabel="evaluations of the denoiser",
        ylabel="Wasserstein-1 distance to the mixture",
        title="All samplers: what an evaluation buys",
    )
    right.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02))
    return Plate("samplers", "Samplers of diffusions", "", figure=figure)


if __name__ == "__main__":
    main()
