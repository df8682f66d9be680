"""OmniFold against the exact iteration on a grid, and the Poisson bootstrap against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, poisson

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.rng import stream
from hepbridge.systems.unfolding.bootstrap import bootstrap, covariance, poisson_weights
from hepbridge.systems.unfolding.omnifold import OmniFold, OmniFoldSettings, omnifold
from hepbridge.training import TrainingSettings

Array = np.ndarray
TRAINING = TrainingSettings(ema_decay=0.98, validate_every=100, patience=5, threads=1)
CLASSIFIER = {"width": 32, "depth": 1, "train_steps": 300, "learning_rate": 3e-3}
QUICK = OmniFoldSettings(
    iterations=2,
    warm_steps=20,
    classifier={"width": 8, "depth": 1, "train_steps": 20},
    training=TRAINING,
)
SMEARING, TRUE = 0.6, (0.4, 0.8)  # of the detector; mean and width of the truth behind the data
EDGES = np.linspace(-5, 5, 41)
GRID = np.linspace(-6, 6, 241)
N = 12_000


def efficiency(x: Array) -> Array:
    return 0.15 + 0.8 / (1 + np.exp(-2 * x))


def fakes_per_pair(y: Array) -> Array:
    return 0.6 / (1 + np.exp(2 * y))


@dataclass
class World:
    """A simulation N(0, 1) drawn from N(0, 1.3) with weights, and data from N(0.4, 0.8)."""

    x: Array
    y: Array
    pairs: Array
    misses: Array
    fakes: Array
    weights: Array
    data: Array

    @classmethod
    def make(cls, seed: int, accepted: bool) -> World:
        rng = stream(seed, "test omnifold", int(accepted))
        width = 1.3 if accepted else 1.0
        x, y, pairs, fakes = cls._events(rng, 0.0, width, accepted)
        weights = norm.pdf(x) / norm.pdf(x, 0, width)
        t = cls._events(rng, *TRUE, accepted)
        return cls(x, y, pairs, ~pairs & ~fakes, fakes, weights, t[1][t[2] | t[3]])

    @staticmethod
    def _events(rng: Any, mean: float, width: float, accepted: bool) -> tuple[Array, ...]:
        """x, y, and which are pairs or fakes: made of further events, with nothing at x."""
        x = mean + width * rng.standard_normal(N)
        y = x + SMEARING * rng.standard_normal(N)
        if not accepted:
            return x, y, np.ones(N, bool), np.zeros(N, bool)
        seen = rng.random(N) < efficiency(x)
        other = mean + width * rng.standard_normal(N)
        z = other + SMEARING * rng.standard_normal(N)
        fake = rng.random(N) < efficiency(other) * fakes_per_pair(z)
        kept = np.repeat([True, False], [N, int(fake.sum())])
        # a fake has the weight of the event that it was made of, which is stored at its x
        return (
            np.concatenate([x, other[fake]]),
            np.concatenate([y, z[fake]]),
            np.concatenate([seen, ~kept[N:] & False]),
            ~kept,
        )

    def unfold(self, settings: OmniFoldSettings, **changes: Any) -> OmniFold:
        """Rows that must not be read are NaN."""
        x = np.where(self.pairs | self.misses, self.x, np.nan)[:, None]
        y = np.where(self.pairs | self.fakes, self.y, np.nan)[:, None]
        given = {
            "pairs": self.pairs,
            "misses": self.misses,
            "fakes": self.fakes,
            "weights": self.weights,
            "seed": 1,
        }
        return omnifold(x, y, self.data[:, None], settings=settings, **(given | changes))

    def binned(self, simulated: Array, observed: Array, iterations: int) -> Array:
        """The binned iteration on these events under weights: its result in `moments`."""
        w = self.weights * simulated
        p, f = self.pairs, self.fakes
        joint = np.histogram2d(self.y[p], self.x[p], (EDGES, EDGES), weights=w[p])[0]
        missed = np.histogram(self.x[self.misses], EDGES, weights=w[self.misses])[0]
        faked = np.histogram(self.y[f], EDGES, weights=w[f])[0]
        data = np.histogram(self.data, EDGES, weights=observed)[0]
        centres = (EDGES[1:] + EDGES[:-1]) / 2
        found = richardson_lucy(joint, missed, faked, data, iterations)
        return np.stack([moments(centres, t) for t in found])


def richardson_lucy(
    joint: Array, misses: Array, fakes: Array, data: Array, iterations: int
) -> list[Array]:
    """t_n(x) for n = 1, 2, …: the textbook iteration with efficiencies and purities, in bins.

    joint (y, x) of the pairs, misses (x), fakes (y), data (y).
    """
    tiny = 1e-300
    seen = joint.sum(0)
    clean = data * joint.sum(1) / np.maximum(joint.sum(1) + fakes, tiny)
    truth, out = seen + misses, []
    response = joint / np.maximum(truth, tiny)  # P(y and pair | x)
    total_efficiency = response.sum(0)
    for _ in range(iterations):
        folded = response @ truth
        back = response.T @ (clean / np.maximum(folded, tiny))
        truth = truth * np.divide(
            back, total_efficiency, out=np.zeros_like(back), where=total_efficiency > 0
        )
        out.append(truth)
    return out


def moments(x: Array, weights: Array) -> Array:
    """Total / N, mean, spread and the shares below 0 and above 1."""
    total = weights.sum()
    mean = (weights * x).sum() / total
    spread = np.sqrt((weights * (x - mean) ** 2).sum() / total)
    return np.array([total / N, mean, spread, weights[x < 0].sum() / N, weights[x > 1].sum() / N])


def exact(accepted: bool, iterations: int) -> Array:
    """`moments` of the iteration for infinitely many events, on a fine grid."""
    step = GRID[1] - GRID[0]
    x, y = GRID[None, :], GRID[:, None]
    smear = norm.pdf(y, x, SMEARING) * step
    seen = efficiency(x) if accepted else np.ones_like(x)
    odds = fakes_per_pair(GRID) if accepted else np.zeros_like(GRID)
    prior, truth = (N * step * norm.pdf(GRID, *p) for p in ((0.0, 1.0), TRUE))
    joint = smear * seen * prior
    data = (smear * seen * truth).sum(1) * (1 + odds)
    misses = prior * (1 - seen[0])
    found = richardson_lucy(joint, misses, joint.sum(1) * odds, data, iterations)
    return np.stack([moments(GRID, t) for t in found])


def errors(world: World, iterations: int) -> Array:
    """Standard errors of `moments`, from replicas of the binned iteration on the same events."""
    rng = stream(5, "test replicas")
    replicas = [
        world.binned(
            rng.poisson(1.0, len(world.x)).astype(float),
            rng.poisson(1.0, len(world.data)).astype(float),
            iterations,
        )
        for _ in range(40)
    ]
    return np.std(replicas, axis=0, ddof=1)


@pytest.fixture(scope="module", params=[False, True], ids=["all seen", "acceptance"])
def unfolded(request: pytest.FixtureRequest) -> tuple[bool, World, OmniFold]:
    world = World.make(3, request.param)
    settings = OmniFoldSettings(iterations=4, classifier=CLASSIFIER, training=TRAINING)
    return request.param, world, world.unfold(settings)


@pytest.mark.slow
def test_every_iteration_is_the_exact_one(unfolded: tuple[bool, World, OmniFold]) -> None:
    """Total, mean, spread and shares of the weighted events, within 4.5 standard errors.

    With acceptance, a fifth of the truth is not seen and a sixth of the data are fakes. Fails if
    step 1 forgets the prior weights ν or the generator's, if misses are left out or keep their
    weights, or if fakes are kept.
    """
    accepted, world, result = unfolded
    truth, error = exact(accepted, 4), errors(world, 4)
    here = world.pairs | world.misses
    for n, iteration in enumerate(result.iterations):
        found = moments(world.x[here], (world.weights * iteration.push)[here])
        # all seen: the total is that of the data, exactly
        scale = np.maximum(error[n], 1e-4 if accepted else 0.5 / N**0.5 * 0.02)
        assert np.all(np.abs(found - truth[n]) < 4.5 * scale), (n, (found - truth[n]) / scale)


@pytest.mark.slow
def test_converges_to_the_truth(unfolded: tuple[bool, World, OmniFold]) -> None:
    """After four iterations the total is right, and the mean has left the prior's."""
    _, world, result = unfolded
    here = world.pairs | world.misses
    found = moments(world.x[here], result.weights[here])
    error = errors(world, 4)[-1]
    assert abs(found[0] - 1) < 4 * error[0] + 0.01
    assert abs(found[1] - TRUE[0]) < 4 * error[1] + 0.02
    assert error[1] < 0.03


