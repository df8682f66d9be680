"""The models that ship: small, documented, and better than doing nothing on showers they never saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from hepbridge.core.files import file_digest
from hepbridge.data import io, sample
from hepbridge.metrics.compare import compare
from hepbridge.systems.model_file import load, locate
from hepbridge.systems.recipe import load_recipe

NAMES = ["squirels", "squirels-small"]


@pytest.mark.parametrize("name", NAMES)
def test_card_is_of_this_file_and_the_file_is_small(name: str) -> None:
    path = locate(name)
    assert path.stat().st_size < 5_000_000
    assert file_digest(path) in path.with_suffix(".md").read_text(encoding="utf-8")


def test_it_is_what_the_default_recipe_makes() -> None:
    model, recipe = load("squirels"), load_recipe("squirels")
    assert model.members[0].nfe == 1
    assert model.recipe.model["options"] == recipe.model["options"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("energy", sample.ENERGIES)
def test_it_refines(name: str, energy: int) -> None:
    """At most a fifth of the distance of GFLASH is left, on 1,000 showers of a fixed energy."""
    fast, full = sample.load("gflash", energy), sample.load("full", energy)
    refined = load(name).refine(fast)
    assert compare(full, refined) < 0.2 * compare(full, fast)


def test_it_refines_by_name_from_the_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from hepbridge.cli.app import app

    io.save(sample.load("gflash", 50)[:20], tmp_path / "fast.h5")
    words = ["refine", "squirels", str(tmp_path / "fast.h5"), "-o", str(tmp_path / "refined.h5")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert len(io.load(tmp_path / "refined.h5")) == 20
