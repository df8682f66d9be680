"""Metrics of unfolded samples against SciPy, closed forms and slow loops."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.tables import Table
from hepbridge.metrics.unfolding.calibration import calibration, ranks
from hepbridge.metrics.unfolding.classifier import weighted_auc
from hepbridge.metrics.unfolding.correlation import correlation_distance, weighted_correlations
from hepbridge.metrics.unfolding.distances import distances, published_sigmas, triangular
from hepbridge.metrics.unfolding.evaluation import evaluate_posteriors, evaluate_unfolding
from hepbridge.metrics.unfolding.observables import PUBLISHED, Values, observables_of, values_of
from hepbridge.metrics.unfolding.support import support

EDGES = np.linspace(-3, 3, 30)


def values(x: Any, weights: Any = None) -> Values:
    return Values(np.asarray(x, float), weights, 0.0, 0.0)


def table(uid: int, weights: Any = None, defined: Any = None, **columns: Any) -> Table:
    n = len(next(iter(columns.values())))
    ids = np.stack([np.full(n, uid, np.uint64), np.arange(n, dtype=np.uint64)], axis=1)
    units = dict.fromkeys(columns, "1")
    return Table.from_columns(columns, units, defined=defined, weights=weights, event_ids=ids)


def jets(uid: int, n: int = 1500, shift: float = 0.0) -> Table:
    """Two correlated columns; the second is undefined in a tenth of the events."""
    rng = np.random.default_rng(uid)
    a, b = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], n).T
    return table(uid, a=a + shift, b=b, defined={"b": rng.random(n) > 0.1})


# --- distances


@pytest.mark.parametrize("weighted", [(False, False), (False, True), (True, True)])
def test_distances_are_those_of_scipy_and_of_a_loop(weighted: tuple[bool, bool]) -> None:
    """Fails without weights, with other bins, or with densities that are not those in range."""
    rng = np.random.default_rng(1)
    sizes, wide = (400, 300), (1.0, 1.4)
    x, y = (rng.normal(0.2 * k, wide[k], n) for k, n in enumerate(sizes))
    u, v = (rng.exponential(size=n) if w else None for w, n in zip(weighted, sizes, strict=True))
    found = distances(values(x, u), values(y, v), EDGES, 200, rng)
    assert found.emd == pytest.approx(stats.wasserstein_distance(x, y, u, v), rel=1e-12)
    p, q = np.zeros(29), np.zeros(29)
    for density, sample, weights in ((p, x, u), (q, y, v)):
        for k, value in enumerate(sample):
            for b in range(29):
                if EDGES[b] <= value < EDGES[b + 1]:
                    density[b] += 1.0 if weights is None else weights[k]
        density /= density.sum() * (EDGES[1] - EDGES[0])
    slow = sum(
        0.5 * (EDGES[b + 1] - EDGES[b]) * (p[b] - q[b]) ** 2 / (p[b] + q[b])
        for b in range(29)
        if p[b] + q[b] > 0
    )
    assert found.triangular == pytest.approx(slow, rel=1e-10)
    # bootstraps as published: events of the candidate with their weights, drawn with replacement
    again = []
    for _ in range(200):
        rows = rng.choice(len(y), len(y))
        again.append(stats.wasserstein_distance(x, y[rows], u, None if v is None else v[rows]))
    for one, other in ((np.mean, 1.0), (np.std, 0.5**0.5)):
        error = np.std(again) * other * np.sqrt(2 / 200)
        assert abs(one(found.emds) - one(again)) < 5 * error
    assert len(found.triangulars) == 200 and found.triangulars.std() > 0


def test_closed_forms() -> None:
    """EMD of shifted copies is the shift; Δ is 0 for equal and 1 for disjoint histograms."""
    x = np.random.default_rng(2).normal(size=500)
    found = distances(values(x), values(x + 0.25), EDGES, 2, np.random.default_rng(0))
    assert found.emd == pytest.approx(0.25, rel=1e-12)
    assert triangular(values(x), values(x), EDGES) == 0
    left, right = values([-1.0, -1.0, 9.0]), values([1.0])
    assert triangular(left, right, EDGES) == pytest.approx(1.0, rel=1e-12)  # in range: 9 is not
    with pytest.raises(DataError, match="no events between -3 and 3"):
        triangular(values([9.0]), right, EDGES)


def test_published_uncertainty_has_its_fault_and_the_other_not() -> None:
    """The loop of the published code, with the list filled inside and outside of the loop over bins."""
    rng = np.random.default_rng(3)
    x, y = values(rng.normal(size=900)), values(rng.normal(0.1, 1.1, 700))
    found = published_sigmas(x, y, EDGES, np.random.default_rng(7))
    again, width = np.random.default_rng(7), EDGES[1] - EDGES[0]
    q, p = (np.histogram(s.x, EDGES)[0] for s in (y, x))
    qs, ps = (
        again.uniform(n - np.sqrt(n), n + np.sqrt(n), size=(100, 29)) / (width * n.sum())
        for n in (q, p)
    )
    partial, whole = [], []
    for trial in range(100):
        d = 0.0
        for b in range(29):
            both = qs[trial, b] + ps[trial, b]
            d += 0.5 * width * (qs[trial, b] - ps[trial, b]) ** 2 / both if both > 0 else 0.0
            partial.append(d)
        whole.append(d)
    assert found["as_published"] == pytest.approx(np.std(partial), rel=1e-10)
    assert found["whole_sums"] == pytest.approx(np.std(whole), rel=1e-10)
    assert found["as_published"] > 1.5 * found["whole_sums"]


# --- observables


def test_ranges() -> None:
    n = 2000
    rng = np.random.default_rng(4)
    truth = Table.from_columns(
        {"width": rng.uniform(0, 0.2, n), "mass": rng.uniform(5, 50, n), "x": rng.normal(size=n)},
        {"width": "1", "mass": "GeV", "x": "1"},
    )
    width, mass, x = observables_of(truth)
    assert (mass.low, mass.high, len(mass.edges)) == (1, 60, 30)
    assert (width.low, width.high) == (0, 0.6)
    assert np.allclose(values_of(truth, width, "t").x, truth.column("width") / 0.4)
    assert (x.low, x.high) == tuple(np.quantile(truth.column("x"), [0.001, 0.999]))
    assert {k: (o.low, o.high) for k, o in PUBLISHED.items()} == {
        "mass": (1, 60),
        "width": (0, 0.6),
        "multiplicity": (4, 60),
        "ln_rho": (-14, -2),
        "z_g": (0.05, 0.55),
        "tau21": (0.1, 1.1),
    }
    in_mev = replace(truth, columns={"mass": truth.column("mass", "MeV")}, units={"mass": "MeV"})
    assert np.allclose(values_of(in_mev, mass, "t").x, truth.column("mass"))
    flat = table(1, c=np.ones(5))
    with pytest.raises(DataError, match="'c' of the truth has no two different values"):
        observables_of(flat)


def test_undefined_fraction_is_weighted() -> None:
    """Against the spread of repeated samples. Fails if weights are left out of value or error."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(300):
        w = rng.exponential(size=400)
        t = table(1, w, {"b": rng.random(400) > 0.2}, b=np.ones(400), c=np.ones(400))
        found.append(values_of(t, replace(PUBLISHED["z_g"], name="b"), "t"))
    fractions = np.array([v.undefined for v in found])
    assert abs(fractions.mean() - 0.2) < 5 * fractions.std() / np.sqrt(300)
    sigmas = np.mean([v.sigma for v in found])
    assert abs(sigmas / fractions.std() - 1) < 5 / np.sqrt(2 * 300)
    assert np.mean([v.effective for v in found]) == pytest.approx(0.8 * 200, rel=0.05)


