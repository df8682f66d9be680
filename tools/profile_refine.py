"""Where the time of a refinement goes: one pinned CPU core, one thread, median of many repeats.

    taskset -c 0 python tools/profile_refine.py [--rows 10000] [--width 256] [--depth 4]

The refiner is built as the default is, with tables of the bundled sample and a network with random
weights that is evaluated once per shower: time does not depend on what a network has learned.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.rng import event_normal
from hepbridge.data import SQUIRELS, sample
from hepbridge.networks import ResidualMLP
from hepbridge.systems.inference import refine_cells
from hepbridge.systems.model_file import Domain, Model
from hepbridge.systems.recipe import load_recipe
from hepbridge.systems.squirels import Squirels
from hepbridge.systems.squirels_config import SquirelsConfig
from hepbridge.transforms import log_energy
from hepbridge.transforms.moment_match import MomentMatch

TILES = (256, 4)


class OneEvaluation(nn.Module):
    """x + 0.1 f(x, c), the last coordinate carried: the arithmetic of a distilled transport."""

    noise_dim, nfe, planned_steps = 0, 1, 0

    def __init__(self, dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.network = ResidualMLP(dim + 1, dim - 1, 0, width, depth, time=False, zero_init=False)

    def apply(self, x: Tensor, conditions: dict[str, Tensor], noise: Tensor) -> Tensor:  # type: ignore[override]
        moved = self.network(torch.cat([x, conditions["incident_energy"]], dim=1))
        return torch.cat([x[:, :-1] + 0.1 * moved, x[:, -1:]], dim=1)


def build(width: int, depth: int) -> Model:
    torch.manual_seed(0)
    config = SquirelsConfig(transport=None, symmetry="declared", joint_zeros=True)
    refiner = Squirels(config, SQUIRELS)
    refiner.fit(sample.load("train_fast"), sample.load("train_full"), 0)
    refiner.transport = OneEvaluation(refiner.coordinates.dim, width, depth)
    cells, dim = refiner.coordinates.n_cells, refiner.coordinates.dim
    refiner.moments = MomentMatch(dim - cells, list(range(cells)))
    refiner.eval().requires_grad_(False)
    return Model([refiner], load_recipe("quantile"), SQUIRELS, Domain(1e4, 1e5))


def timed(name: str, rows: int, action: Callable[[], Any], repeats: int) -> None:
    """Print the median (and the least) time of an action in microseconds per row."""
    for _ in range(3):
        action()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    median, least = (1e6 * f(seconds) / rows for f in (np.median, min))
    print(f"{name:44s} {median:9.2f} {least:9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = build(options.width, options.depth)
    refiner: Any = model.members[0]
    fast = sample.load("train_fast")
    rows = np.arange(options.rows) % len(fast)
    cells, energy = fast.cells[rows], fast.incident_energy[rows]
    ids = np.stack([np.full(len(rows), 7), np.arange(len(rows))], axis=1).astype(np.uint64)
    noise = event_normal(0, "profile", ids, refiner.noise_dim).astype(np.float32)
    print(f"{'microseconds per shower':44s} {'median':>9s} {'least':>9s}")
    with torch.inference_mode():
        for tile in TILES:
            some = np.argsort(energy)[: tile * 8 : 8]
            x, e, n = (torch.from_numpy(a[some].astype(np.float32)) for a in (cells, energy, noise))
            c = {"incident_energy": log_energy(e.double(), refiner.mean, refiner.std)}
            y = refiner.coordinates(x, e)
            z = refiner._to_normal("fast", y, c, n)
            moved = refiner.transport.apply(z, c, n)
            back = refiner._from_normal(moved, c)
            stages = {
                "coordinates": partial(refiner.coordinates, x, e),
                "to normal space": partial(refiner._to_normal, "fast", y, c, n),
                "network": partial(refiner.transport.apply, z, c, n),
                "moments": partial(refiner._corrected, moved, c),
                "from normal space": partial(refiner._from_normal, moved, c),
                "cells": partial(refiner.coordinates.inverse, back, e),
                "all of these": partial(refiner.refine, x, {"incident_energy": e}, n),
            }
            for name, action in stages.items():
                timed(f"{name}, tile of {tile}", tile, action, 40)
    for count in (len(ids), 1):
        repeats = 10 if count > 1 else 200
        timed(
            f"noise, {count} at once",
            count,
            partial(event_normal, 0, "profile", ids[:count], refiner.noise_dim),
            repeats,
        )
        timed(
            f"refine_cells, {count} at once",
            count,
            partial(refine_cells, model, cells[:count], energy[:count], ids[:count]),
            repeats,
        )


if __name__ == "__main__":
    main()
