"""Covariances taken out: exact for Gaussian rows, at every condition, equal under symmetries."""

from __future__ import annotations

import torch

from hepbridge.transports.second_moments import SecondMoments

N = 32_000
ONE = torch.arange(3)[None]


def sample(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlation 0.5 + 0.3 c of the first two coordinates, means c; c from -1 to 1."""
    g = torch.Generator().manual_seed(seed)
    c = torch.rand(N, generator=g) * 2 - 1
    v = torch.randn(N, 3, generator=g)
    rho = 0.5 + 0.3 * c
    v[:, 1] = rho * v[:, 0] + (1 - rho**2).sqrt() * v[:, 1]
    return v + c[:, None], c


def test_rows_come_out_white_at_every_condition() -> None:
    """Five standard errors sqrt(2 / n), and what c varies inside a node. Fails with one matrix for all c
    (correlation 0.2 at the ends)."""
    v, c = sample(0)
    frame = SecondMoments(3)
    frame.fit(v, c, ONE)
    fresh, at = sample(1)
    for low in (-1.0, -0.5, 0.0, 0.5):
        part = (at >= low) & (at < low + 0.5)
        w = frame(fresh[part], at[part])
        error = 5 * (2 / int(part.sum())) ** 0.5
        assert (torch.cov(w.T) - torch.eye(3)).abs().max() < error + 0.02
        assert w.mean(dim=0).abs().max() < error


def test_the_root_moves_least() -> None:
    """It is symmetric, so no coordinate turns into another: no other root is nearer to the rows."""
    v, c = sample(2)
    frame = SecondMoments(3)
    frame.fit(v, c, ONE)
    torch.testing.assert_close(frame.root, frame.root.mT)
    w = frame(v, c)
    turned = w @ torch.tensor([[0.98, 0.199, 0.0], [-0.199, 0.98, 0.0], [0.0, 0.0, 1.0]])
    centred = v - frame.mean[frame._node(c)]
    assert (w - centred).square().mean() < (turned - centred).square().mean()


def test_inverse_undoes_forward() -> None:
    v, c = sample(3)
    frame = SecondMoments(3)
    frame.fit(v, c, ONE)
    torch.testing.assert_close(frame.inverse(frame(v, c), c), v, rtol=1e-4, atol=1e-4)
    far = 5 * c
    torch.testing.assert_close(frame.inverse(frame(v, far), far), v, rtol=1e-4, atol=1e-4)


def test_images_are_averaged() -> None:
    """Coordinates 0 and 2 exchange places: their moments become equal. Fails without the mean."""
    v, c = sample(4)
    frame = SecondMoments(3)
    frame.fit(v, c, torch.tensor([[0, 1, 2], [2, 1, 0]]))
    torch.testing.assert_close(frame.root[:, 0, 1], frame.root[:, 2, 1])
    torch.testing.assert_close(frame.mean[:, 0], frame.mean[:, 2])
    assert (frame.root[:, 0, 1] > 0.05).all()


def test_few_rows_and_constant_coordinates() -> None:
    for n in (2, 5, 40):
        v, c = sample(5)
        v = v[:n].clone()
        v[:, 2] = 1.0
        frame = SecondMoments(3)
        frame.fit(v, c[:n], ONE)
        assert torch.isfinite(frame(v, c[:n])).all()
        torch.testing.assert_close(frame.inverse(frame(v, c[:n]), c[:n]), v, rtol=1e-3, atol=1e-3)


def test_unfitted_does_nothing() -> None:
    v, c = sample(6)
    torch.testing.assert_close(SecondMoments(3)(v, c), v)