# --- calibration


@pytest.mark.parametrize("k", [1, 4, 50])
def test_perfect_posteriors_are_uniform(k: int) -> None:
    """Numbers with ties and an atom of undefined values, few samples: u is uniform all the same.

    Fails if ties or NaN are not spread, or if the random part is left out.
    """
    rng = np.random.default_rng(6)
    n = 20_000
    mean = rng.exponential(3.0, n)
    draws = rng.poisson(mean[:, None], (n, k + 1)).astype(float)
    draws[rng.random((n, k + 1)) < 0.15] = np.nan
    u = ranks(draws[:, 1:], draws[:, 0], rng)
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    found = calibration(draws[:, 1:], draws[:, 0], rng)
    for level, (value, sigma) in found.coverage.items():
        assert sigma == pytest.approx(np.sqrt(level * (1 - level) / n))
        assert abs(value - level) < 4 * sigma
    assert found.p > 1e-3 and found.ndf == 19
    assert (np.abs(found.curve - found.levels) < 5 * found.band + 1e-12).all()


def test_plain_intervals_of_few_samples_would_not_cover() -> None:
    """Why ranks are randomised: the interval between quantiles of nine samples covers too little."""
    rng = np.random.default_rng(7)
    draws = rng.normal(size=(40_000, 10))
    low, high = np.quantile(draws[:, 1:], [0.15865, 0.84135], axis=1)
    plain = ((draws[:, 0] > low) & (draws[:, 0] < high)).mean()
    value, sigma = calibration(draws[:, 1:], draws[:, 0], rng).coverage[0.6827]
    assert plain < 0.62 and abs(value - 0.6827) < 4 * sigma


