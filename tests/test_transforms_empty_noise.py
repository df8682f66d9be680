"""Noise that places empty cells, given the sums: against a model whose parameters are known."""

from __future__ import annotations

import torch

from hepbridge.transforms.empty_noise import EmptyNoise

N = 20_000


def sample() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """n' = 0.1 + (0.6 + 0.2 c) s + 0.5 n in the first two cells, plain n in the third; sums, condition."""
    g = torch.Generator().manual_seed(1)
    n, s = (torch.randn(N, 3, generator=g, dtype=torch.float64) for _ in range(2))
    s, c = s[:, :2].clamp(-3, 3), torch.rand(N, 1, generator=g, dtype=torch.float64) * 2 - 1
    placed = n.clone()
    placed[:, :2] = 0.1 + (0.6 + 0.2 * c) * s[:, :1] + 0.5 * n[:, :2]
    empty = torch.rand(N, 3, generator=g) < 0.4
    return placed, empty, s, c, n


def test_finds_the_dependence_where_cells_are_empty() -> None:
    """Within five standard errors of 1/sqrt(2 N 0.4). What is not empty must not count (planted: 99)."""
    placed, empty, s, c, n = sample()
    noise = EmptyNoise(2, [0, 0, 1])
    noise.fit(torch.where(empty, placed, 99.0), empty, s, c)
    error = 5 * 0.5 / (2 * 0.4 * N) ** 0.5
    truth = torch.tensor([0.1, 0.6, 0.0, 0.0, 0.2, 0.0])
    for cell in (0, 1):
        torch.testing.assert_close(noise.weight[:, cell], truth, rtol=0, atol=3 * error)
    assert noise.weight[:, 2].abs().max() < 0.05
    torch.testing.assert_close(noise.spread, torch.tensor([0.5, 0.5, 1.0]), rtol=0, atol=0.03)
    made = noise(n.float(), s.float(), c.float())
    torch.testing.assert_close(made, placed.float(), rtol=0, atol=0.25)


def test_few_empty_cells_keep_their_noise() -> None:
    placed, empty, s, c, n = sample()
    empty[:, 2] = False
    empty[:50, 2] = True
    noise = EmptyNoise(2, [0, 0, 1])
    noise.fit(placed, empty, s, c)
    assert torch.equal(noise(n.float(), s.float(), c.float())[:, 2], n[:, 2].float())


def test_unfitted_does_nothing() -> None:
    *_, s, c, n = sample()
    assert torch.equal(EmptyNoise(2, [0, 1, 2])(n.float(), s.float(), c.float()), n.float())
