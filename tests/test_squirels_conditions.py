"""Refining with angles, impact points and other conditions, against closed forms and toy showers."""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from hepbridge.core.errors import ConfigError, DataError, DomainError
from hepbridge.core.protocols import Pairs
from hepbridge.core.rng import stream
from hepbridge.data import SQUIRELS, Geometry
from hepbridge.data.cells import CellLayer, PolarCells, XYCells
from hepbridge.data.equivariance import invariant_elements, plane_matrices
from hepbridge.data.showers import Showers
from hepbridge.systems.model_file import Domain, Model, load
from hepbridge.systems.recipe import load_recipe
from hepbridge.systems.squirels import Squirels
from hepbridge.systems.train import train
from hepbridge.transforms.condition_frame import ConditionFrame, gather, spread
from hepbridge.transforms.named_conditions import NamedConditions
from hepbridge.transports.couplings import draw_pairs, order_rows, symmetrise_together
from hepbridge.transports.distilled import Distilled
from hepbridge.transports.staged_flow import StagedFlow

GRID = Geometry("toy", (6, 6), ("x", "y"), (10.0, 10.0), symmetry="D4")
N = 1500  # pairs for training
DEPTH = 60.0  # mm, where a tilted toy shower has its middle
COARSE = ["model.nodes=5", "model.knots=31", "model.degree=1", "model.degree_in_conditions=2"]


def toy(n: int, seed: int, *, full: bool, quadrant: bool = False, wrong: float = 1.0) -> Showers:
    """Exponential blobs around the impact point plus depth times the direction of flight.

    The full ones are wider, and hold less energy the more they are tilted. ``wrong`` multiplies what
    the conditions say of y.
    """
    beam, rng = stream(seed, "beam"), stream(seed, "cells", int(full))
    energy = np.exp(beam.uniform(np.log(5e3), np.log(5e4), n))
    theta, phi = beam.uniform(0, 0.17, n), beam.uniform(0, 2 * np.pi, n)
    x, y = beam.uniform(0 if quadrant else -10, 10, (2, n))
    u = x + DEPTH * np.sin(theta) * np.cos(phi)
    v = y + DEPTH * np.sin(theta) * np.sin(phi)
    away = np.hypot(GRID.x_mm - u[:, None], GRID.y_mm - v[:, None])
    cells = np.exp(-away / (9.0 if full else 8.0)) * rng.gamma(8.0, 1 / 8, away.shape)
    response = (0.9 - 0.5 * theta if full else 0.8) * (1 + 0.02 * rng.standard_normal(n))
    cells *= (energy * response / cells.sum(axis=1))[:, None]
    cells[cells < 30.0] = 0.0
    named = {"theta_rad": theta, "phi_rad": phi, "x_mm": x, "y_mm": wrong * y}
    return Showers.from_arrays(
        cells, energy, geometry=GRID, conditions=named, meta={"particle": "e-"}
    )


def barycentre(cells: np.ndarray, geometry: Geometry = GRID) -> np.ndarray:
    weights = cells / cells.sum(axis=1, keepdims=True)
    return np.stack([weights @ geometry.x_mm, weights @ geometry.y_mm], axis=1)


@pytest.fixture(scope="module")
def pairs() -> tuple[Showers, Showers]:
    return toy(N, 1, full=False), toy(N, 1, full=True)