@pytest.mark.parametrize("scale", [0.7, 1.4])
def test_coverage_of_wrong_widths_has_a_closed_form(scale: float) -> None:
    """Posteriors ``scale`` times as wide as they should be cover 2 Φ(scale z) − 1."""
    rng = np.random.default_rng(8)
    n, k = 4000, 800
    found = calibration(scale * rng.normal(size=(n, k)), rng.normal(size=n), rng)
    for level, (value, _) in found.coverage.items():
        z = stats.norm.ppf(0.5 + level / 2)
        wanted = 2 * stats.norm.cdf(scale * z) - 1
        spread = np.sqrt(wanted * (1 - wanted) / n)
        assert abs(value - wanted) < 4 * spread + 2 / k
    assert found.p < 1e-6


def test_chi2_of_calibrated_ranks_is_one() -> None:
    """Over repeated samples its mean is the number of degrees of freedom, weighted or not.

    Fails if the effective number of events is not that of the weights.
    """
    rng = np.random.default_rng(9)
    for weighted in (False, True):
        found = []
        for _ in range(200):
            draws = rng.normal(size=(600, 6))
            weights = rng.exponential(size=600) if weighted else None
            found.append(calibration(draws[:, 1:], draws[:, 0], rng, weights=weights).chi2)
        assert abs(np.mean(found) - 19) < 5 * np.std(found) / np.sqrt(200)


def test_what_cannot_be_calibrated() -> None:
    rng = np.random.default_rng(0)
    for samples, truth, words in (
        (np.zeros(3), np.zeros(3), r"got \(3,\) and \(3,\)"),
        (np.zeros((3, 2)), np.zeros(4), r"got \(3, 2\) and \(4,\)"),
        (np.zeros((0, 2)), np.zeros(0), "needs events"),
        (np.full((3, 2), np.inf), np.zeros(3), "infinite"),
    ):
        with pytest.raises(DataError, match=words):
            ranks(samples, truth, rng)
    with pytest.raises(DataError, match="one number >= 0"):
        calibration(np.zeros((2, 2)), np.zeros(2), rng, weights=np.array([1.0, -0.5]))


# --- correlations, classifier, support


def test_correlations_are_those_of_numpy() -> None:
    """Each pair by itself with np.cov. Fails if weights or masks are left out, or means are shared."""
    rng = np.random.default_rng(10)
    n = 300
    x = rng.multivariate_normal([1e6, 0, 5], [[1, 0.5, 0], [0.5, 1, -0.3], [0, -0.3, 1]], n)
    w, masks = rng.exponential(size=n), rng.random((n, 3)) > 0.2
    names = ["a", "b", "c"]
    t = table(
        1,
        w,
        dict(zip(names, masks.T, strict=True)),
        **dict(zip(names, x.T, strict=True)),
        d=x[:, 0] * 0,
    )
    found = weighted_correlations(t, [*names, "d"])
    for i in range(3):
        for j in range(3):
            both = masks[:, i] & masks[:, j]
            c = np.cov(
                x[both][:, [i, j]].T - [[1e6 * (i == 0)], [1e6 * (j == 0)]], aweights=w[both]
            )
            assert found[i, j] == pytest.approx(c[0, 1] / np.sqrt(c[0, 0] * c[1, 1]), abs=1e-7)
    assert not found[3].any() and not found[:, 3].any()
    far = correlation_distance(found, np.zeros((4, 4)))
    assert far["frobenius"] == pytest.approx(np.sqrt((found**2).sum()))
    assert far["largest"] == pytest.approx(1.0)


