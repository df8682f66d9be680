"""Two-sample losses against their definitions, written as loops, and against known distributions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import gamma
from scipy.stats import wasserstein_distance
from torch import Tensor

from hepbridge.core.rng import stream
from hepbridge.transports.discrepancies import (
    energy_distance,
    gaussian_mmd,
    sliced_energy_distance,
    sliced_wasserstein,
)

SCALES = (0.5, 2.0)
DIRECTIONS = torch.from_numpy(stream(0, "directions").standard_normal((5, 3)))
UNBIASED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "energy_distance": energy_distance,
    "gaussian_mmd": lambda x, y: gaussian_mmd(x, y, SCALES),
    "sliced_energy_distance": lambda x, y: sliced_energy_distance(x, y, DIRECTIONS),
}
ALL = UNBIASED | {
    "sliced_wasserstein": lambda x, y: sliced_wasserstein(x, y, DIRECTIONS),
    "sliced_wasserstein_1": lambda x, y: sliced_wasserstein(x, y, DIRECTIONS, power=1),
}


def points(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(stream(seed, "points").standard_normal(shape))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(sum((u - v) ** 2 for u, v in zip(a, b, strict=True)))


def kernel(a: np.ndarray, b: np.ndarray) -> float:
    return sum(math.exp(-0.5 * (distance(a, b) / s) ** 2) for s in SCALES) / len(SCALES)


def loops(x: np.ndarray, y: np.ndarray, k: Callable[[np.ndarray, np.ndarray], float]) -> float:
    """E k(x, x') + E k(y, y') - 2 E k(x, y) over pairs of different points."""
    within = 0.0
    for z in (x, y):
        pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
        within += sum(k(z[i], z[j]) for i, j in pairs) / len(pairs)
    return within - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


def reference(name: str, x: np.ndarray, y: np.ndarray) -> float:
    if name == "energy_distance":
        return -loops(x, y, distance)
    if name == "gaussian_mmd":
        return loops(x, y, kernel)
    slices = [(x @ d, y @ d) for d in DIRECTIONS.numpy()]
    if name == "sliced_energy_distance":
        values = [-loops(a[:, None], b[:, None], distance) for a, b in slices]
    elif name == "sliced_wasserstein_1":
        values = [wasserstein_distance(a, b) for a, b in slices]
    else:  # both samples repeated to a common size, then sorted
        n, m = len(x), len(y)
        values = [
            float(((np.sort(np.repeat(a, m)) - np.sort(np.repeat(b, n))) ** 2).mean())
            for a, b in slices
        ]
    return float(np.mean(values))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("n", "m"), [(7, 7), (6, 9), (2, 5)])
def test_equals_its_definition(name: str, n: int, m: int) -> None:
    """Fails if the diagonal is kept, a factor 2 is lost or sizes are mixed up."""
    x, y = points(1, n, 3), 1.5 * points(2, m, 3) + 0.3
    assert float(ALL[name](x, y)) == pytest.approx(reference(name, x.numpy(), y.numpy()), rel=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_windows_are_averaged_and_not_mixed(name: str) -> None:
    x, y = points(3, 4, 6, 3), points(4, 4, 8, 3) + 0.5
    each = [float(ALL[name](a, b)) for a, b in zip(x, y, strict=True)]
    assert float(ALL[name](x, y)) == pytest.approx(np.mean(each), rel=1e-9)


@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_for_equal_distributions(name: str) -> None:
    """Mean 0 over many draws of few points; with the diagonal it is off by hundreds of errors."""
    x, y = points(5, 20_000, 5, 3), points(6, 20_000, 4, 3)
    # every window alone is a draw: the mean over windows, and its error from groups of them
    means = [float(UNBIASED[name](a, b)) for a, b in zip(x.chunk(100), y.chunk(100), strict=True)]
    assert abs(np.mean(means)) < 4 * np.std(means) / 10
    assert np.std(means) / 10 < 0.01


def test_energy_distance_of_shifted_normals() -> None:
    """2 E|N(mu, 2)| - 2 E|N(0, 2)| in one dimension, and the sliced one is the same."""
    mu = 1.2
    x, y = points(7, 400, 50, 1), points(8, 400, 50, 1) + mu
    folded = 2 / math.sqrt(math.pi) * math.exp(-(mu**2) / 4) + mu * math.erf(mu / 2)
    truth = 2 * folded - 4 / math.sqrt(math.pi)
    one = torch.ones(1, 1, dtype=torch.float64)
    values = [float(energy_distance(a, b)) for a, b in zip(x, y, strict=True)]
    assert abs(np.mean(values) - truth) < 4 * np.std(values) / len(values) ** 0.5
    assert float(sliced_energy_distance(x, y, one)) == pytest.approx(np.mean(values), rel=1e-9)


def test_gaussian_mmd_of_shifted_normals() -> None:
    """The kernel's Gaussian integrals: E k = (s^2 / (s^2 + 2))^(d/2) exp(-|mu|^2 / 2(s^2 + 2))."""
    mu, s, d = 0.8, 1.5, 3
    x, y = points(9, 400, 50, d), points(10, 400, 50, d)
    y[..., 0] += mu
    inside = (s**2 / (s**2 + 2)) ** (d / 2)
    truth = 2 * inside * (1 - math.exp(-(mu**2) / 2 / (s**2 + 2)))
    values = [float(gaussian_mmd(a, b, [s])) for a, b in zip(x, y, strict=True)]
    assert abs(np.mean(values) - truth) < 4 * np.std(values) / len(values) ** 0.5


