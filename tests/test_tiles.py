"""Tiles of inference: no bit depends on how rows are cut, on any machine and for any network."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hepbridge.data import SQUIRELS, sample
from hepbridge.data.showers import Showers
from hepbridge.networks import ResidualMLP
from hepbridge.systems.inference import refine_cells
from hepbridge.systems.model_file import Model, load
from hepbridge.systems.refiner import Refiner, SystemConfig
from hepbridge.systems.tiles import TILE, Tiles, forget, tiles_of

GOLDEN = Path(__file__).parent / "golden" / "model-v1.safetensors"
RANGE = (1e4, 1e5)


class Scaled(Refiner):
    """Cells times 1.5, plus a planted fault: what depends on the tile."""

    noise_dim, nfe, planned_steps = 1, 0, 0

    def __init__(self, fault: str = "none") -> None:
        super().__init__(SystemConfig(), SQUIRELS)
        self.fault = fault
        self.seen: list[int] = []

    def fit(self, fast: Showers, full: Showers, seed: int) -> None: ...

    def phases(self, fast: Showers, full: Showers, seed: int):
        return iter(())

    def refine(self, cells: Tensor, conditions: dict[str, Tensor], noise: Tensor) -> Tensor:
        self.seen.append(len(cells))
        out = 1.5 * cells + noise
        if self.fault == "rows":
            out = out * (1 + 1e-6 * (len(cells) < 64))
        if self.fault == "place":
            out = out * (1 + 1e-6 * (torch.arange(len(cells)) % 128 == 17))[:, None]
        return out


class Network(Scaled):
    """A network of the shapes that refiners use."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = ResidualMLP(100, 100, 1, 64, 2, time=False, zero_init=False)

    def refine(self, cells: Tensor, conditions: dict[str, Tensor], noise: Tensor) -> Tensor:
        self.seen.append(len(cells))
        out: Tensor = torch.exp(0.1 * self.network(torch.log1p(cells), None, noise))
        return cells * out


@pytest.fixture(scope="module")
def golden() -> Model:
    return load(GOLDEN)


@pytest.fixture(scope="module")
def fast() -> Showers:
    return sample.load("train_fast")[:600]


def model_of(refiner: Refiner, golden: Model) -> Model:
    return Model([refiner.eval()], golden.recipe, SQUIRELS, golden.domain)


def refined(model: Model, fast: Showers, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
    some = fast[rows]
    return refine_cells(model, some.cells, some.incident_energy, some.event_ids)


@pytest.mark.parametrize("kind", [None, Network, Scaled])
def test_no_cut_and_no_order_changes_a_bit(golden: Model, fast: Showers, kind) -> None:
    """One by one, few by few, random pieces and random orders of rows, against all at once."""
    model = golden if kind is None else model_of(kind(), golden)
    whole = refined(model, fast)
    for size in (*range(1, 10), 37, 255, 256, 257, 599):
        for start in range(0, min(600, 2 * size), size):
            rows = slice(start, start + size)
            assert np.array_equal(refined(model, fast, rows), whole[rows]), (size, start)
    rng = np.random.default_rng(0)
    cuts = [0, *np.sort(rng.choice(np.arange(1, 600), 6, replace=False)), 600]
    for a, b in pairwise(cuts):
        assert np.array_equal(refined(model, fast, slice(a, b)), whole[a:b])
    if tiles_of(model.members[0], torch.device("cpu"), RANGE).safe(TILE):
        order = rng.permutation(600)
        assert np.array_equal(refined(model, fast, order), whole[order])


def test_one_shower_is_computed_in_a_small_tile(golden: Model, fast: Showers) -> None:
    """Where the arithmetic allows it: sums and products of single numbers are the same anywhere."""
    refiner = Scaled()
    model = model_of(refiner, golden)
    for rows in (1, TILE + 5):  # the first calls try what is safe
        refined(model, fast, slice(0, rows))
    refiner.seen.clear()
    refined(model, fast, slice(0, 1))
    refined(model, fast, slice(0, TILE + 5))
    assert refiner.seen == [4, TILE, 8]


@pytest.mark.parametrize("size", [4, 8, 16, 32])
def test_a_refiner_that_depends_on_the_tile_gets_full_tiles(
    golden: Model, fast: Showers, size: int
) -> None:
    """Planted: results below 64 rows differ in the last bits. Nobody may see it."""
    refiner = Scaled("rows")
    tiles = Tiles(refiner, RANGE)
    assert not tiles.safe(size)
    assert tiles.safe(64) and tiles.place(size) == 64
    model = model_of(refiner, golden)
    whole = refined(model, fast[:300])
    assert np.array_equal(refined(model, fast, slice(0, size)), whole[:size])


def test_a_refiner_that_depends_on_the_place_gets_full_tiles_in_their_order(
    golden: Model, fast: Showers
) -> None:
    """Planted: row 17 of a tile is special. No small tile, no sorting: as a padded tile gives it."""
    refiner = Scaled("place")
    tiles = Tiles(refiner, RANGE)
    assert not any(tiles.safe(size) for size in (4, 8, 16, 32, 64, 128, TILE))
    assert tiles.place(1) == TILE
    whole = refined(model_of(refiner, golden), fast)
    special = np.arange(600) % TILE % 128 == 17
    plain = refined(model_of(Scaled(), golden), fast)
    assert np.array_equal((whole != plain).any(axis=1), special)


def test_results_do_not_depend_on_threads_and_leave_them_as_they_were(
    golden: Model, fast: Showers
) -> None:
    whole, before = refined(golden, fast[:300]), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert np.array_equal(refined(golden, fast[:300]), whole)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_no_shower_at_all(golden: Model, fast: Showers) -> None:
    assert refined(golden, fast[:0]).shape == (0, 100)


def test_a_forgotten_trial_is_made_again(golden: Model) -> None:
    """While a student's teacher trains, the refiner is the teacher: its trial is not the student's."""
    refiner, cpu = golden.members[0], torch.device("cpu")
    first = tiles_of(refiner, cpu, (1e4, 1e5))
    assert tiles_of(refiner, cpu, (1e4, 1e5)) is first
    forget(refiner)
    assert tiles_of(refiner, cpu, (1e4, 1e5)) is not first