def test_auc_of_gaussians_and_of_weights_that_mend_them() -> None:
    """Φ(d/√2) is the best AUC; weights that turn one sample into the other bring it to 1/2."""
    rng = np.random.default_rng(11)
    n, d = 6000, 0.8
    x, y = rng.normal(size=n), rng.normal(d, 1, n)
    truth, candidate = table(1, x=x), table(2, x=y)
    found = weighted_auc(truth, candidate, ["x"])
    best = stats.norm.cdf(d / np.sqrt(2))
    assert best - 0.02 < found["auc"] < best + 4 * found["se"]
    mended = replace(candidate, weights=np.exp(-d * y + d * d / 2))
    found = weighted_auc(truth, mended, ["x"])
    assert abs(found["auc"] - 0.5) < 4 * found["se"]
    assert found["n_effective"] < 0.7 * n
    # the same candidate as weighted uniform numbers: fails if only the training knows the weights
    z = rng.uniform(-3.5, 4.5, n)
    uniform = table(3, stats.norm.pdf(z - d), x=z)
    found = weighted_auc(truth, uniform, ["x"])
    assert best - 0.04 < found["auc"] < best + 4 * found["se"]


def test_events_of_one_id_are_tested_together() -> None:
    """A copy cannot be told from its original. Fails if one is trained on while the other is tested."""
    truth = table(1, x=np.random.default_rng(12).normal(size=900))
    copy = truth[np.random.default_rng(0).permutation(900)]
    assert weighted_auc(truth, copy, ["x"])["auc"] == pytest.approx(0.5, abs=1e-12)
    with pytest.raises(DataError, match="the candidate has 4 events"):
        weighted_auc(truth, truth[:4], ["x"])


def test_support_counts() -> None:
    rng = np.random.default_rng(13)
    simulated = rng.uniform(0, 1, 20_000)
    data = np.concatenate([rng.uniform(0, 1, 990), [-1.0, -2.0, 3.0], np.full(7, np.nan)])
    response = table(1, x=simulated, y=np.arange(20_000.0))
    seen = table(2, None, {"x": ~np.isnan(data)}, x=np.nan_to_num(data), y=np.full(1000, 30_000.0))
    found = support(response, seen, ["x"])
    row = found["columns"]["x"]
    assert (row["below"], row["above"], row["undefined"], row["outside"]) == (2, 1, 7, 10)
    assert found["any"] == 10 and row["fraction"] == 0.01
    assert row["expected"] == pytest.approx(2e-3, abs=1e-4)
    assert support(response, seen, ["x", "y"])["any_fraction"] == 1.0
    inside = table(3, x=rng.uniform(0, 1, 1000))
    assert not support(response, inside, ["x"])["columns"]["x"]["unlikely"]
    shifted = table(3, x=rng.uniform(0, 1, 1000) ** 0.01)  # in range, but in the upper tail
    row = support(response, shifted, ["x"])["columns"]["x"]
    assert row["outside"] <= 10 and row["unlikely"] and row["tails_fraction"] > 0.05
    with pytest.raises(DataError, match=r"between 0 and 0\.5"):
        support(response, inside, ["x"], tail=0.7)


# --- the whole


@pytest.mark.slow
def test_record_of_a_good_and_a_bad_candidate() -> None:
    truth = jets(1)
    candidates = {"good": jets(2, 900), "shifted": jets(3, 900, 0.5)}
    record = evaluate_unfolding(
        truth, candidates, baselines={"prior": jets(4)}, second=jets(5), bootstraps=20, splits=20
    )
    json.dumps(record, allow_nan=False)
    assert record["candidates"] == ["good", "shifted"] and record["baselines"] == ["prior"]
    (row,) = (r for r in record["rows"] if r["observable"] == "a")
    good, shifted = row["candidates"]["good"], row["candidates"]["shifted"]
    assert shifted["emd"]["value"] == pytest.approx(5.0, abs=1.0)  # ten times the shift
    for key in ("emd", "triangular"):
        assert good[key]["value"] < 2.5 * good[key]["chance"]
        assert shifted[key]["value"] > 3 * shifted[key]["chance_q95"]
    assert row["floor"]["emd"]["n"] == 1500
    undefined = record["rows"][1]["candidates"]["good"]["undefined"]
    assert abs(undefined["pull"]) < 4 and undefined["value"] == pytest.approx(0.1, abs=0.04)
    auc = record["classifier"]["candidates"]
    assert abs(auc["good"]["auc"] - 0.5) < 4 * auc["good"]["se"]
    assert auc["shifted"]["excess"] > 4 * auc["shifted"]["excess_se"]
    assert record["correlation"]["floor"]["frobenius"]["mean"] > 0
    again = evaluate_unfolding(
        truth, candidates, baselines={"prior": jets(4)}, second=jets(5), bootstraps=20, splits=20
    )
    assert again == record