def test_slices_in_all_directions_are_a_multiple_of_the_whole() -> None:
    """E|theta . v| = |v| Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2)) for a random unit direction."""
    d = 3
    x, y = points(11, 40, d), points(12, 40, d) + 0.7
    theta = points(13, 20_000, d)
    theta = theta / theta.norm(dim=1, keepdim=True)
    parts = np.array([float(sliced_energy_distance(x, y, t)) for t in theta.chunk(100)])
    factor = gamma(d / 2) / (math.sqrt(math.pi) * gamma((d + 1) / 2))
    truth = factor * float(energy_distance(x, y))
    assert abs(parts.mean() - truth) < 4 * parts.std() / len(parts) ** 0.5


def test_sliced_wasserstein_of_a_shift_is_the_shift() -> None:
    x = points(14, 30, 3)
    shift = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    along = DIRECTIONS @ shift
    found = [sliced_wasserstein(x, x + shift, DIRECTIONS, p) for p in (1, 2)]
    assert float(found[0]) == pytest.approx(float(along.abs().mean()))
    assert float(found[1]) == pytest.approx(float(along.square().mean()))


@pytest.mark.parametrize("name", ALL)
def test_gradients(name: str) -> None:
    """Against finite differences; and finite where points coincide."""
    x, y = points(15, 2, 4, 3).requires_grad_(), points(16, 2, 5, 3)
    assert torch.autograd.gradcheck(lambda a: ALL[name](a, y), x)
    same = torch.ones(6, 3, dtype=torch.float64, requires_grad=True)
    ALL[name](same, torch.ones(6, 3, dtype=torch.float64)).backward()
    assert same.grad is not None and torch.isfinite(same.grad).all()


@pytest.mark.parametrize("name", ALL)
def test_single_precision_is_enough(name: str) -> None:
    """At the size of a training batch and a hundred dimensions."""
    directions = points(17, 8, 100)
    pick = {
        "energy_distance": energy_distance,
        "gaussian_mmd": lambda x, y: gaussian_mmd(x, y, (5.0, 10.0, 20.0)),
        "sliced_energy_distance": lambda x, y: sliced_energy_distance(x, y, directions.to(x)),
        "sliced_wasserstein": lambda x, y: sliced_wasserstein(x, y, directions.to(x)),
        "sliced_wasserstein_1": lambda x, y: sliced_wasserstein(x, y, directions.to(x), 1),
    }[name]
    x, y = points(18, 128, 100), points(19, 128, 100) + 0.1
    assert float(pick(x.float(), y.float())) == pytest.approx(float(pick(x, y)), rel=1e-3)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("x", "y"), [((1, 3), (5, 3)), ((5, 3), (5, 2)), ((2, 5, 3), (5, 3)), ((3,), (3,))]
)
def test_shapes_that_do_not_fit_are_refused(
    name: str, x: tuple[int, ...], y: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"a discrepancy compares .* got \("):
        ALL[name](points(0, *x), points(0, *y))


def test_bad_options_are_refused() -> None:
    x = points(0, 5, 3)
    with pytest.raises(ValueError, match="power must be 1 or 2"):
        sliced_wasserstein(x, x, DIRECTIONS, 3)
    with pytest.raises(ValueError, match=r"directions must be \(k, 3\)"):
        sliced_energy_distance(x, x, DIRECTIONS[:, :2])
    for scales in ([], [1.0, 0.0]):
        with pytest.raises(ValueError, match="scales must be positive"):
            gaussian_mmd(x, x, scales)
