"""Citations: complete, well-formed, and in step with the methods."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hepbridge.cli.app import app
from hepbridge.core import citations
from hepbridge.core.errors import ConfigError
from hepbridge.recipes import names

run = CliRunner().invoke


@pytest.mark.parametrize("key", citations.BIBTEX)
def test_entry_is_well_formed(key: str) -> None:
    entry = citations.BIBTEX[key]
    assert re.match(rf"@(article|inproceedings|misc|software)\{{{key},\n", entry)
    assert entry.count("{") == entry.count("}")
    assert re.search(r"\bauthor\s+= \{", entry) and re.search(r"\btitle\s+= \{", entry)
    eprint = re.search(r"eprint\s+= \{(.*)\}", entry)
    # four digits after the point until the end of 2014
    number = r"(0[7-9]|1[0-4])\d\d\.\d{4}|(1[5-9]|[2-9]\d)\d\d\.\d{5}|[a-z-]+/\d{7}"
    assert eprint is None or re.fullmatch(number, eprint[1])
    assert not re.search(r'(?<!\\)"', entry)  # an umlaut is \"o in BibTeX


def test_methods_name_existing_entries() -> None:
    assert {k for keys in citations.METHODS.values() for k in keys} <= set(citations.BIBTEX)


def test_every_transport_and_recipe_has_an_entry() -> None:
    """Fails if a method is registered without saying what to cite (an empty tuple is an answer)."""
    from hepbridge.transports import TRANSPORTS

    recipes = {*names(), *names("unfolding"), *names("generation")}
    assert set(TRANSPORTS) | recipes <= set(citations.METHODS)


@pytest.mark.parametrize(
    ("number", "author", "title"),
    [
        ("2308.12351", "Diefenbacher", "Improving Generative Model-based Unfolding"),
        ("1911.09107", "Andreassen", "Simultaneously Unfold All Observables"),
        ("2105.04448", "Andreassen", "Scaffolding Simulations"),
        ("2006.06685", "Bellagente", "Partons to Detector and Back Again"),
        ("2304.01266", "Mikuni", "Fast Point Cloud Generation"),
        ("1906.04032", "Durkan", "Neural Spline Flows"),
        ("2302.05872", "Liu", "I$^2$SB"),
        ("2202.00512", "Salimans", "Progressive Distillation"),
        ("2311.06978", "De Bortoli", "Augmented Bridge Matching"),
        ("2405.15885", "Zheng", "Diffusion Bridge Implicit Models"),
    ],
)
def test_papers_of_unfolding_are_those_of_the_archive(number: str, author: str, title: str) -> None:
    """Number, first author and title as arXiv lists them. Fails if two numbers are interchanged."""
    (entry,) = (e for e in citations.BIBTEX.values() if f"{{{number}}}" in e)
    assert re.search(rf"author\s+= \{{{author}, ", entry)
    assert title in " ".join(entry.split())


def test_software_entry_matches_citation_file() -> None:
    text = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    entry = citations.BIBTEX["hepbridge"]
    for field in ("title", "version", "license"):
        value = re.search(rf'^{field}: "?(.*?)"?$', text, re.M)
        assert value is not None and re.search(rf"{field}\s+= {{{re.escape(value[1])}}}", entry)


def test_cite_a_method() -> None:
    done = run(app, ["cite", "dsb", "--json"])
    assert done.exit_code == 0
    assert list(json.loads(done.stdout)["bibtex"]) == ["hepbridge", "dsb"]
    assert "2106.01357" in run(app, ["cite", "dsb"]).stdout


@pytest.mark.parametrize("recipe", names("unfolding"))
def test_a_model_of_an_unfolding_is_cited_as_its_recipe(recipe: str, tmp_path: Path) -> None:
    """The transports say the same as the recipe; only the published bridge lacks what came later."""
    from hepbridge.systems.unfolding.model_file import UnfoldingModel
    from hepbridge.systems.unfolding.observables import Observables
    from hepbridge.systems.unfolding.recipe import load_unfolding_recipe

    chosen = load_unfolding_recipe(recipe)
    record = {"particle": ["x"], "further": [], "units": {"x": "1"}}
    model = UnfoldingModel.empty(
        chosen, Observables.from_dict(record), spectrum=chosen.kind == "reweight"
    )
    path = model.save(tmp_path / "m.safetensors")
    of_model, of_recipe = (
        set(json.loads(run(app, ["cite", str(what), "--json"]).stdout)["bibtex"])
        for what in (path, recipe)
    )
    later = {"augmented_bridge", "dbim"} if recipe == "sbunfold-paper" else set()
    assert of_recipe <= of_model and of_model - of_recipe == later
    assert len(of_recipe) > 2


@pytest.mark.parametrize("recipe", names("generation"))
def test_a_generator_is_cited_as_its_recipe(recipe: str, tmp_path: Path) -> None:
    """The steps say the same as the recipe. Fails if one of them, or its teacher, is forgotten."""
    from hepbridge.systems.generation.recipe import load_generation_recipe

    steps = load_generation_recipe(recipe).model.transports()
    of_steps, of_recipe = set(citations.of_generator(steps)), set(citations.of_methods([recipe]))
    assert of_recipe <= of_steps
    assert {key for step in steps for name in step if name for key in citations.METHODS[name]} <= (
        of_steps
    )


def test_iterations_are_those_of_omnifold() -> None:
    assert "omnifold" in citations.of_unfolding("i2sb", None, iterations=3)
    assert "omnifold" not in citations.of_unfolding("i2sb", None, iterations=0)


def test_cite_all() -> None:
    output = run(app, ["cite"]).stdout
    assert all(entry in output for entry in citations.BIBTEX.values())


def test_unknown_method() -> None:
    with pytest.raises(ConfigError, match="no citation for 'dsp'; available: squirels"):
        citations.of_methods(["dsp"])