def test_chance_is_what_perfect_samples_have() -> None:
    """Scaled from halves of the truth to a tenth of its size, weighted: against samples of that size.

    Fails without the scaling (factors of 1.7 and 2.8), and with the number of events for the effective one.
    """
    rng = np.random.default_rng(14)
    found: dict[str, list[float]] = {"emd": [], "triangular": []}
    chance = {}
    for k in range(60):
        truth = table(1, a=rng.normal(size=3000))
        sample = table(2 + k, rng.exponential(size=600), a=rng.normal(size=600))
        record = evaluate_unfolding(
            truth, {"s": sample}, bootstraps=2, splits=40 if k < 8 else 2, classifier=None
        )
        cell = record["rows"][0]["candidates"]["s"]
        for key, values in found.items():
            values.append(cell[key]["value"])
            if k < 8:
                chance[key] = chance.get(key, 0.0) + cell[key]["chance"] / 8
    for key, values in found.items():
        error = np.std(values) / np.sqrt(60)
        # 8 truths, 40 halvings of each: their mean is known to some 4 %
        assert abs(np.mean(values) - chance[key]) < 4 * np.hypot(error, 0.04 * chance[key])


def test_posteriors_of_a_table() -> None:
    rng = np.random.default_rng(15)
    truth = jets(1, 500)
    draws = rng.normal(size=(500, 20))
    found = evaluate_posteriors(truth, {"model": {"a": draws}})["model"]["a"]
    json.dumps(found, allow_nan=False)
    assert found["samples"] == 20 and len(found["curve"]) == 101
    assert sum(found["counts"]) == pytest.approx(20)
    assert evaluate_posteriors(truth, {"model": {"a": draws}})["model"]["a"] == found


def test_bad_input() -> None:
    truth, other = jets(1), jets(2)
    with pytest.raises(ConfigError, match="a name of its own"):
        evaluate_unfolding(truth, {"x": other}, baselines={"x": other})
    with pytest.raises(ConfigError, match="a name of its own"):
        evaluate_unfolding(truth, {})
    with pytest.raises(ConfigError, match="no observable"):
        evaluate_unfolding(truth, {"x": table(2, c=np.arange(9.0))})
    with pytest.raises(DataError, match="x: has no column 'b'"):
        evaluate_unfolding(truth, {"x": table(2, a=np.linspace(-1, 1, 9))}, ["a", "b"], splits=2)
    with pytest.raises(DataError, match="x: weights must not be negative"):
        evaluate_unfolding(truth, {"x": replace(other, weights=-np.ones(1500))}, splits=2)
    with pytest.raises(DataError, match="two splits or more, got 1"):
        evaluate_unfolding(truth, {"x": other}, splits=1)
    with pytest.raises(ConfigError, match="two bootstraps or more, got 0"):
        evaluate_unfolding(truth, {"x": other}, bootstraps=0)
    with pytest.raises(DataError, match="at least four events"):
        evaluate_unfolding(truth[:3], {"x": other})
    a = np.linspace(-1, 1, 9)
    with pytest.raises(
        DataError, match=r"x, column 'a': a sample has no events between .* its unit"
    ):
        evaluate_unfolding(truth, {"x": table(2, a=a + 1000, b=a)}, splits=2)
    empty = table(2, None, {"b": np.zeros(9, bool)}, a=a, b=a)
    with pytest.raises(DataError, match="x: column 'b' has no value in any event"):
        evaluate_unfolding(truth, {"x": empty}, splits=2)
