"""The MLP of the classifier test: finds faults, invents none, and looks at no test shower."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.rng import stream
from hepbridge.data.geometry import SQUIRELS
from hepbridge.data.showers import Showers
from hepbridge.metrics import ClassifierSettings, classifier_test
from hepbridge.metrics.classifier_inputs import high_level, low_level, low_level_logit
from hepbridge.metrics.classifier_mlp import MLP
from hepbridge.metrics.classifier_settings import CHALLENGE, QUICK, MLPSettings
from metrics_toys import spectrum, toy_showers

SMALL = ClassifierSettings(
    seeds=1, folds=2, curve=(), trees=30, mlp=MLPSettings(width=32, epochs=6)
)


def fitted(seed: int = 0, rows: int = 200, weights: np.ndarray | None = None) -> MLP:
    """Trained on two columns of noise, of which the first tells the classes apart."""
    rng = np.random.default_rng(1)
    label = np.arange(2 * rows) >= rows
    x = rng.normal(size=(2 * rows, 2)).astype(np.float32)
    x[:, 0] += 1.5 * label
    model = MLP(SMALL, seed)
    model.fit(x, label, weights, np.tile(np.arange(rows), 2))
    return model


def ideal_auc(scale: float) -> float:
    """AUC of the likelihood ratio between toy showers and scaled ones: nothing can do better.

    A cell is gamma-distributed with a shape proportional to its expectation a, so that the
    logarithm of the ratio is Σ (scale − 1) a log(cell) up to a constant.
    """
    from sklearn.metrics import roc_auc_score

    n = 10_000
    shape = np.exp(-np.hypot(SQUIRELS.centres("x") - 5, SQUIRELS.centres("y") - 5) / 0.6)
    shape *= 50_000.0 / 20.0 / shape.sum()
    cells = np.concatenate([toy_showers(n, 91).cells, toy_showers(n, 92, scale=scale).cells])
    ratio = np.log(np.maximum(cells.astype(np.float64), 1e-30)) @ ((scale - 1) * shape)
    return float(roc_auc_score(np.arange(2 * n) >= n, ratio))


def test_a_fault_of_one_percent_is_found_but_not_more_than_is_there() -> None:
    """Fails if inputs are not standardised, or if test showers leak into training.

    The energy of every cell is 1 % off; the energy sum of a toy shower scatters by 2 %. Trees are
    compared on the same showers and folds, with the standard errors of both.
    """
    ref, cand = toy_showers(1200, 3), toy_showers(1200, 4, scale=1.01)
    settings = ClassifierSettings(seeds=1, folds=3, curve=(), mlp=MLPSettings(width=64, epochs=8))
    trees = classifier_test(ref, cand, "trees", settings=settings)
    mlp = classifier_test(ref, cand, "mlp", settings=settings)
    best = ideal_auc(1.01)
    for level, found in mlp.items():
        assert found["auc"] > 0.5 + 4 * found["se"], level
        assert found["auc"] < best + 3 * found["se"], level
        assert found["auc"] > trees[level]["auc"] - 2 * np.hypot(found["se"], trees[level]["se"])


@pytest.mark.slow
def test_nothing_is_found_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over pairs of samples of the same truth, (AUC − 0.5) / se has mean 0 and deviation 1.

    Fails (mean 1.5 and more) if the epoch is chosen on the showers under test.
    """
    monkeypatch.setattr(MLP, "inputs", {"high": high_level})
    settings = ClassifierSettings(seeds=1, folds=2, curve=(), mlp=MLPSettings(width=16, epochs=4))
    z = []
    for k in range(30):
        pair = (toy_showers(100, 1000 + k), toy_showers(100, 2000 + k))
        found = classifier_test(*pair, "mlp", settings=settings)["high"]
        z.append((found["auc"] - 0.5) / found["se"])
    assert abs(np.mean(z)) < 4 / np.sqrt(len(z))
    assert np.std(z) < 1 + 4 / np.sqrt(2 * len(z))


def test_same_seed_same_network_whatever_torch_did_before() -> None:
    """Fails if the network starts from, or disturbs, the global random numbers of torch."""
    x = np.random.default_rng(2).normal(size=(7, 2)).astype(np.float32)
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    first = fitted().score(x)
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    second = fitted().score(x)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert np.array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not np.array_equal(first, fitted(seed=1).score(x))
    assert torch.is_grad_enabled() and first.dtype == np.float64


def test_the_same_test_twice_and_with_another_seed() -> None:
    ref, cand = toy_showers(60, 1), toy_showers(60, 2)
    first, again = (classifier_test(ref, cand, "mlp", settings=SMALL, seed=5) for _ in range(2))
    assert first == again
    assert first != classifier_test(ref, cand, "mlp", settings=SMALL, seed=6)


def test_groups_are_never_on_both_sides_of_the_inner_split() -> None:
    groups = np.random.default_rng(3).integers(0, 40, 400)
    model = MLP(ClassifierSettings(mlp=MLPSettings(validation=0.25)), 0)
    inner, held = model._split(groups, np.random.default_rng(4))
    assert sorted([*inner, *held]) == list(range(400))
    assert not set(groups[inner]) & set(groups[held])
    assert len(set(groups[held])) == 10


