"""Interrupted and resumed training gives the model of an uninterrupted one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from hepbridge.core.errors import ConfigError, OutputError, TrainingInterrupted
from hepbridge.data import io, sample
from hepbridge.systems.model_file import Model, load
from hepbridge.systems.train import train
from hepbridge.transports import couplings
from hepbridge.transports.distilled import Distilled

SMALL = [
    "training.steps=40",
    "training.checkpoint_every=10",
    "ensemble=2",
    *tiny.TINY,
]


@pytest.fixture(scope="module")
def pairs():
    return sample.load("train_fast")[:800], sample.load("train_full")[:800]


def same(a: Model, b: Model) -> bool:
    return all(
        torch.equal(x, y)
        for one, other in zip(a.members, b.members, strict=True)
        for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("where", "name", "at"),
    [
        (couplings, "assign", 3),  # in the first stage of the first member's teacher
        (couplings, "assign", 33),  # in the second stage of the second member's
        (Distilled, "_forward", 12),  # in the first student
    ],
)
def test_resumed_training_is_bitwise_the_same(
    pairs, tmp_path: Path, monkeypatch, where: Any, name: str, at: int
) -> None:
    """SIGTERM after some steps, --resume, and every weight as if nothing had happened."""
    whole = train(*pairs, overrides=SMALL, output=tmp_path / "whole.safetensors", device="cpu")
    calls: list[int] = []
    original = getattr(where, name)

    def counted(*args):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGTERM)
        return original(*args)

    monkeypatch.setattr(where, name, counted)
    output = tmp_path / "cut.safetensors"
    with pytest.raises(TrainingInterrupted, match="--resume"):
        train(*pairs, overrides=SMALL, output=output, device="cpu")
    assert not output.exists()
    with pytest.raises(OutputError, match="continue it with --resume"):
        train(*pairs, overrides=SMALL, output=output, device="cpu")
    with pytest.raises(ConfigError):  # the state of one recipe does not continue another
        train(
            *pairs,
            overrides=[*SMALL, "training.clip_norm=5"],
            output=output,
            resume=True,
            device="cpu",
        )
    cut = train(*pairs, overrides=SMALL, output=output, resume=True, device="cpu")
    assert same(cut, whole)
    assert cut.metrics == whole.metrics
    left = sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("cut"))
    assert left == ["cut.safetensors", "cut.safetensors.log.jsonl"]


def test_a_finished_model_is_not_trained_again(pairs, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    first = train(*pairs, overrides=SMALL, output=output, device="cpu")
    before = output.stat().st_mtime_ns
    assert same(first, train(*pairs, overrides=SMALL, output=output, device="cpu"))
    assert output.stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="exists already"):
        train(*pairs, overrides=[*SMALL, "training.steps=41"], output=output, device="cpu")


@pytest.mark.slow
def test_two_processes_train_one_model(pairs, tmp_path: Path) -> None:
    """The command line under torchrun: one file, written once, by a training of two processes."""
    for name, showers in zip(("fast", "full"), pairs, strict=True):
        io.save(showers, tmp_path / f"{name}.h5")
    launch = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "hepbridge",
    ]
    words = ["train", "squirels", "--fast", "fast.h5", "--full", "full.h5", "-o", "m.safetensors"]
    small = [w for override in SMALL[:-1] for w in ("--set", override)]
    done = subprocess.run(
        [sys.executable, *launch, *words, "--device", "cpu", *small],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("is a trained model") == 1
    assert set(load(tmp_path / "m.safetensors").metrics["distance"]) == {
        "fast",
        "quantile",
        "refined",
    }
    assert not (tmp_path / "m.safetensors.checkpoint").exists()