@pytest.fixture(scope="module")
def model(pairs: tuple[Showers, Showers], tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("conditions") / "quantile.safetensors"
    return train(*pairs, recipe="quantile", overrides=COARSE, output=path, device="cpu")


@pytest.fixture(scope="module")
def test_pairs() -> tuple[Showers, Showers]:
    return toy(2000, 7, full=False), toy(2000, 7, full=True)


# -- symmetries -------------------------------------------------------------------------------

POLAR = Geometry.of_layers("polar", [CellLayer(PolarCells(r_mm=(0, 5, 9), n_phi=12))], "Dn")
OBLONG = Geometry.of_layers("oblong", [CellLayer(XYCells(n=(4, 6), pitch_mm=(3, 2)))], "D2")
CUBE = Geometry("cube", (2, 4, 4), ("z", "x", "y"), (1.0, 2.0, 2.0), symmetry="D4")


@pytest.mark.parametrize("geometry", [GRID, SQUIRELS, POLAR, OBLONG, CUBE], ids=lambda g: g.name)
def test_vectors_move_along_with_the_cells(geometry: Geometry) -> None:
    """The barycentre of a moved shower is the moved barycentre. Fails for transposed matrices."""
    cells = stream(0, "test").exponential(size=(20, geometry.n_cells)) ** 4
    matrices = plane_matrices(geometry)
    assert matrices is not None
    assert np.allclose(matrices @ matrices.transpose(0, 2, 1), np.eye(2))
    for move, matrix in zip(geometry.permutations(), matrices, strict=True):
        moved = barycentre(cells[:, move], geometry)
        assert np.allclose(moved, barycentre(cells, geometry) @ matrix.T)


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    """Element 1 turns the array of cells by 90 degrees: written out with NumPy and by hand."""
    image = stream(1, "test").random((6, 6))
    moved = image.reshape(-1)[GRID.permutations()[1]].reshape(6, 6)
    assert np.array_equal(moved, np.rot90(image))
    # rot90 takes cell (i, j) to (5 - j, i): the vector (x, y) to (-y, x)
    matrices = plane_matrices(GRID)
    assert matrices is not None
    assert np.allclose(matrices[1] @ [3.0, 1.0], [-1.0, 3.0])


def test_rings_without_sectors_fix_no_directions() -> None:
    rings = Geometry.of_layers("r", [CellLayer(PolarCells(r_mm=(0, 5, 9), n_phi=1))], "Dn")
    assert len(rings.permutations()) == 1 or plane_matrices(rings) is None


def _elements(showers: Showers, names: tuple[str, ...] = ("position", "direction")) -> list[int]:
    named = NamedConditions(("theta_rad", "phi_rad", "x_mm", "y_mm"))
    values = {name: torch.from_numpy(showers.conditions[name]) for name in named.names}
    columns = {name: value.numpy() for name, value in named.plain(values).items()}
    matrices = plane_matrices(GRID)
    assert matrices is not None
    return invariant_elements(showers, columns, {name: matrices for name in names})


def test_symmetries_are_those_of_showers_and_conditions_together() -> None:
    """All of a centred beam; identity and diagonal (x <-> y) of a beam on one quadrant of a cell.

    If y has the wrong sign, or the position is taken for two scalars, most elements are refuted.
    """
    assert _elements(toy(3000, 2, full=True)) == list(range(8))
    diagonal = _elements(toy(3000, 2, full=True, quadrant=True))
    assert len(diagonal) == 2
    matrices = plane_matrices(GRID)
    assert matrices is not None
    assert np.allclose(matrices[diagonal[1]], [[0, 1], [1, 0]])
    crossed = matrices[_elements(toy(3000, 2, full=True, wrong=-1.0))]
    assert len(crossed) < 8
    assert len(_elements(toy(3000, 2, full=True), names=("direction",))) < 8


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_augmentation_moves_cells_and_vectors_alike(sign: float) -> None:
    """Impact points of sharp showers are their barycentres, also of the images.

    With the sign of y planted wrong the barycentres of the images are elsewhere.
    """
    cells = stream(3, "test").exponential(size=(200, 36)) ** 4
    where = barycentre(cells) * [1.0, sign]
    matrices = plane_matrices(GRID)
    assert matrices is not None
    sample = torch.from_numpy(cells)
    pairs = Pairs(
        sample,
        sample.flip(0),
        {"position": torch.from_numpy(where), "scalar": torch.arange(200.0)[:, None]},
        symmetries=torch.from_numpy(GRID.permutations()),
        moves={"position": torch.from_numpy(matrices)},
    )
    (x0, x1), c = symmetrise_together(pairs, (pairs.source, pairs.target), stream(4, "test"))
    found = barycentre(x0.numpy()) * [1.0, sign]
    assert bool(np.allclose(found, c["position"].numpy())) is (sign > 0)
    assert torch.equal(c["scalar"], pairs.conditions["scalar"])
    # source and target by the same element: their scalar products stay
    assert torch.allclose((x0 * x1).sum(1), (pairs.source * pairs.target).sum(1))
    assert not torch.equal(x0, pairs.source)


class _Identity:
    """A teacher that has nothing to learn and moves nothing."""

    planned_steps, noise_dim = 0, 0

    def phases(self, pairs: Pairs, seed: int):
        return iter(())

    def apply(self, x, conditions, noise):
        return x

    def parameters(self):
        return iter(())


def test_lessons_of_a_student_keep_vectors_and_cells_together() -> None:
    cells = stream(5, "test").exponential(size=(100, 36)) ** 4
    matrices = plane_matrices(GRID)
    assert matrices is not None
    sample = torch.from_numpy(cells).float()
    where = torch.from_numpy(barycentre(cells)).float()
    pairs = Pairs(
        sample,
        sample,
        {"position": where},
        symmetries=torch.from_numpy(GRID.permutations()),
        moves={"position": torch.from_numpy(matrices).float()},
    )
    student = Distilled(36, {"position": 2}, width=8, depth=1, images=2)
    student._teacher.append(_Identity())
    (phase,) = student.phases(pairs, 0)
    assert phase.prepare is not None
    phase.prepare(stream(0, "prepare"))
    batch = phase.batch(0, stream(0, "batch"))
    assert np.allclose(barycentre(batch["x0"].numpy()), batch["c"].numpy(), atol=1e-4)
    assert torch.equal(batch["x0"], batch["x1"])


def test_frames_between_two_flows_see_moved_vectors() -> None:
    """All images of cells (N, 36) beside a sum that stays, and their columns of conditions."""
    cells = stream(10, "test").exponential(size=(50, 36)) ** 4
    matrices = plane_matrices(GRID)
    assert matrices is not None
    moves = torch.from_numpy(GRID.permutations())
    sample = torch.cat([torch.from_numpy(cells), torch.arange(50.0)[:, None]], dim=1).float()
    pairs = Pairs(
        sample,
        sample,
        {"position": torch.from_numpy(barycentre(cells)).float(), "scalar": sample[:, 36:]},
        symmetries=torch.cat([moves, torch.full((8, 1), 36)], dim=1),
        moves={"position": torch.from_numpy(matrices).float()},
    )
    flow = StagedFlow(37, {"position": 2, "scalar": 1}, lead=1, then={"width": 8, "depth": 1})
    columns, s, c = flow._images(sample[:, :36], sample[:, 36:], pairs)
    u = torch.cat([columns(torch.arange(20)), columns(torch.arange(20, 36))], dim=1)
    assert flow._alike(pairs) is None  # conditions turn as well
    assert len(u) == 8 * 50
    assert np.allclose(barycentre(u.numpy()), c[:, :2].numpy(), atol=1e-4)
    assert torch.equal(s[:, 0], c[:, 2])


# -- coupling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 3.0, float("inf")])
def test_conditions_enter_the_assignment(weight: float) -> None:
    """Against all permutations; an infinite weight leaves every row with its own partner."""
    rng = stream(6, "test")
    x0, x1, c = (torch.from_numpy(rng.standard_normal((5, 2))) for _ in range(3))
    energy = torch.arange(5.0, dtype=torch.float64)[:, None]
    pairs = Pairs(x0, x1, {"incident_energy": energy, "c": c}, order="incident_energy")
    scale = torch.ones(2, dtype=torch.float64)
    rows = order_rows(pairs, 0)
    named, a, b = draw_pairs(pairs, rows, 5, 1, stream(7, "test"), scale, weight)
    place = named["incident_energy"][:, 0].long()
    assert torch.equal(a, x0[place])
    assert torch.equal(named["c"], c[place])
    if weight == float("inf"):
        assert torch.equal(b, x1[place])
        return

    def cost(order: tuple[int, ...]) -> float:
        p = list(order)
        apart = (x0 - x1[p]).square().sum() + weight * (c - c[p]).square().sum()
        return float(apart)

    partner = [int((x1 == row).all(dim=1).nonzero()[0]) for row in b]
    found = [partner[i] for i in torch.argsort(place)]
    assert cost(tuple(found)) == pytest.approx(min(map(cost, itertools.permutations(range(5)))))


# -- columns and frames -----------------------------------------------------------------------


def test_directions_are_vectors() -> None:
    """An azimuth is periodic, and none along the axis; a component that is not named is 0."""
    named = NamedConditions(("theta_rad", "phi_rad", "depth"))
    assert named.dims == {"direction": 2, "depth": 1}
    theta = torch.tensor([0.1, 0.1, 0.0, 0.0])
    phi = torch.tensor([1.0, 1.0 + 2 * np.pi, 0.3, 2.0])
    found = named({"theta_rad": theta, "phi_rad": phi, "depth": theta})["direction"]
    assert torch.allclose(found[0], found[1], atol=1e-6)
    assert torch.allclose(found[2], found[3])
    alone = NamedConditions(("x_mm",)).plain({"x_mm": theta})["position"]
    assert torch.equal(alone, torch.stack([theta, 0 * theta], dim=1))
    with pytest.raises(ConfigError, match="phi_rad is no direction without theta_rad"):
        NamedConditions(("phi_rad",))


def test_frame_learns_mean_spread_and_emptiness() -> None:
    """Against the functions that made the sample, within four standard errors of the fit."""
    rng, n = stream(8, "test"), 40_000
    c = rng.uniform(-2, 2, (n, 2))
    x, y = c.T
    mean, sigma, p0 = 1 + x - 0.5 * x * y, np.exp(0.3 * y), 1 / (1 + np.exp(1 - x))
    value = mean + sigma * rng.standard_normal(n)
    values = np.stack([np.where(rng.random(n) < p0, -np.inf, value), value, value], axis=1)
    values[:, 2] = -np.inf
    frame = ConditionFrame(3, 2, 3)
    one = torch.arange(3)[None], torch.eye(2)[None]
    frame.fit(torch.from_numpy(values).float(), torch.from_numpy(c).float(), *one)
    m, s, p = (a.numpy() for a in frame(torch.from_numpy(c).float()))
    inner = np.abs(c).max(axis=1) < 1.8
    # ten coefficients, three rows per parameter at the edge: the variance is at most about 10 F / N
    error = 4 * (10 * 10 / n) ** 0.5
    for k in (0, 1):
        assert np.abs((m[:, k] - mean) / sigma)[inner].max() < error * (1 + k == 0 or 1.6)
        assert np.abs(np.log(s[:, k] / sigma))[inner].max() < error
    assert np.abs(p[:, 0] - p0)[inner].max() < error
    assert (p[:, 1] == 0).all()
    assert (p[:, 2] == 1).all()
    z = spread(
        torch.from_numpy((values - m) / s).float().nan_to_num(neginf=0.0),
        torch.from_numpy(p),
        torch.from_numpy(rng.standard_normal((n, 3))).float(),
        torch.from_numpy(values > -np.inf),
    )
    for part in (x < -1, x > 1, y > 1):
        assert kstest(z[part][:, 0].numpy(), "norm").pvalue > 1e-4
    inner_z, hit = gather(z, torch.from_numpy(p))
    assert torch.equal(hit, torch.from_numpy(values > -np.inf))
    back = m[:, 0] + s[:, 0] * inner_z[:, 0].numpy()
    seen = hit[:, 0].numpy() & (np.abs(z[:, 0].numpy()) < 4)
    assert np.allclose(back[seen], values[seen, 0], atol=2e-3)
    beyond = frame(torch.tensor([[50.0, 0.0]]))
    edge = frame(torch.tensor([[float(frame.high[0]), 0.0]]))
    assert torch.equal(beyond[0], edge[0])


# -- the refiner ------------------------------------------------------------------------------


def test_refined_showers_are_right_at_every_condition(model: Model, test_pairs) -> None:
    """Mean energy sum and barycentre in slices, within 4 errors; the energies alone do not do it."""
    fast, full = test_pairs
    plain = ["model.conditions=[]", *COARSE]
    blind = train(*(toy(N, 1, full=f) for f in (False, True)), recipe="quantile", overrides=plain)
    refined, unaware = model.refine(fast), blind.refine(fast)
    theta = full.conditions["theta_rad"]

    def pulls(showers: Showers) -> list[float]:
        out = []
        for part in (theta < 0.05, theta > 0.12):
            # rows are pairs: what the conditions explain drops out of the differences
            difference = (showers.e_sum - full.e_sum)[part] / full.incident_energy[part]
            out.append(float(difference.mean() / difference.std() * part.sum() ** 0.5))
        return out

    learned = 1 + 2000 / N  # the table's own fluctuations, times two slices
    assert max(map(abs, pulls(refined))) < 4 * learned
    assert max(map(abs, pulls(unaware))) > 10, "no power"
    x = full.conditions["x_mm"]
    for part in (x < -5, x > 5):
        shift = (barycentre(refined.cells) - barycentre(full.cells))[part, 0]
        assert abs(shift.mean()) < 4 * learned * shift.std() / part.sum() ** 0.5


def test_a_refiner_has_the_symmetry_of_its_sample(model: Model, test_pairs) -> None:
    """Refining a turned shower is turning the refined one, to rounding. Needs all images in the fit."""
    refiner = model.members[0]
    assert model.recipe.model["symmetry"] == "declared"
    fast = test_pairs[0][:50]
    noise = torch.from_numpy(stream(9, "test").standard_normal((50, refiner.noise_dim))).float()
    cells = torch.from_numpy(fast.cells)
    values = {name: torch.from_numpy(value).float() for name, value in fast.conditions.items()}
    straight = refiner.refine(cells, values, noise)
    move = torch.from_numpy(GRID.permutations()[1])
    turned = values | {
        "x_mm": -values["y_mm"],
        "y_mm": values["x_mm"],
        "phi_rad": values["phi_rad"] + np.pi / 2,
    }
    sums = torch.arange(36, refiner.noise_dim)
    image = refiner.refine(cells[:, move], turned, noise[:, torch.cat([move, sums])])
    assert torch.allclose(image, straight[:, move], rtol=2e-2, atol=1.0)
    wrong = turned | {"x_mm": values["y_mm"]}
    other = refiner.refine(cells[:, move], wrong, noise[:, torch.cat([move, sums])])
    assert not torch.allclose(other, straight[:, move], rtol=2e-2, atol=1.0)


def test_the_file_keeps_the_conditions(model: Model, test_pairs, tmp_path: Path) -> None:
    fast = test_pairs[0]
    names = ["phi_rad", "theta_rad", "x_mm", "y_mm"]
    assert model.recipe.model["conditions"] == names
    assert set(model.domain.conditions) == set(names)
    again = load(model.save(tmp_path / "model.safetensors"))
    assert again.domain == model.domain
    assert np.array_equal(again.refine(fast).cells, model.refine(fast).cells)
    for batch in (1, 300):
        assert np.array_equal(
            model.refine(fast[:300], batch=batch).cells, model.refine(fast[:300]).cells
        )
    record = model.domain.to_dict()
    del record["conditions"]
    assert Domain.from_dict(record).conditions == {}
    record["conditions"] = {"x_mm": [2.0, 1.0]}
    with pytest.raises(DataError, match="no ranges of conditions"):
        Domain.from_dict(record)


def test_conditions_outside_the_trained_range_are_flagged(model: Model, test_pairs, caplog) -> None:
    fast = test_pairs[0][:40]
    turns = fast.conditions["phi_rad"] - 2 * np.pi
    same = replace(fast, conditions={**fast.conditions, "phi_rad": turns})
    assert "outside_domain" not in model.refine(same).columns
    x = fast.conditions["x_mm"].copy()
    x[3] = 40.0
    far = replace(fast, conditions={**fast.conditions, "x_mm": x})
    with caplog.at_level(logging.WARNING):
        refined = model.refine(far)
    assert "1 of 40 showers have x_mm outside the trained range" in caplog.text
    assert np.flatnonzero(refined.columns["outside_domain"]).tolist() == [3]
    with pytest.raises(DomainError, match=r"first: row 3, 40\); train a model that covers"):
        model.refine(far, strict=True)


def test_missing_conditions_are_named(model: Model, test_pairs) -> None:
    fast = test_pairs[0]
    some = {k: v for k, v in fast.conditions.items() if k not in ("theta_rad", "x_mm")}
    with pytest.raises(DataError, match="needs the conditions theta_rad, x_mm of every shower"):
        model.refine(replace(fast, conditions=some))


def test_training_says_what_it_does_not_use_or_cannot(pairs, caplog) -> None:
    fast, full = pairs[0][:300], pairs[1][:300]
    with caplog.at_level(logging.WARNING):
        blind = train(fast, full, recipe="quantile", overrides=["model.conditions=[]", *COARSE])
    assert "vary in theta_rad, phi_rad, x_mm, y_mm, and the model will know nothing" in caplog.text
    assert "conditions" not in blind.recipe.model
    with pytest.raises(DataError, match="no condition depth; they have incident_energy"):
        train(fast, full, recipe="quantile", overrides=["model.conditions=[depth]", *COARSE])
    shuffled = replace(full, conditions={**full.conditions, "x_mm": full.conditions["x_mm"][::-1]})
    with pytest.raises(DataError, match=r"condition x_mm differs within \d+ of 300 pairs"):
        train(fast, shuffled, recipe="quantile", overrides=COARSE)


def test_constant_conditions_change_nothing(pairs) -> None:
    """On the axis the recipe, and so the file, is what it was before there were conditions."""
    fast, full = (
        replace(s[:100], conditions={"incident_energy": s.incident_energy[:100]}) for s in pairs
    )
    config = load_recipe("quantile").system_config()
    plain = Squirels.resolve(config, fast, full).model_dump(mode="json")
    assert not {"conditions", "elements", "degree_in_conditions"} & set(plain)
    still = [
        replace(s, conditions={**s.conditions, "theta_rad": np.zeros(len(s))}) for s in (fast, full)
    ]
    assert Squirels.resolve(config, *still).model_dump(mode="json") == plain
    assert json.dumps(Domain(1.0, 2.0).to_dict()).count("conditions") == 0


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["squirels", "squirels-mmd"])
def test_networks_take_the_conditions(pairs, test_pairs, recipe: str, tmp_path: Path) -> None:
    """Every kind of transport trains, is stored and refines with them; a student as well."""
    import tiny

    small = tiny.TINY if recipe == "squirels" else ["model.options.width=16"]
    overrides = ["training.steps=40", *small, "model.match_marginals=true", *COARSE]
    made = train(*pairs, recipe=recipe, overrides=overrides, output=tmp_path / "m.safetensors")
    refined = made.refine(test_pairs[0])
    assert np.isfinite(refined.cells).all()
    assert np.array_equal(
        load(tmp_path / "m.safetensors").refine(test_pairs[0]).cells, refined.cells
    )
    assert made.metrics["lost"] == []
