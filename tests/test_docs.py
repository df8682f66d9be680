"""The documentation builds, and what it shows is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hepbridge.core import protocols

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]


@pytest.mark.slow
def test_docs_build_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "index.html").exists()


def test_example_of_a_method_fulfils_the_contract() -> None:
    """The transport shown in docs/extending.md learns the shift between two samples."""
    import numpy as np
    import torch

    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(\"\"\"Shift.*?)```", text, re.S)
    assert code is not None
    space: dict[str, object] = {"__name__": "shift"}
    exec(compile(code[1], "docs/extending.md", "exec"), space)  # our own page
    transport = space["Shift"](2, {})  # type: ignore[operator]
    assert isinstance(transport, protocols.Transport)
    rng = np.random.default_rng(0)
    source = torch.from_numpy(rng.normal(size=(4000, 2)).astype("f4"))
    moved = torch.tensor([0.5, -1.0])
    (phase,) = transport.phases(protocols.Pairs(source, source + moved), seed=0)
    optimiser = torch.optim.SGD(phase.module.parameters(), lr=0.05)
    for step in range(phase.steps):
        optimiser.zero_grad()
        phase.loss(phase.module, phase.batch(step, rng)).backward()
        optimiser.step()
    # a batch mean is off by sqrt(2 / 256) = 0.09; averaged over 1 / lr = 20 steps, by 0.02
    x = torch.zeros(1, 2)
    assert (transport.apply(x, {}, x[:, :0]) - moved).abs().max() < 5 * 0.02
    assert torch.equal(transport.inverse(transport.apply(x, {}, x[:, :0]), {}), x)


@pytest.mark.slow
def test_quick_start_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The five lines of docs/quickstart.md run, here with a training of 20 steps."""
    import functools

    import hepbridge as hb
    from hepbridge.data import sample

    monkeypatch.chdir(tmp_path)
    hb.save(sample.load("train_fast")[:1000], "gflash.h5")
    hb.save(sample.load("train_full")[:1000], "geant4.h5")
    short = functools.partial(hb.train, overrides=["training.steps=20"])
    monkeypatch.setattr(hb, "train", short, raising=False)
    monkeypatch.setattr(hb, "evaluate", functools.partial(hb.evaluate, classifiers=()))
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(import hepbridge.*?)```", text, re.S)
    assert code is not None
    space: dict[str, object] = {}
    exec(code[1], space)  # our own page
    evaluation = space["evaluation"]
    assert isinstance(evaluation.to_dict()["sets"], list)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_page_on_python_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script of docs/python.md: arrays in GeV of another geometry, to a report."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    space: dict[str, Any] = {}
    exec(compile(code, "docs/python.md", "exec"), space)  # our own page
    assert space["page"] == (tmp_path / "my-report" / "report.html").resolve()
    rows = {row["observable"]: row["candidates"] for row in space["evaluation"].sets[0]["rows"]}
    assert rows["e_max"]["refined"]["ratio"] < 0.5 * rows["e_max"]["fast"]["ratio"]


def test_pages_name_existing_files() -> None:
    """Fails if a page names a source file or test that is not there (any more)."""
    for page in PAGES:
        for name in re.findall(r"`((?:src|tests|docs)/[\w/.-]+\.\w+)`", page.read_text("utf-8")):
            if name != "src/hepbridge/transports/shift.py":  # the example's own
                assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_both_floor_tables_have_every_room() -> None:
    rooms = {p.parent.name for p in (ROOT / "src" / "hepbridge").glob("*/__init__.py")}
    for page in (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "design.md"):
        text = page.read_text(encoding="utf-8")
        assert not {room for room in rooms if f"`{room}`" not in text}, page


def test_workflow_and_hooks_are_valid_yaml() -> None:
    """They cannot be run here, but they can be read: torch comes from the constraints file."""
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert "not run" in text.splitlines()[0]
    workflow = yaml.safe_load(text)
    job = workflow["jobs"]["test"]
    assert {s.partition("-")[0] for s in job["strategy"]["matrix"]["os"]} == {
        "ubuntu",
        "macos",
        "windows",
    }
    assert any("-c constraints.txt" in step.get("run", "") for step in job["steps"])
    assert yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["type"] == "software"
