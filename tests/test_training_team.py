"""Two processes train one model: as one process does on the joined batches."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hepbridge.core.errors import TrainingInterrupted
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
    p, partly, absent = (nn.Parameter(torch.zeros(n)) for n in (2, 1, 1))
    p.grad = torch.tensor([1.0, 10.0]) * (rank + 1)
    if rank == 1:
        partly.grad = torch.tensor([4.0])
    team.average_gradients([p, absent, partly])  # tested alone: Adam would forgive a wrong factor
    assert p.grad.tolist() == [1.5, 15.0] and partly.grad.tolist() == [2.0] and absent.grad is None
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


def test_gradients_of_a_process_with_two_seats_are_averaged(caplog) -> None:
    """By hand: a sum over two seats is halved. Fails if it is not (which Adam would forgive)."""
    team, p = Team(0, 1, torch.device("cpu")), nn.Parameter(torch.zeros(2))
    assert list(team.mine) == [0]
    team.sit(2)
    assert list(team.mine) == [0, 1] and "began with 2 process(es)" in caplog.text
    p.grad = torch.tensor([3.0, 30.0])
    team.average_gradients([p])
    assert p.grad.tolist() == [1.5, 15.0]
    assert team.mean(torch.tensor([3.0])).tolist() == [1.5]
    assert list(Team(1, 2, torch.device("cpu")).mine) == [1]


def plain(net: Net, at: int, name: str | None) -> Phase:
    """A phase in which the process with seat 1 sends itself a signal at a step."""

    def batch(step: int, rng: np.random.Generator) -> torch.Tensor:
        if name is not None and step == at and os.environ.get("RANK", "0") == "1":
            os.kill(os.getpid(), getattr(signal, name))
        return draw(rng)

    return Phase("p", net, batch, lambda m, x: m.distance(x), STEPS, 0.02)


def cut(folder: Path, name: str | None) -> None:
    """What each process of a pair runs: ends by the signal, or resumes if there is a checkpoint."""
    net, state = Net(seed=int(os.environ["RANK"])), folder / "state.ckpt"
    fit([plain(net, 17, name)], SETTINGS, seed=2, checkpoint=state, resume=True)
    if os.environ["RANK"] == "0":
        save_file(net.state_dict(), str(folder / "pair.safetensors"))


def pair(folder: Path, name: str | None = None) -> list[int]:
    """Exit codes of two processes, started as a batch system does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), name or ""],
            env=os.environ | common | {"RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        for rank in (0, 1)
    ]
    return [process.wait(timeout=120) for process in processes]


def resumed_alone(folder: Path) -> Net:
    net = Net(seed=0)
    fit([plain(net, 0, None)], SETTINGS, seed=2, checkpoint=folder / "state.ckpt", resume=True)
    return net


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, torch.Tensor]:
    """Weights of a training by two processes from its beginning to its end."""
    folder = tmp_path_factory.mktemp("whole")
    assert pair(folder) == [0, 0]
    return load_file(folder / "pair.safetensors")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_one_process_goes_on_where_two_were_stopped(undisturbed, tmp_path, caplog, name) -> None:
    """To the bit: g0 + g1 is the same in one process as between two.

    Fails if the one process draws one batch in each step, if it adds without dividing by two, or if
    a signal to one of the two leaves the other waiting.
    """
    assert 0 not in pair(tmp_path, name)
    assert (tmp_path / "state.ckpt").exists() and not (tmp_path / "pair.safetensors").exists()
    net = resumed_alone(tmp_path)
    assert "began with 2 process(es) and goes on with 1" in caplog.text
    assert all(torch.equal(undisturbed[k], v) for k, v in net.state_dict().items())


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_stopped(tmp_path) -> None:
    """The second one has nothing to do, and changes nothing, to the bit.

    Fails if a gradient that is absent in both becomes zero: clipping then adds in another order.
    """

    def stops(step: int, rng: np.random.Generator) -> torch.Tensor:
        if step == 17:
            signal.raise_signal(signal.SIGTERM)
        return draw(rng)

    state, alone = tmp_path / "state.ckpt", Net(seed=0)
    fit([plain(alone, 0, None)], SETTINGS, seed=2)
    with pytest.raises(TrainingInterrupted):
        phase = dataclasses.replace(plain(Net(seed=0), 0, None), batch=stops)
        fit([phase], SETTINGS, seed=2, checkpoint=state)
    assert pair(tmp_path) == [0, 0]
    got = load_file(tmp_path / "pair.safetensors")
    assert all(torch.equal(got[k], v) for k, v in alone.state_dict().items())


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        cut(Path(sys.argv[1]), sys.argv[2] or None)
