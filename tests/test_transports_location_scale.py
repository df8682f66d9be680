"""Mean and spread given leading coordinates: against a model whose parameters are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepbridge.core.protocols import Pairs
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports import location_scale
from hepbridge.transports.location_scale import LocationScale
from hepbridge.transports.staged_flow import StagedFlow

N = 40_000


def sample(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """u = 0.8 s - 0.1 s^2 + 0.3 s c + exp((0.2 + 0.4 s) / 2) e, and e itself."""
    rng = stream(seed, "location scale")
    s, c, e = (torch.from_numpy(rng.standard_normal((N, 1)).astype(np.float32)) for _ in range(3))
    s = s.clamp(-3, 3)
    return 0.8 * s - 0.1 * s**2 + 0.3 * s * c + torch.exp(0.1 + 0.2 * s) * e, s, c, e


def test_finds_the_mean_and_the_variance_of_a_known_model() -> None:
    """Coefficients within four standard errors: sqrt(variance / N) and sqrt(2 / N) of order 1."""
    u, s, c, e = sample(0)
    frame = LocationScale(1, 1, 1)
    frame.fit(lambda some: u[:, some], s, c)
    truth = torch.tensor([0.0, 0.8, -0.1, 0.0, 0.3, 0.0])
    torch.testing.assert_close(frame.mean[:, 0], truth, rtol=0, atol=4 * 1.3 / N**0.5)
    truth = torch.tensor([0.2, 0.4, 0.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(frame.log_variance[:, 0], truth, rtol=0, atol=4 * 2**0.5 / N**0.5)
    assert (frame(u, s, c) - e).abs().mean() < 0.02


def test_columns_are_fitted_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of one column as all together: the memory is that of a part."""
    u, s, c, _ = sample(1)
    columns = torch.cat([u, 1 - 2 * u, u.square()], dim=1)
    whole, parts = LocationScale(1, 3, 1), LocationScale(1, 3, 1)
    whole.fit(lambda some: columns[:, some], s, c)
    monkeypatch.setattr(location_scale, "_AT_ONCE", 1)
    parts.fit(lambda some: columns[:, some], s, c)
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.log_variance, whole.log_variance)
    assert not torch.allclose(whole.mean[:, 0], whole.mean[:, 1])


def test_columns_that_are_alike_are_fitted_once() -> None:
    """Three columns that take turns in three images of the same rows: the same as fitted each."""
    u, s, c, _ = sample(3)
    columns = torch.cat([u, 1 - 2 * u, u.square()], dim=1)
    turned = torch.cat([columns[:, torch.arange(k, k + 3) % 3] for k in range(3)])
    rows = turned, s.repeat(3, 1), c.repeat(3, 1)
    each, once = LocationScale(1, 3, 1), LocationScale(1, 3, 1)
    each.fit(lambda some: turned[:, some], *rows[1:])
    asked = []

    def given(some: torch.Tensor) -> torch.Tensor:
        asked.append(some.tolist())
        return turned[:, some]

    once.fit(given, *rows[1:], torch.zeros(3, dtype=torch.int64))
    assert asked == [[0]]
    torch.testing.assert_close(once.mean, each.mean)
    torch.testing.assert_close(once.log_variance, each.log_variance)


def test_inverse_undoes_forward_also_far_away() -> None:
    u, s, c, _ = sample(1)
    frame = LocationScale(1, 1, 1)
    frame.fit(lambda some: u[:, some], s, c)
    far = 10 * s
    torch.testing.assert_close(frame.inverse(frame(u, far, c), far, c), u, rtol=1e-4, atol=1e-4)


def test_unfitted_does_nothing() -> None:
    u, s, c, _ = sample(2)
    torch.testing.assert_close(LocationScale(1, 1, 1)(u, s, c), u)


def test_dependence_on_leading_coordinates_is_not_counted_twice() -> None:
    """Source and target are equal: sums of ten coordinates, correlated by 0.9 with the leading one.

    Without the frames the slope comes out as 0.98 (planted by leaving them unfitted), because
    coupled rows differ in the leading coordinate, and the spread about it 30 % too small.
    """
    rng = stream(0, "twice")
    n, k = 2000, 10

    def draw() -> torch.Tensor:
        s = rng.standard_normal((n, 1))
        own = rng.standard_normal((n, k))
        own -= own.mean(axis=1, keepdims=True) * (1 - 0.19**0.5)
        u = 0.9 / k**0.5 * s + own
        return torch.from_numpy(np.concatenate([u, s], axis=1).astype(np.float32))

    data = Pairs(draw(), draw(), {}, order=None)
    small = {"width": 64, "depth": 2, "window": 64, "windows": 4, "train_steps": 400, "steps": 4}
    torch.manual_seed(0)
    flow = StagedFlow(k + 1, {}, lead=1, carried=1, then=small)
    fit(flow.phases(data, 0), TrainingSettings(ema_decay=0.98), seed=0, device="cpu")
    fresh = draw()
    with torch.no_grad():
        out = flow.eval().apply(fresh, {})
    s, total = fresh[:, k], out[:, :k].sum(1) / k**0.5
    slope = float((s * total).mean() / s.square().mean())
    spread = float((total - slope * s).std())
    se = (0.19 / n) ** 0.5
    assert abs(slope - 0.9) < 4 * se
    assert abs(spread / 0.19**0.5 - 1) < 4 / (2 * n) ** 0.5
