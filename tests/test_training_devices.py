"""Devices, batches that are cut to fit, and the weight average."""

from __future__ import annotations

import logging
from typing import NamedTuple

import pytest
import torch
from torch import nn

from hepbridge.core.errors import ConfigError, HepbridgeError
from hepbridge.core.protocols import Phase
from hepbridge.training import TrainingSettings, choose_device, fit
from hepbridge.training.devices import map_tensors, rows, split
from hepbridge.training.ema import WeightAverage


def test_choice_of_device():
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="allowed: auto, cpu"):
        choose_device("gpu")
    with pytest.raises(ConfigError, match="unknown device 'cuda:x'"):
        choose_device("cuda:x")


def test_absent_device_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="finds no CUDA GPU; choose the device cpu"):
        choose_device("cuda")
    with pytest.raises(ConfigError, match="'mps' is not available"):
        choose_device("mps")
    assert choose_device("auto").type == "cpu"


class Two(NamedTuple):
    x: torch.Tensor
    c: dict[str, torch.Tensor]


def test_batches_of_any_shape_are_moved_and_cut():
    batch = {
        "two": Two(torch.arange(7.0), {"e": torch.arange(14).reshape(7, 2)}),
        "list": [torch.eye(3), "name", None],
        "scalar": torch.tensor(2.0),
    }
    assert rows(batch) == 7
    doubled = map_tensors(lambda t: 2 * t, batch)
    assert isinstance(doubled["two"], Two) and doubled["list"][1:] == ["name", None]
    assert torch.equal(doubled["two"].c["e"], 2 * batch["two"].c["e"])
    pieces = list(split(batch, 3))
    assert [share for _, share in pieces] == [3 / 7, 3 / 7, 1 / 7]
    assert torch.equal(torch.cat([p["two"].x for p, _ in pieces]), batch["two"].x)
    assert all(len(p["list"][0]) == 3 and p["scalar"] == 2 for p, _ in pieces)


class Greedy(nn.Module):
    """Runs out of memory above a number of rows, as a GPU does: sometimes in the middle."""

    def __init__(self, most: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Linear(4, 2)
        self.most = most
        self.sizes: list[int] = []

    def forward(self, x):
        if len(x) > self.most:
            raise torch.cuda.OutOfMemoryError("fake")
        self.sizes.append(len(x))
        return self.net(x)


def train(module: nn.Module) -> None:
    def batch(step, rng):
        return torch.from_numpy(rng.standard_normal((50, 4))).float()

    def loss(module, x):
        return (module(x) - x[:, :2] * 3).square().mean()

    settings = TrainingSettings(ema_decay=None, clip_norm=None)
    fit([Phase("p", module, batch, loss, 30, 0.02)], settings, seed=0)


def test_too_large_batches_are_cut_and_train_alike(caplog):
    """Same weights up to rounding; fails if pieces are weighted equally (50 rows in 4 pieces)."""
    whole, small = Greedy(50), Greedy(13)
    train(whole)
    with caplog.at_level(logging.WARNING):
        train(small)
    assert small.sizes[:4] == [13, 13, 13, 11] and max(small.sizes) == 13
    assert [r.args[1] for r in caplog.records] == [2, 4]  # said once per halving
    for p, q in zip(whole.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_one_row_that_does_not_fit_is_a_clear_error():
    with pytest.raises(HepbridgeError, match="even with one row at a time"):
        train(Greedy(0))


def test_other_errors_are_not_swallowed():
    def loss(module, batch):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        fit([Phase("p", nn.Linear(2, 2), lambda s, r: torch.zeros(4, 2), loss, 3)], seed=0)


def test_average_is_its_recursion():
    p = nn.Parameter(torch.zeros(3))
    average = WeightAverage([p], 0.5)
    want = torch.zeros(3)
    for n in range(1, 20):
        with torch.no_grad():
            p.fill_(float(n))
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        want = decay * want + (1 - decay) * n
    torch.testing.assert_close(average.average[0], want)
    with average.applied():
        torch.testing.assert_close(p.detach(), want)
    assert torch.equal(p.detach(), torch.full((3,), 19.0))
    average.store()
    torch.testing.assert_close(p.detach(), want)
