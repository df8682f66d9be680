"""What the README shows works as shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hepbridge.cli.app import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(compile(code, "README.md", "exec"), {})  # our own page
    assert "'observable': 'e_ratio'" in capsys.readouterr().out


def test_every_command_and_option_shown_exists() -> None:
    """Each `hepbridge` line of the console blocks, with its options, against --help."""
    blocks = "\n".join(re.findall(r"```console\n(.*?)```", TEXT, re.S)).replace("\\\n", " ")
    lines = [shlex.split(line) for line in blocks.splitlines() if line.startswith("hepbridge ")]
    assert len(lines) >= 4
    for words in lines:
        command = words[1:3] if words[1] in ("simulate", "unfold") else words[1:2]
        shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0
        for word in words:
            if word.startswith("-"):
                assert word in shown.output, f"{word} of {' '.join(words)}"


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