@pytest.mark.slow
def test_diagnostics_tell_what_happened(unfolded: tuple[bool, World, OmniFold]) -> None:
    """What a classifier saw before, it does not see after; the totals are those of the data."""
    accepted, world, result = unfolded
    first = result.iterations[0].detector
    assert first.auc > 0.55
    assert abs(first.auc_after - 0.5) < 0.02
    assert result.iterations[-1].detector.auc < first.auc
    assert first.summary.mean == pytest.approx(1, abs=1e-5)
    assert first.history.validations("member 0")
    assert (result.fakes is not None) == accepted
    assert result.total == pytest.approx(result.purity.sum())
    for iteration in result.iterations:
        assert iteration.pull.sum() == pytest.approx(result.total)
        ours = (world.weights * iteration.push)[world.pairs].sum()
        assert ours == pytest.approx(result.total, rel=1e-4)
    if accepted:
        truth = 1 / (1 + fakes_per_pair(world.data))
        assert np.sqrt(np.mean((result.purity - truth) ** 2)) < 0.03
    assert result.weighter is not None
    again = result.weighter.weights(as_tensor(world.x[world.misses | world.pairs]))
    assert np.allclose(
        again.detach().numpy(), result.iterations[-1].push[world.misses | world.pairs]
    )


def as_tensor(x: Array) -> Any:
    import torch

    return torch.from_numpy(x[:, None]).float()


