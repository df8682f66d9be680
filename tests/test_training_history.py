"""The log of a training: JSON lines always, TensorBoard if asked."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

from hepbridge.core.errors import ConfigError, MissingExtraError, OutputError
from hepbridge.core.protocols import Phase
from hepbridge.training import TrainingSettings, fit


def phases(steps: int = 12):
    def batch(step, rng):
        return torch.from_numpy(rng.standard_normal((4, 2))).float()

    for name in ("first", "second"):
        net = nn.Linear(2, 2)
        yield Phase(
            name, net, batch, lambda m, x: m(x).square().mean(), steps, validate=lambda m: 0.5
        )


def test_log_has_one_line_per_record(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("left over from an earlier training\n")
    settings = TrainingSettings(log_every=5, validate_every=6)
    history = fit(phases(), settings, seed=0, log=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == history.records
    assert [(r["phase"], r["step"]) for r in lines] == [
        (name, step) for name in ("first", "second") for step in (5, 6, 10, 12)
    ]
    assert lines[0].keys() == {"phase", "step", "loss", "learning_rate", "seconds"}
    assert lines[1]["validation"] == 0.5
    seconds = [r["seconds"] for r in lines]
    assert seconds == sorted(seconds)
    assert seconds[-1] <= round(history.seconds, 3)  # records hold milliseconds


def test_log_that_cannot_be_written_fails_before_training(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        fit(phases(), seed=0, log=tmp_path / "no" / "log.jsonl")
    with pytest.raises(OutputError, match="does not exist"):
        fit(phases(), seed=0, checkpoint=tmp_path / "no" / "state.ckpt")


def test_training_that_fails_before_its_first_step_leaves_everything_as_it_was(tmp_path):
    def failing():
        raise ConfigError("no such option")
        yield

    log = tmp_path / "log.jsonl"
    with pytest.raises(ConfigError):
        fit(failing(), seed=0, log=log)
    assert not log.exists()
    log.write_text("of an earlier training\n")
    with pytest.raises(ConfigError):
        fit(failing(), seed=0, log=log)
    assert log.read_text() == "of an earlier training\n"
    fit((), seed=0, log=log)  # a training without steps is one, too, and has no log
    assert not log.exists()


def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = tmp_path / "log.jsonl"
    settings = TrainingSettings(log_every=4, tensorboard=True)
    history = fit(phases(), settings, seed=0, log=log)
    board = EventAccumulator(str(tmp_path / "log.tensorboard"))
    board.Reload()
    got = [(e.step, e.value) for e in board.Scalars("second/loss")]
    assert got == [(s, pytest.approx(v, rel=1e-6)) for s, v in history.losses("second")]
    assert [e.step for e in board.Scalars("first/validation")] == [12]


def test_absent_tensorboard_is_a_clear_error(tmp_path, monkeypatch):
    settings = TrainingSettings(tensorboard=True)
    with pytest.raises(ConfigError, match="needs a log file"):
        fit(phases(), settings, seed=0)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hepbridge\[tensorboard\]'"):
        fit(phases(), settings, seed=0, log=tmp_path / "log.jsonl")
