"""Two processes train one model: as one process does on the joined batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hepbridge.core.protocols import Phase
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit
from hepbridge.training.team import Team

SETTINGS = TrainingSettings(
    validate_every=5, patience=2, log_every=5, checkpoint_every=5, ema_decay=0.9, weight_decay=0.01
)
STEPS = 40


def draw(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal((8, 3))).float()


class Net(nn.Module):
    """Its loss calls a method that is not ``forward``; one parameter never has a gradient."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 3))
        self.unused = nn.Parameter(torch.zeros(2))
        self.register_buffer("offset", torch.tensor(float(seed)))

    def distance(self, x: torch.Tensor) -> torch.Tensor:
        return (self.net(x) - 2 * x.flip(1)).square().mean()


def script():
    """Held-out numbers that get worse after 20 steps: both processes must stop at 30."""
    seen = []

    def validate(module):
        seen.append(None)
        return float(abs(len(seen) - 4))

    return validate


def phase(net: Net, batch) -> Phase:
    return Phase("p", net, batch, lambda m, x: m.distance(x), STEPS, 0.02, validate=script())


def main(folder: Path) -> None:
    """What each process runs under torchrun."""
    rank = int(os.environ["RANK"])
    team = Team.gather("cpu")
    p, absent = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    p.grad = torch.tensor([1.0, 10.0]) * (rank + 1)
    team.average_gradients([p, absent])  # tested alone: Adam would forgive a wrong factor
    assert p.grad.tolist() == [1.5, 15.0] and absent.grad.tolist() == [0.0]
    assert team.any(rank == 1) and not team.any(False)
    assert team.told(rank + 0.1) == 0.1
    net = Net(seed=rank)  # different weights at the start
    history = fit(
        [phase(net, lambda step, rng: draw(rng))],
        SETTINGS,
        seed=2,
        checkpoint=folder / "state.ckpt",
        log=folder / "log.jsonl",
    )
    assert history.kept == {"p": 20}
    assert history.records[-1]["step"] == 30
    save_file(net.state_dict(), str(folder / f"rank{rank}.safetensors"))


@pytest.mark.slow
def test_two_processes_equal_one_with_the_joined_batch(tmp_path):
    """Fails if gradients are summed instead of averaged, or weights are not shared at the start."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, __file__, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)

    def joined(step: int, rng: np.random.Generator) -> torch.Tensor:
        return torch.cat([draw(stream(2, "train", "p", step, rank)) for rank in (0, 1)])

    alone = Net(seed=0)
    history = fit([phase(alone, joined)], SETTINGS, seed=2)
    assert history.kept == {"p": 20}
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == len(history.records)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
