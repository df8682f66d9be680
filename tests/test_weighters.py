"""Density ratios by classifiers, against closed forms; diagnostics of weights, against sklearn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.protocols import Weighter
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit
from hepbridge.weighters import WEIGHTERS
from hepbridge.weighters.contrast import Contrast
from hepbridge.weighters.density_ratio import DensityRatio
from hepbridge.weighters.diagnostics import effective_size, summarise, weighted_auc

SETTINGS = TrainingSettings(ema_decay=0.98, validate_every=100, patience=5, threads=1)
MEAN, ROOT = np.array([0.4, -0.2]), np.array([[0.8, 0.0], [0.3, 0.9]])  # of the numerator


def normal(n: int, d: int, name: str) -> np.ndarray:
    return stream(7, "test weighters", name).standard_normal((n, d))


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x)


def trained(contrast: Contrast, seed: int = 3, **options: object) -> DensityRatio:
    torch.manual_seed(seed)
    ratio = DensityRatio(
        contrast.x.shape[1],
        {name: value.shape[1] for name, value in contrast.conditions.items()},
        **({"train_steps": 400, "learning_rate": 3e-3} | options),
    )
    fit(ratio.phases(contrast, seed), SETTINGS, seed=seed)
    return ratio


def values(ratio: DensityRatio, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return ratio.weights(tensor(x).float()).double().numpy()


def log_ratio(x: np.ndarray) -> np.ndarray:
    """ln N(x; MEAN, ROOT ROOT^T) / N(x; 0, 1)."""
    z = np.linalg.solve(ROOT, (x - MEAN).T).T
    return 0.5 * ((x**2).sum(1) - (z**2).sum(1)) - np.log(np.linalg.det(ROOT))


def quadratic(x: np.ndarray) -> np.ndarray:
    a, b = x.T
    return np.stack([np.ones(len(x)), a, b, a * a, a * b, b * b], axis=1)


@pytest.fixture(scope="module")
def gaussians() -> tuple[np.ndarray, np.ndarray, DensityRatio]:
    """Unequal samples, so that a classifier with unbalanced classes would be off."""
    numerator = normal(8000, 2, "numerator") @ ROOT.T + MEAN
    denominator = normal(20_000, 2, "denominator")
    return numerator, denominator, trained(Contrast.between(tensor(numerator), tensor(denominator)))


def test_log_ratio_of_two_gaussians(
    gaussians: tuple[np.ndarray, np.ndarray, DensityRatio],
) -> None:
    """Within 6 standard errors of a logistic regression that knows the right six functions.

    They follow from its Fisher information; a network, which has to find the functions, is allowed
    a little more than the usual multiple. Fails if the classes are swapped or the loss is wrong.
    """
    numerator, denominator, ratio = gaussians
    everything = np.concatenate([numerator, denominator])
    n, m = len(numerator), len(denominator)
    f = 1 / (1 + np.exp(-log_ratio(everything) - np.log(n / m)))
    phi = quadratic(everything)
    inverse = np.linalg.inv((phi * (f * (1 - f))[:, None]).T @ phi)
    points = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1], [1.5, 0.5]])
    error = np.sqrt(np.einsum("ij,jk,ik->i", quadratic(points), inverse, quadratic(points)))
    found = np.log(values(ratio, points))
    assert np.all(np.abs(found - log_ratio(points)) < 6 * error)
    assert error.max() < 0.05


def test_weights_move_every_mean_to_the_numerator(
    gaussians: tuple[np.ndarray, np.ndarray, DensityRatio],
) -> None:
    """Means of functions over fresh events; fails if the ratio of totals is in the weights."""
    _, _, ratio = gaussians
    x = normal(20_000, 2, "fresh")
    w = values(ratio, x)
    for function in (lambda x: x[:, 0], lambda x: x[:, 0] * x[:, 1], lambda x: x[:, 1] > 0.5):
        h = function(x) * 1.0
        truth = function(normal(1_000_000, 2, "truth") @ ROOT.T + MEAN) * 1.0
        of_training = truth.std() * (1 / 8000 + 1 / len(truth)) ** 0.5
        residual = w * (h - np.average(h, weights=w))
        error = np.hypot(of_training, residual.std() * (1 / len(x) + 1 / 20_000) ** 0.5)
        assert abs(np.average(h, weights=w) - truth.mean()) < 4 * error
    assert w.mean() == pytest.approx(1.0, abs=4 * w.std() * (2 / len(x)) ** 0.5)


def test_negative_weights_subtract_a_background() -> None:
    """Signal N(0.3, 0.8) over N(-1, 0.6): the mixture minus a second sample of the background.

    Fails if negative weights are dropped, or taken positive.
    """
    signal = 0.3 + 0.8 * normal(8000, 1, "signal")
    background, second = (0.6 * normal(4000, 1, name) - 1 for name in ("background", "second"))
    data = np.concatenate([signal, background, second])
    weights = np.repeat([1.0, 1.0, 1.0, -1.0], 4000)
    x = normal(20_000, 1, "denominator of the mixture")
    ratio = trained(Contrast.between(tensor(data), tensor(x), tensor(weights)))
    w = values(ratio, x)
    for power, truth in ((1, 0.3), (2, 0.73)):
        h = x[:, 0] ** power
        spread = np.sqrt(((weights * (data[:, 0] ** power - truth)) ** 2).sum()) / weights.sum()
        spread = np.hypot(spread, np.sqrt((w**2 * (h - truth) ** 2).sum()) / w.sum())
        assert abs(np.average(h, weights=w) - truth) < 4 * spread
        assert spread < 0.03


def test_one_sample_under_two_weights() -> None:
    """Learns E[v | x] of noisy weights v, and exactly 1 from equal ones, whatever they are.

    Fails if the two weights of a row are split between numerator and denominator by chance.
    """
    x, noise = normal(10_000, 1, "x"), stream(1, "test gamma").gamma(4.0, 0.25, 10_000)
    base = stream(2, "test base").gamma(2.0, 1.0, 10_000)
    v = noise * np.exp(0.6 * x[:, 0] - 0.18)
    ratio = trained(Contrast(tensor(x), tensor(base * v), tensor(base)))
    points = np.array([[-1.0], [0.0], [1.0]])
    # log(w) is a line with two parameters: the error of a mean over the effective events nearby
    error = np.sqrt((0.25 + 1.0) * (1 + points[:, 0] ** 2) / effective_size(base))
    assert np.all(np.abs(np.log(values(ratio, points)) - 0.6 * points[:, 0] + 0.18) < 5 * error)
    same = trained(Contrast(tensor(x), tensor(3 * base), tensor(base)), train_steps=100)
    assert np.abs(values(same, x) - 1).max() < 1e-5


def test_mean_over_the_denominator_is_one() -> None:
    a, b = normal(3000, 1, "a") + 1, normal(3000, 1, "b")
    weights = stream(3, "test").gamma(1.0, 1.0, 3000)
    ratio = trained(Contrast.between(tensor(a), tensor(b), None, tensor(weights)), train_steps=50)
    assert np.average(values(ratio, b), weights=weights) == pytest.approx(1.0, abs=1e-5)


def test_clipped_logits_are_counted() -> None:
    """Far-apart samples: the logits are lines of slope 4; fails without the clip."""
    a, b = normal(3000, 1, "a") + 2, normal(3000, 1, "b") - 2
    ratio = trained(Contrast.between(tensor(a), tensor(b)), bound=2.0, train_steps=200)
    x = tensor(np.linspace(-3, 3, 1001)[:, None]).float()
    with torch.no_grad():
        w, logits, clipped = ratio.weights(x), ratio.logits(x), ratio.clipped(x)
    assert torch.equal(clipped, logits.abs() > 2.0)  # the outermost logits of training are beyond
    assert 400 < clipped.sum() < 1000
    scale = (w[0], w[-1])
    assert float(scale[1] / scale[0]) == pytest.approx(np.exp(4.0), rel=1e-4)
    assert len(set(w[clipped].tolist())) == 2


def test_far_rows_weigh_no_more_than_those_of_the_training(
    gaussians: tuple[np.ndarray, np.ndarray, DensityRatio],
) -> None:
    """The true ratio falls or rises for ever; fails if a network may extrapolate."""
    numerator, denominator, ratio = gaussians
    most, least = (
        max(v) if sign > 0 else min(v)
        for sign in (1, -1)
        for v in [np.concatenate([values(ratio, numerator), values(ratio, denominator)])]
    )
    angle = np.linspace(0, 6, 13)
    far = values(ratio, 30 * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    assert far.min() >= least * (1 - 1e-6)
    assert far.max() <= most * (1 + 1e-6)
    with torch.no_grad():
        x = tensor(np.concatenate([numerator, denominator])).float()
        assert not ratio.clipped(x).any()


def test_batches_are_unbiased() -> None:
    """Over many batches every row gets its two weights; fails if draws do not divide by the share."""
    a, b = torch.tensor([1.0, 0.0, 5.0, -2.0, 0.0]), torch.tensor([0.0, 2.0, 1.0, 0.0, 3.0])
    contrast = Contrast(torch.arange(5.0)[:, None], a, b)
    batch = DensityRatio(1, batch=64)._batches(contrast)
    rounds = 500
    found = np.zeros((rounds, 5, 2))
    for k in range(rounds):
        drawn = batch(k, stream(k, "test batches"))
        for row in range(5):
            here = drawn["inputs"][:, 0] == row
            found[k, row] = drawn["label"][here].double().sum(0).numpy() / 64
    truth = np.stack([a / a.sum(), b / b.sum()], axis=1) / 2
    error = found.std(0) / rounds**0.5 + 1e-9
    assert np.all(np.abs(found.mean(0) - truth) < 4 * error)


def test_gradients_are_finite_for_absurd_logits() -> None:
    ratio = DensityRatio(1)
    logit = torch.tensor([-1e4, -30.0, 0.0, 30.0, 1e4], requires_grad=True)
    loss = ratio._cross_entropy(logit, torch.tensor([[0.5, 0.5]]).expand(5, 2)).sum()
    torch.autograd.backward([loss])
    assert torch.isfinite(loss)
    assert logit.grad is not None
    assert torch.isfinite(logit.grad).all()


def test_members_are_averaged_in_the_logit() -> None:
    """Fails if probabilities are averaged, or the members are the same network."""
    contrast = Contrast.between(tensor(normal(500, 2, "a") + 0.5), tensor(normal(500, 2, "b")))
    ratio = trained(contrast, members=3, train_steps=60)
    x = tensor(normal(10, 2, "x")).float()
    with torch.no_grad():
        each = torch.stack([member(x)[:, 0] for member in ratio.members])
        assert torch.allclose(ratio.logits(x), each.sum(0) / 3)
    assert each.std(0).min() > 0
    assert ratio.planned_steps == 180


def test_conditions_steer_the_ratio() -> None:
    """The numerator is shifted by the condition; fails if conditions are not looked up by name."""
    c, d = normal(4000, 1, "c"), normal(4000, 1, "d")
    x, y = normal(4000, 1, "numerator of c") + c, normal(4000, 1, "denominator of d")
    names = {"shift": tensor(c), "other": tensor(d)}, {"shift": tensor(d), "other": tensor(c)}
    ratio = trained(Contrast.between(tensor(x), tensor(y), None, None, *names))
    with torch.no_grad():
        points = torch.tensor([[1.0], [1.0]])
        shift = {"other": torch.zeros(2, 1), "shift": torch.tensor([[1.0], [-1.0]])}
        up, down = ratio.weights(points, shift).log().tolist()
    assert up - down == pytest.approx(2.0, abs=0.4)  # ln r = x c - c^2 / 2


def test_same_seed_same_weights_and_state(tmp_path: object) -> None:
    contrast = Contrast.between(tensor(normal(500, 2, "a") + 0.5), tensor(normal(500, 2, "b")))
    first, second = (trained(contrast, train_steps=30) for _ in range(2))
    x = normal(50, 2, "x")
    assert np.array_equal(values(first, x), values(second, x))
    assert not np.array_equal(values(first, x), values(trained(contrast, 4, train_steps=30), x))
    rebuilt = DensityRatio(2)
    rebuilt.load_state_dict(first.state_dict())
    assert np.array_equal(values(rebuilt, x), values(first, x))


def test_registry_and_protocol() -> None:
    for name in WEIGHTERS:
        assert isinstance(WEIGHTERS[name](2), Weighter)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda x: Contrast.between(x, x, None, -torch.ones(4)), "add up to -4"),
        (lambda x: Contrast.between(x, x, torch.tensor([1.0, -1, 1, -1])), "add up to 0"),
        (lambda x: Contrast.between(x, x, None, torch.tensor([1.0, -1, 1, 1])), "1 weights of the"),
        (lambda x: Contrast.between(x, x, torch.ones(3)), "needed"),
        (lambda x: Contrast.between(x * torch.nan, x), "8 values of x"),
        (lambda x: Contrast.between(x, x[:, :1]), "same d"),
        (lambda x: Contrast.between(x, x, None, None, {"c": x}), r"\['c'\]"),
        (lambda x: Contrast(x[:0], x[:0, 0], x[:0, 0]), "shape"),
        (lambda x: Contrast(x, x[:, 0] ** 2, x[:, 0] ** 2, {"c": x[:2]}), "c has 2 rows"),
    ],
)
def test_bad_samples_are_refused(build: Callable[[torch.Tensor], object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(tensor(normal(4, 2, "bad")))


@pytest.mark.parametrize("options", [{"members": 0}, {"bound": 0.0}, {"validation": 0.9}])
def test_bad_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        DensityRatio(2, **options)


def test_columns_are_checked() -> None:
    x = tensor(normal(4, 2, "bad"))
    with pytest.raises(ConfigError, match="for 3 columns got 2"):
        next(DensityRatio(3).phases(Contrast.between(x, x), 0))


def test_summary_of_weights() -> None:
    """n equal weights beside as many zeros count n; fails with the number of events instead."""
    assert effective_size([2.0] * 7 + [0.0] * 5) == pytest.approx(7)
    assert effective_size([0.0]) == 0.0
    summary = summarise([1.0, 1.0, 2.0], [1.0, 1.0, 3.0], [False, False, True])
    assert (summary.events, summary.largest_share, summary.mean) == (3, 0.75, 1.6)
    assert summary.effective_size == pytest.approx(64 / 38)
    assert summary.effective_fraction == pytest.approx(64 / 38 / 3)
    assert summary.clipped == pytest.approx(1 / 3)
    with pytest.raises(DataError, match="1 of them NaN"):
        summarise([np.nan, 1.0])


def test_weighted_auc_is_that_of_sklearn() -> None:
    """With ties; fails if they do not count half."""
    a, b = np.round(normal(300, 1, "a")[:, 0] + 0.5, 1), np.round(normal(400, 1, "b")[:, 0], 1)
    w, v = (stream(k, "test auc").random(n) for k, n in ((0, 300), (1, 400)))
    label, score = np.repeat([1, 0], [300, 400]), np.concatenate([a, b])
    truth = roc_auc_score(label, score, sample_weight=np.concatenate([w, v]))
    assert weighted_auc(a, b, w, v) == pytest.approx(truth, abs=1e-12)
    assert weighted_auc(a, b) == pytest.approx(roc_auc_score(label, score), abs=1e-12)
