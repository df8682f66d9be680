"""A student of a model that exists: what it takes over, and what it refuses."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import tiny
from hepbridge.core.errors import ConfigError
from hepbridge.data import sample
from hepbridge.data.showers import Showers
from hepbridge.systems.model_file import Model, load
from hepbridge.systems.train import train

SMALL = [
    *(f"model.options.first.{word}" for word in ("width=16", "depth=1", "steps=1", "windows=1")),
    *(f"model.options.then.{word}" for word in ("width=16", "depth=1", "steps=1", "windows=1")),
    "training.steps=20",
]
STUDENT = ["training.steps=10", *tiny.TINY[:4]]


@pytest.fixture(scope="module")
def pairs() -> tuple[Showers, Showers]:
    return sample.load("train_fast")[:600], sample.load("train_full")[:500]


@pytest.fixture(scope="module")
def teacher(pairs) -> Model:
    return train(*pairs, recipe="squirels-flow", overrides=SMALL, device="cpu")


def test_student_takes_over_transforms_and_recipe(pairs, teacher: Model, tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    student = train(*pairs, overrides=STUDENT, teacher=teacher, output=path, device="cpu")
    taught, found = (m.members[0].state_dict() for m in (teacher, student))
    for key in ("quantile.source.table", "quantile.target.table", "quantile.target.atom", "mean"):
        assert torch.equal(found[key], taught[key]), key
    model = student.recipe.model
    assert model["transport"] == "distilled"
    assert model["options"]["teacher"] == "staged_flow"
    assert model["options"]["teacher_options"] == teacher.recipe.model["options"]
    assert student.members[0].nfe == 1
    assert student.provenance["request"]["teacher"] == teacher.digest()
    lines = path.with_name(path.name + ".log.jsonl").read_text().splitlines()
    assert all('"phase": "student"' in line for line in lines), "the teacher was trained again"
    again = load(path).refine(pairs[0][:20])
    assert (again.cells == student.refine(pairs[0][:20]).cells).all()


def test_a_teacher_of_other_showers_is_named(pairs, teacher: Model, caplog) -> None:
    fast, full = pairs
    with caplog.at_level(logging.WARNING):
        train(fast[:400], full[:400], overrides=STUDENT, teacher=teacher, device="cpu")
    assert "the teacher was trained with other fast, full" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        train(*pairs, overrides=STUDENT, teacher=teacher, device="cpu")
    assert "the teacher was trained with other" not in caplog.text


def test_impossible_teachers_are_refused(pairs, teacher: Model) -> None:
    with pytest.raises(ConfigError, match="a teacher needs a student: use recipe squirels"):
        train(*pairs, recipe="quantile", teacher=teacher)
    with pytest.raises(ConfigError, match="2 students need as many teachers"):
        train(*pairs, overrides=[*STUDENT, "ensemble=2"], teacher=teacher)
    quantile = train(*pairs, recipe="quantile", device="cpu")
    with pytest.raises(ConfigError, match="transport None cannot be the teacher"):
        train(*pairs, overrides=STUDENT, teacher=quantile)
