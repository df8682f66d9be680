"""Rows of any calorimeter: distances against slow references, and planted defects that are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.showers import Showers
from hepbridge.metrics import Evaluation, evaluate
from hepbridge.metrics.classifier import QUICK, classifier_test
from hepbridge.metrics.failures import failures
from hepbridge.metrics.rows import weighted_mean
from hepbridge.metrics.sets import make_sets
from hepbridge.metrics.shapes.correlation import CorrelationPool, correlations
from hepbridge.metrics.shapes.layout import Layout
from hepbridge.metrics.shapes.profile_distance import BinnedEnergy, ProfilePool
from hepbridge.metrics.shapes.rows import Correlation, Spectrum, shape_rows
from hepbridge.metrics.shapes.shapes import Shapes
from shape_toys import RINGS, STACK, VOXELS, as_points, random_showers, stack_showers

FAST = {"bootstraps": 10, "splits": 100, "classifiers": ()}
N = 500


def test_rows_of_a_detector_with_layers_and_of_one_without() -> None:
    deep = shape_rows(Shapes.of(stack_showers(5, 1)), mixed=False)
    names = [row.name for row in deep]
    assert names[:12] == [
        *("e_sum", "e_max", "hits", "e_spec_log", "profile_z", "profile_r"),
        *("centre_x", "centre_y", "centre_z", "width_x", "width_y", "width_z"),
    ]
    assert names[12:] == [
        *(f"e_layer_{k}" for k in range(6)),
        *(f"hits_layer_{k}" for k in range(6)),
        "correlation",
    ]
    assert [r.group for r in deep if r.name.startswith("hits_")] == ["hits_layer"] * 6
    flat = [row.name for row in shape_rows(Shapes.of(random_showers(RINGS, 5, 1)), mixed=True)]
    assert flat == [
        *("e_ratio", "e_max", "hits", "e_spec_log", "profile_r"),
        *("centre_x", "centre_y", "width_x", "width_y", "correlation"),
    ]


def test_units_and_values_of_rows_by_hand() -> None:
    """One shower: 8,000 MeV in layer 1 at x = 5, y = -15, and 2,000 MeV in layer 3 at the same x."""
    cells = np.zeros((1, 216))
    cells[0, 36 + 3 * 6 + 1], cells[0, 3 * 36 + 3 * 6 + 3] = 8000.0, 2000.0
    shapes = Shapes.of(Showers.from_arrays(cells, [20_000.0], geometry=STACK))
    rows = {r.name: r for mixed in (True, False) for r in shape_rows(shapes, mixed=mixed)}
    value = {
        name: row.entries(shapes).values[0]
        for name, row in rows.items()
        if name not in ("profile_z", "profile_r", "e_spec_log", "correlation")
    }
    expected = {"e_sum": 10.0, "e_ratio": 0.5, "e_max": 8.0, "hits": 2, "centre_x": 5.0}
    expected |= {"centre_y": -11.0, "centre_z": 38.0, "width_x": 0.0, "width_y": 8.0}
    expected |= {"width_z": 16.0, "e_layer_1": 8.0, "e_layer_3": 2.0, "hits_layer_3": 1}
    for name, number in expected.items():
        assert value[name] == pytest.approx(number), name
    relative = {r.name: r for r in shape_rows(shapes, mixed=True)}
    assert relative["e_max"].entries(shapes).values[0] == pytest.approx(0.4)
    assert relative["e_layer_3"].entries(shapes).values[0] == pytest.approx(0.1)
    assert {relative[name].unit for name in ("e_max", "e_layer_3")} == {""}
    spectrum = rows["e_spec_log"].entries(shapes, np.array([0]))
    assert sorted(spectrum.values) == pytest.approx([np.log10(2000), np.log10(8000)])
    profile = rows["profile_z"].entries(shapes)
    assert profile.places.tolist() == [10, 30, 50, 70, 90, 110]
    assert profile.mass[0].tolist() == [0, 8000, 0, 2000, 0, 0]


def test_profile_pool_is_the_weighted_wasserstein_distance() -> None:
    rng = np.random.default_rng(1)
    places = np.array([1.0, 2.5, 7.0, 7.5])
    u, v = rng.exponential(1.0, (30, 4)), rng.exponential([2.0, 1.0, 1.0, 0.2], (30, 4))
    w = rng.uniform(0.5, 2.0, 30)
    pool = ProfilePool(BinnedEnergy(places, u, w), BinnedEnergy(places, v))

    def slow(first: np.ndarray, second: np.ndarray) -> float:
        return wasserstein_distance(places, places, first, second)

    assert pool.distance() == pytest.approx(slow(w @ u, v.sum(axis=0)))
    count = rng.multinomial(30, np.full(30, 1 / 30), size=3)
    found = pool.bootstrap(count)
    assert found == pytest.approx([slow(w @ u, c @ v) for c in count])
    found = pool.bootstrap(count, count)
    assert found == pytest.approx([slow((c * w) @ u, c @ v) for c in count])
    mask = rng.random((70, 60)) < 0.5  # more than are handled together
    both = np.concatenate([u * w[:, None], v])
    expected = [slow(both[m].sum(axis=0), both[~m].sum(axis=0)) for m in mask]
    assert pool.splits(mask) == pytest.approx(expected)
    entries = BinnedEnergy(places, u, w)
    repeated = np.repeat(places[None], 30, axis=0)
    mean = np.average(repeated, weights=u * w[:, None])
    std = np.sqrt(np.average((repeated - mean) ** 2, weights=u * w[:, None]))
    assert entries.std() == pytest.approx(std)
    with pytest.raises(DataError, match="no energy"):
        ProfilePool(BinnedEnergy(places, u), BinnedEnergy(places, 0 * v)).distance()


def test_correlation_pool_is_that_of_numpy() -> None:
    rng = np.random.default_rng(2)
    mix = rng.normal(size=(4, 4))
    u, v = rng.normal(size=(50, 4)) @ mix + 1e4, rng.normal(size=(50, 4)) + 1e4
    above = np.triu_indices(4, 1)

    def slow(first: np.ndarray, second: np.ndarray) -> float:
        difference = np.corrcoef(first.T)[above] - np.corrcoef(second.T)[above]
        return float(np.sqrt((difference**2).mean()))

    pool = CorrelationPool(u, v)
    assert correlations(u) == pytest.approx(np.corrcoef(u.T), abs=1e-9)
    assert pool.distance() == pytest.approx(slow(u, v), abs=1e-9)
    rows = rng.integers(50, size=(3, 50))
    count = np.stack([np.bincount(r, minlength=50) for r in rows])
    assert pool.bootstrap(count) == pytest.approx([slow(u, v[r]) for r in rows], abs=1e-9)
    found = pool.bootstrap(count, count)
    assert found == pytest.approx([slow(u[r], v[r]) for r in rows], abs=1e-9)
    mask = rng.random((5, 100)) < 0.5
    both = np.concatenate([u, v])
    assert pool.splits(mask) == pytest.approx([slow(both[m], both[~m]) for m in mask], abs=1e-9)
    weights = np.arange(50) % 3  # a shower of weight 2 counts as two
    weighted = CorrelationPool(u, v, (weights + 0.0, None))
    assert weighted.distance() == pytest.approx(slow(np.repeat(u, weights, axis=0), v), abs=1e-9)
    constant = u.copy()
    constant[:, 2] = 5.0
    assert np.isfinite(correlations(constant)).all() and not correlations(constant)[2].any()


def test_correlations_are_of_cells_where_there_are_few() -> None:
    few, many = Shapes.of(random_showers(VOXELS, 60, 1)), Shapes.of(stack_showers(60, 1))
    assert Correlation().entries(few, None)[0].shape == (60, 24)
    assert Correlation().entries(many, None)[0].shape == (60, 6)
    assert Correlation().entries(many, np.arange(20))[0].shape == (20, 6)


def test_spectrum_takes_common_rows_in_a_spectrum_of_energies() -> None:
    """Fails if rows of different incident energies meet: the distance would be of energies."""
    energy = np.random.default_rng(0).uniform(1e4, 1e5, 2500)
    long, short = (Shapes.of(stack_showers(n, n, energy[:n])) for n in (2500, 1500))
    samples = {"ref": short, "c": long[:1500]}
    rows = Spectrum().chosen(samples, mixed=True, seed=0)
    assert np.array_equal(rows["ref"], rows["c"]) and len(rows["c"]) > 300
    assert set(rows["c"]) == set(long.kept_rows) & set(short.kept_rows) & set(range(1500))
    apart = Spectrum().chosen(samples, mixed=False, seed=0)
    assert len(apart["ref"]) > len(apart["c"])
    entries = Spectrum().entries(short, rows["c"])
    first = short.kept[np.searchsorted(short.kept_rows, rows["c"][:1])]
    seen = first.energy[first.energy > 0.1]
    assert entries.values[entries.owner == 0] == pytest.approx(np.log10(seen))


def test_a_group_weighs_as_much_as_one_row() -> None:
    ratios = [(1.0, None), (8.0, "a"), (2.0, "a"), (4.0, None)]
    assert weighted_mean(ratios) == pytest.approx((1 * 4 * 4) ** (1 / 3))
    assert weighted_mean([]) is None and weighted_mean([(0.0, None), (2.0, None)]) == 0.0
    assert weighted_mean([(3.0, None), (0.0, "a"), (12.0, "a")]) == pytest.approx(6.0)
    assert weighted_mean([(3.0, None), (0.0, "a")]) == 0.0


# -- planted defects --------------------------------------------------------------------------


def grid(showers: Showers) -> np.ndarray:
    return showers.cells.reshape(-1, 6, 6, 6).copy()


def deeper(s: Showers) -> np.ndarray:
    return np.roll(grid(s), 1, axis=1)


def slipped_layer(s: Showers) -> np.ndarray:
    g = grid(s)
    g[:, 2] = np.roll(g[:, 2], 1, axis=1)
    return g


def swapped_cells(s: Showers) -> np.ndarray:
    g = grid(s)
    g[:, 2, 2, 2], g[:, 2, 0, 0] = g[:, 2, 0, 0].copy(), g[:, 2, 2, 2].copy()
    return g


def dead_cells(s: Showers) -> np.ndarray:
    g = grid(s)
    g[:, 2, 2, 2] = 0.0
    return g


def smeared(s: Showers) -> np.ndarray:
    factor = np.random.default_rng(9).normal(1.0, 0.05, len(s))
    return grid(s) * factor[:, None, None, None]


def dead_layer(s: Showers) -> np.ndarray:
    g = grid(s)
    g[:, 4] = 0.0
    return g


def noise(s: Showers) -> np.ndarray:
    g = grid(s)
    rng = np.random.default_rng(9)
    return np.where((g == 0) & (rng.random(g.shape) < 0.6), rng.uniform(0.2, 2.0, g.shape), g)


def wider(s: Showers) -> np.ndarray:
    g = grid(s)
    away = np.abs(np.arange(6) - 2.5) > 1
    g[:, :, :, away] *= 1.5
    return g


def uncorrelated(s: Showers) -> np.ndarray:
    """Layers of different showers: every layer keeps its distribution."""
    g, rng = grid(s), np.random.default_rng(9)
    for k in range(6):
        g[:, k] = g[rng.permutation(len(g)), k]
    return g


def coarse(s: Showers) -> np.ndarray:
    """Cells in steps: only their spectrum knows."""
    g = grid(s)
    return np.where((g > 0.1) & (g < 5.0), 0.5, g)


@lru_cache
def samples() -> tuple[Shapes, Shapes, Showers]:
    ref, ref2, cand = (stack_showers(N, seed) for seed in (1, 2, 3))
    return Shapes.of(ref), Shapes.of(ref2), cand


def outstanding(cells: Callable[[Showers], np.ndarray] | None) -> tuple[Evaluation, set[str]]:
    ref, ref2, cand = samples()
    bad = cand if cells is None else cand.with_cells(cells(cand).reshape(N, -1).astype("f4"))
    found = evaluate(ref, {"c": Shapes.of(bad)}, ref2, **FAST)
    rows = found.sets[0]["rows"]
    return found, {r["observable"] for r in rows if r["candidates"]["c"]["p_adjusted"] < 0.05}


def test_a_perfect_candidate_stands_out_nowhere() -> None:
    found, rows = outstanding(None)
    assert rows == set()
    assert found.verdict is not None and found.verdict["c"]["p_global"] > 0.05
    assert 0.5 < found.sets[0]["ratio_geometric_mean"]["c"] < 1.7


@pytest.mark.parametrize(
    ("defect", "seen"),
    [
        (deeper, {"centre_z", "profile_z", "e_layer_0", "e_layer_5"}),
        (slipped_layer, {"centre_x", "profile_r"}),
        (swapped_cells, {"centre_x", "centre_y", "width_x", "width_y", "profile_r"}),
        (dead_cells, {"e_sum", "hits_layer_2", "e_layer_2"}),
        (smeared, {"e_sum"}),
        (dead_layer, {"e_layer_4", "hits_layer_4", "width_z", "correlation"}),
        (noise, {"hits", "e_spec_log", "hits_layer_0"}),
        (wider, {"width_y", "profile_r"}),
        (uncorrelated, {"correlation"}),
        (coarse, {"e_spec_log"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_defect_is_found_by_its_rows(
    defect: Callable[[Showers], np.ndarray], seen: set[str]
) -> None:
    _, rows = outstanding(defect)
    assert seen <= rows, f"missed {seen - rows}, found {rows}"


def test_a_reordering_of_layers_is_seen_by_nothing_but_what_relates_them() -> None:
    _, rows = outstanding(uncorrelated)
    assert not {r for r in rows if r.startswith(("e_layer", "hits_layer"))}
    _, rows = outstanding(coarse)
    assert not {"hits", "centre_x", "profile_r", "correlation"} & rows


# -- the rest of an evaluation ----------------------------------------------------------------


def test_cells_points_and_shapes_give_the_same_record() -> None:
    ref, cand = stack_showers(120, 1), stack_showers(120, 2)
    a = evaluate(ref, {"c": cand}, **FAST).to_dict()
    b = evaluate(Shapes.of(ref), {"c": Shapes.of(cand)}, **FAST).to_dict()
    layout = Layout.of(STACK)
    c = evaluate(
        Shapes.of(as_points(ref), layout), {"c": Shapes.of(as_points(cand), layout)}, **FAST
    ).to_dict()
    assert a["sets"] == b["sets"] == c["sets"]
    assert a["layout"] == c["layout"] and a["layout"]["threshold_mev"] == 0.1
    assert a["layout"]["depths"] == [10, 30, 50, 70, 90, 110]
    assert Evaluation.from_dict(json.loads(json.dumps(a))).to_dict() == a
    # points without a layout: layers as they are, rings that suit the reference
    (d,) = evaluate(as_points(ref), {"c": as_points(cand)}, **FAST).sets
    assert {r["observable"] for r in d["rows"]} == {r["observable"] for r in a["sets"][0]["rows"]}


def test_mixed_energies_are_compared_row_by_row() -> None:
    energy = np.random.default_rng(0).uniform(1e4, 1e5, 300)
    ref, ref2, cand = (Shapes.of(stack_showers(300, s, energy)) for s in range(3))
    (found,) = evaluate(ref, {"c": cand}, ref2, **FAST).sets
    rows = {r["observable"]: r for r in found["rows"]}
    assert "e_ratio" in rows and "e_sum" not in rows
    assert rows["e_max"]["candidates"]["c"]["emd"] < 2 * rows["e_max"]["floor"]["mean"]
    shuffled = Shapes.of(stack_showers(300, 5, energy[::-1]))
    with pytest.raises(DataError, match="row i of 'c'"):
        evaluate(ref, {"c": shuffled}, **FAST)


def test_weights_count_in_every_row() -> None:
    """A sample whose bad half has weight 0 is like its good half."""
    ref, ref2, good = (stack_showers(200, s) for s in range(3))
    bad = good.with_cells(np.roll(good.cells, 36, axis=1) * np.float32(1.3))
    cells = np.stack([good.cells, bad.cells], axis=1).reshape(400, -1)
    both = Showers.from_arrays(
        cells, np.repeat(good.incident_energy, 2), geometry=STACK, weights=np.tile([1.0, 0.0], 200)
    )
    plain = Showers.from_arrays(cells, both.incident_energy, geometry=STACK)
    means = [
        evaluate(ref, {"c": c}, ref2, **FAST).sets[0]["ratio_geometric_mean"]["c"]
        for c in (both, plain)
    ]
    assert means[1] > 3 * means[0]


def test_classifiers_see_cells_only_where_they_are_kept() -> None:
    ref, _, cand = samples()
    bad = Shapes.of(cand.with_cells(dead_layer(cand).reshape(N, -1)))
    found = classifier_test(ref, bad, settings=QUICK)
    assert list(found) == ["low", "high"] and min(f["auc"] for f in found.values()) > 0.9
    points = Shapes.of(as_points(cand), ref.layout)
    assert list(classifier_test(ref, points, settings=QUICK)) == ["high"]
    with pytest.raises(ConfigError, match="unknown level 'low'; available: high"):
        failures(ref, points, level="low")
    told = failures(ref, bad, settings=QUICK)
    assert told["auc"] > 0.9 and told["importances"][0]["drop"] > 0.01
    assert len(told["importances"]) == 9 + 6
    low = failures(ref, bad, level="low", settings=QUICK)
    assert {w["name"] for s in low["suspects"] for w in s["why"]} <= {
        *(f"cell {k}" for k in range(216)),
        "log incident energy",
    }


def test_copies_of_training_showers_are_found_in_layers_and_rings() -> None:
    """Without cells, too; coverage has its numbers."""
    train, ref, ref2, cand = (stack_showers(250, s) for s in (7, 8, 9, 10))
    copied = cand.with_cells(np.where(np.arange(250)[:, None] < 25, train.cells, cand.cells))
    layout = Layout.of(STACK)
    given = [Shapes.of(as_points(s), layout) for s in (train, ref, ref2, copied, cand)]
    found = evaluate(
        given[1], {"copied": given[3], "new": given[4]}, given[2], train=given[0], **FAST
    )
    assert found.memorisation is not None
    p = {name: one["p"] for name, one in found.memorisation["candidates"].items()}
    assert p["copied"] < 1e-3 < p["new"]
    coverage = found.sets[0]["prdc"]["candidates"]["new"]["coverage"]
    assert abs(coverage["value"] - found.sets[0]["prdc"]["expected_coverage"]) < 0.05


def test_samples_that_cannot_be_compared_are_refused() -> None:
    ref = Shapes.of(stack_showers(60, 1))
    plane = Showers.from_arrays(np.ones((60, 100)), np.full(60, 1e4))
    with pytest.raises(DataError, match="sorted into the layers of 'stack'"):
        evaluate(ref, {"c": plane}, **FAST)
    with pytest.raises(DataError, match="'c' is no sample of the same kind"):
        make_sets(ref, {"c": plane}, None)
    other = Shapes.of(random_showers(VOXELS, 60, 1))
    with pytest.raises(DataError, match=r"'c' has geometry 'voxels' .* compare like with like"):
        evaluate(ref, {"c": other}, **FAST)
    finer = Shapes.of(stack_showers(60, 1), threshold_mev=0.5)
    with pytest.raises(DataError, match=r"'c' counts hits above 0.5 MeV, the reference above 0.1"):
        evaluate(ref, {"c": finer}, **FAST)
    axis = Showers.from_arrays(
        stack_showers(60, 1).cells,
        np.full(60, 2e4),
        geometry=STACK,
        conditions={"x_mm": np.zeros(60)},
    )
    with pytest.raises(DataError, match="where the axis of each shower is"):
        evaluate(ref, {"c": axis}, **FAST)
    second = Shapes.of(stack_showers(60, 2))
    with pytest.raises(ConfigError, match="one plane"):
        evaluate(ref, {"c": ref}, second, paper=True, **FAST)
    with pytest.raises(ConfigError, match="unknown observable 'n_hit'"):
        evaluate(ref, {"c": ref}, second, starred=["n_hit"], **FAST)
    gev = Showers.from_arrays(stack_showers(60, 1).cells / 1e5, np.full(60, 2e4), geometry=STACK)
    with pytest.raises(DataError, match="cells seem to be GeV"):
        evaluate(gev, {"c": gev}, gev, **FAST)
    with pytest.raises(DataError, match="'c' must be Showers, got list"):
        evaluate(ref, {"c": [1.0]}, **FAST)  # type: ignore[dict-item]


def test_starred_layers_are_left_out_of_the_verdict() -> None:
    ref, ref2, cand = samples()
    bad = Shapes.of(cand.with_cells(dead_layer(cand).reshape(N, -1)))
    plain = evaluate(ref, {"c": bad}, ref2, **FAST)
    starred = evaluate(ref, {"c": bad}, ref2, starred=["e_layer_4", "hits_layer_4"], **FAST)
    assert plain.verdict is not None and starred.verdict is not None
    assert starred.verdict["c"]["of"] == plain.verdict["c"]["of"] - 2
