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


def test_methods_name_existing_entries() -> None:
    assert {k for keys in citations.METHODS.values() for k in keys} <= set(citations.BIBTEX)


def test_every_transport_and_recipe_has_an_entry() -> None:
    """Fails if a method is registered without saying what to cite (an empty tuple is an answer)."""
    from hepbridge.recipes import names
    from hepbridge.transports import TRANSPORTS

    assert set(TRANSPORTS) | set(names()) <= set(citations.METHODS)


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


def test_cite_all() -> None:
    output = run(app, ["cite"]).stdout
    assert all(entry in output for entry in citations.BIBTEX.values())


def test_unknown_method() -> None:
    with pytest.raises(ConfigError, match="no citation for 'dsp'; available: squirels"):
        citations.of_methods(["dsp"])