@pytest.fixture(scope="module")
def small() -> World:
    whole = World.make(4, True)
    rows = stream(0, "test rows").permutation(len(whole.x))[:1500]
    parts = (whole.x, whole.y, whole.pairs, whole.misses, whole.fakes, whole.weights)
    return World(*(part[rows] for part in parts), whole.data[:800])


def test_same_seed_same_weights(small: World) -> None:
    first, second, other = (small.unfold(QUICK, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.weights, second.weights)
    assert not np.array_equal(first.weights, other.weights)


def test_units_of_weights(small: World) -> None:
    """The result counts data: it scales with their weights, and not with the simulation's.

    Fails if a ratio of totals is forgotten.
    """
    one = small.unfold(QUICK)
    scaled = small.unfold(QUICK, weights=8 * small.weights)
    assert np.allclose(scaled.weights, one.weights, rtol=1e-4)
    more = small.unfold(QUICK, data_weights=np.full(len(small.data), 4.0))
    assert np.allclose(more.weights, 4 * one.weights, rtol=1e-4)
    assert not one.weights[small.fakes].any()
    assert (one.weights[small.misses | small.pairs] > 0).all()


def test_negative_data_weights(small: World) -> None:
    """A subtracted event counts minus one; fails if its weight loses the sign."""
    weights = np.where(np.arange(len(small.data)) < 50, -1.0, 1.0)
    result = small.unfold(QUICK, data_weights=weights)
    assert result.total == pytest.approx((weights * result.purity).sum())
    assert result.iterations[-1].pull.sum() == pytest.approx(result.total)


def test_few_fakes_have_a_constant_purity(small: World) -> None:
    """60 fakes of weight 2: fails if they are forgotten, or counted without their weights."""
    fakes = small.fakes & (np.cumsum(small.fakes) <= 60)
    weights = np.where(fakes, 2.0, small.weights)
    result = small.unfold(QUICK, fakes=fakes, weights=weights)
    paired = small.weights[small.pairs].sum()
    assert np.allclose(result.purity, paired / (paired + 120))
    assert result.fakes is None


def test_step_one_alone(small: World) -> None:
    """The weights of the pairs are those of the classifier at detector level."""
    settings = OmniFoldSettings(
        iterations=1, second_step=False, classifier=QUICK.classifier, training=TRAINING
    )
    none = np.zeros(len(small.x), bool)
    alone = small.unfold(settings, misses=none)
    assert alone.weighter is None
    assert alone.iterations[0].particle is None
    assert np.allclose(alone.weights, alone.iterations[0].pull)
    both = small.unfold(QUICK, misses=none)
    assert np.allclose(alone.iterations[0].pull, both.iterations[0].pull)
    y, w = small.y[small.pairs], (alone.weights / small.weights)[small.pairs]
    assert np.unique(np.round(y, 12)).size == len(y)
    order = np.argsort(y)
    assert np.abs(np.diff(np.log(w[order]))).max() < 0.5  # a smooth function of y alone
    with pytest.raises(ConfigError, match="without its second step has no weights"):
        small.unfold(settings)


def test_cold_start_is_an_option(small: World) -> None:
    cold = OmniFoldSettings(
        iterations=2, warm_start=False, classifier=QUICK.classifier, training=TRAINING
    )
    result, warm = small.unfold(cold), small.unfold(QUICK)
    assert np.array_equal(result.iterations[0].push, warm.iterations[0].push)
    assert not np.array_equal(result.iterations[1].push, warm.iterations[1].push)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.ones(3)}, "1500 finite numbers"),
        ({"weights": -np.ones(1500)}, "1500 of 1500 simulated events have negative"),
        ({"data_weights": -np.ones(800)}, "numerator.*positive"),
        ({"pairs": np.zeros(1500, bool)}, "0 of 1500 simulated events are pairs"),
        ({"pairs": np.ones(1500, bool)}, "misses or fakes as well"),
        ({"misses": np.ones(1500)}, "must be bool"),
        ({"pairs": None}, "0 of 1500"),
    ],
)
def test_bad_input_is_refused(small: World, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        small.unfold(QUICK, **changes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((5, 2)), "have 2 columns"),
        (np.full((5, 1), np.nan), "5 of 5"),
        (np.ones(5), "shape"),
    ],
)
def test_bad_data_are_refused(small: World, data: Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        omnifold(small.x[:, None], small.y[:, None], data, seed=0, settings=QUICK)


@pytest.mark.parametrize(
    "options",
    [
        {"iterations": 0},
        {"second_step": False},
        {"warm_steps": 0},
        {"classifier": {"widht": 3}},
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"OmniFold"):
        OmniFoldSettings(**options)


# -- bootstrap --------------------------------------------------------------------------------


def ids(n: int, uid: int = 9) -> Array:
    return np.stack([np.full(n, uid), np.arange(n)], axis=1).astype(np.uint64)


def test_weights_are_poisson() -> None:
    """Frequencies of 0, 1, 2, …; fails for any other mean or a shifted count."""
    w = poisson_weights(1, 0, ids(200_000))
    for k in range(7):
        p = poisson.pmf(k, 1.0)
        assert abs((w == k).mean() - p) < 4 * (p * (1 - p) / len(w)) ** 0.5
    other = poisson_weights(1, 1, ids(200_000))
    assert abs(np.mean((w - 1) * (other - 1))) < 4 / len(w) ** 0.5
    assert abs(np.mean((w[1:] - 1) * (w[:-1] - 1))) < 4 / len(w) ** 0.5


def test_replicas_do_not_depend_on_shards() -> None:
    """Fails if the weights are drawn in the order in which events come."""
    whole, order = ids(1000), stream(0, "test order").permutation(1000)
    w = poisson_weights(3, 7, whole)
    assert np.array_equal(poisson_weights(3, 7, whole[order]), w[order])
    assert np.array_equal(poisson_weights(3, 7, whole[300:420]), w[300:420])
    assert not np.array_equal(poisson_weights(3, 7, ids(1000, 8)), w)
    assert not np.array_equal(poisson_weights(4, 7, whole), w)


def test_covariance_of_a_histogram() -> None:
    """Of independent events: sum of squared weights on the diagonal, zero beside it.

    Fails for a bootstrap with fixed total (its bins are anticorrelated) or weights not squared.
    """
    n, bins = 5000, 5
    rng = stream(2, "test histogram")
    place, weights = rng.integers(0, bins, n), rng.gamma(2.0, 1.0, n)

    def histogram(replica: Array) -> Array:
        return np.bincount(place, weights * replica, bins)

    found = covariance(bootstrap(histogram, ids(n), replicas=400, seed=1))
    truth = np.diag(np.bincount(place, weights**2, bins))
    assert found.replicas == 400
    assert np.all(np.abs(found.matrix - truth) < 4.5 * found.error)
    diagonal = np.diag(found.error) / np.diag(truth)
    assert np.allclose(diagonal, (2 / 399) ** 0.5, rtol=0.35)
    total = found.matrix.sum() / truth.sum()
    assert abs(total - 1) < 4 * (2 / 399) ** 0.5


def test_the_covariance_knows_its_own_error() -> None:
    """Spread of many covariances of correlated normals; fails for a factor 2 in the variance."""
    rng = stream(3, "test covariance")
    root = np.array([[1.0, 0.0], [0.8, 0.6]])
    many = [covariance(rng.standard_normal((30, 2)) @ root.T) for _ in range(3000)]
    matrices = np.stack([c.matrix for c in many])
    error = np.stack([c.error for c in many]).mean(0)
    assert np.allclose(matrices.std(0), error, rtol=0.06)
    assert np.allclose(matrices.mean(0), root @ root.T, atol=4 * matrices.std(0).max() / 3000**0.5)


def test_the_bootstrap_covers() -> None:
    """Ratio of two sums over samples of Poisson size: one sigma holds the truth in 68 % of cases.

    Fails for a bootstrap of only one of the samples (about 52 %).
    """
    rng, inside, rounds = stream(4, "test coverage"), 0, 300
    for k in range(rounds):
        a, b = (rng.exponential(mean, rng.poisson(150)) for mean in (2.0, 1.0))
        results = bootstrap(
            lambda u, v, a=a, b=b: (u * a).sum() / (v * b).sum(),
            ids(len(a), 1),
            ids(len(b), 2),
            replicas=40,
            seed=k,
        )
        inside += abs(a.sum() / b.sum() - 2.0) < covariance(results).matrix[0, 0] ** 0.5
    p = 0.6827
    assert abs(inside / rounds - p) < 4 * (p * (1 - p) / rounds) ** 0.5


@pytest.mark.parametrize(
    ("function", "replicas", "error", "message"),
    [
        (lambda w: w, 1, ConfigError, "two replicas"),
        (lambda w: w.sum() / 0.0 * np.inf, 2, DataError, "NaN or infinite"),
        (lambda w: w[w > 0], 9, DataError, "of one shape"),
    ],
)
def test_bad_bootstraps_are_refused(
    function: Callable[..., Any], replicas: int, error: type[Exception], message: str
) -> None:
    with np.errstate(all="ignore"), pytest.raises(error, match=message):
        bootstrap(function, ids(50), replicas=replicas, seed=0)


def test_covariance_needs_a_table() -> None:
    with pytest.raises(DataError, match="replicas"):
        covariance(np.ones(5))