def test_the_epoch_is_the_best_on_the_inner_split() -> None:
    """A network that learns noise by heart is at its best before its last epoch.

    The epoch is chosen on rows that the network is not trained on: the AUC there of the chosen
    network is at least that of one that may only stop at the end. Fails if the last is kept.
    """
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(5)
    label = np.arange(300) >= 150
    x = (rng.normal(size=(300, 40)) + 0.25 * label[:, None] * (np.arange(40) < 4)).astype(
        np.float32
    )
    groups = np.tile(np.arange(150), 2)
    aucs = []
    for epochs in range(1, 13):
        mlp = MLPSettings(width=64, epochs=epochs, learning_rate=3e-3, validation=0.3)
        model = MLP(ClassifierSettings(mlp=mlp), 0)
        model.fit(x, label, None, groups)
        held = model._split(groups, stream(0, "classifier mlp"))[1]
        aucs.append(roc_auc_score(label[held], model.score(x[held])))
    assert np.all(np.diff(aucs) >= 0) and aucs[-1] > aucs[0]


def test_weights_of_zero_take_showers_out() -> None:
    """Half of one class is mislabelled: with weight 0 there, the fault is as visible as without."""
    rng = np.random.default_rng(6)
    label = np.arange(400) >= 200
    wrong = np.arange(400) < 100
    x = (rng.normal(size=(400, 1)) + 3.0 * (label | wrong)[:, None]).astype(np.float32)
    groups = np.tile(np.arange(200), 2)
    fast = ClassifierSettings(mlp=MLPSettings(width=32, epochs=10, learning_rate=5e-3))
    model = MLP(fast, 0)
    model.fit(x, label, 1.0 - wrong, groups)
    low, high = model.score(np.array([[0.0], [3.0]], dtype=np.float32))
    assert low < 0 < high  # with equal weights, 3 would be a toss-up of 100 against 200
    even = MLP(fast, 0)
    even.fit(x, label, None, groups)
    assert high > even.score(np.array([[3.0]], dtype=np.float32))[0] + 0.5


def test_inputs_with_logits() -> None:
    toys = toy_showers(5, 1, spectrum(5, 1))
    x = low_level_logit(toys)
    assert x.shape == (5, 201)
    assert np.array_equal(x[:, 100:], low_level(toys))
    back = 1 / (1 + np.exp(-x[:, :100].astype(np.float64)))
    assert back == pytest.approx(np.maximum(x[:, 100:200], 1e-6), rel=1e-5, abs=1.1e-6)
    over = Showers.from_arrays(np.full((1, 100), 2000.0), [1000.0])  # more than came in
    assert np.isfinite(low_level_logit(over)).all()


def test_a_constant_column_a_small_one_and_an_outlier_do_no_harm() -> None:
    """Fails if inputs are not standardised, or if one absurd value sets the scale for all."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(7)
    label = np.arange(400) >= 200
    x = np.stack([1e-6 * (rng.normal(size=400) + 2 * label), np.full(400, 3.0)], axis=1)
    x = x.astype(np.float32)
    x[0, 0] = 1e12
    model = MLP(SMALL, 0)
    model.fit(x, label, None, np.tile(np.arange(200), 2))
    score = model.score(x)
    assert np.isfinite(score).all()
    assert roc_auc_score(label[1:], score[1:]) > 0.88  # the ideal: Φ(√2) = 0.921


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="epochs and batch ≥ 1"):
        MLPSettings(epochs=0)
    with pytest.raises(ConfigError, match="positive, not nan"):
        MLPSettings(learning_rate=float("nan"))
    with pytest.raises(ConfigError, match=r"between 0 and 0\.5, not at 0\.9"):
        MLPSettings(validation=0.9)
    ref = toy_showers(10, 1)
    tiny = ClassifierSettings(seeds=1, folds=2, curve=(0.1,), mlp=SMALL.mlp)
    with pytest.raises(DataError, match="larger fractions for the learning curve"):
        classifier_test(ref, ref, "mlp", settings=tiny)


def test_the_challenge_is_the_network_of_the_challenge() -> None:
    """arXiv:2410.21611, evaluate.py: 2048-2048-2048-1, Adam 2e-4, batches of 1000, 50 epochs."""
    assert MLPSettings(2048, 3, 50, 1000, 2e-4, 0.25) == CHALLENGE
    network = MLP(ClassifierSettings(mlp=CHALLENGE), 0)._network(101)
    shapes = [tuple(p.shape) for p in network.parameters() if p.dim() == 2]
    assert shapes == [(2048, 101), (2048, 2048), (2048, 2048), (1, 2048)]
    assert sum(isinstance(layer, torch.nn.LeakyReLU) for layer in network.modules()) == 3
    assert QUICK.mlp.epochs < ClassifierSettings().mlp.epochs
