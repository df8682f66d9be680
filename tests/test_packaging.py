"""What is installed: requirements, and a wheel that works in an empty environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import hepbridge

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ;]", requirement)[0].lower().replace("_", "-")


def test_requirements_are_lower_bounds() -> None:
    extras = PROJECT["optional-dependencies"]
    for requirement in [
        *PROJECT["dependencies"],
        *extras["root"],
        *extras["parquet"],
        *extras["tensorboard"],
        *extras["onnx"],
        *extras["gflash"],
        *extras["geant4"],
        *extras["dask"],
    ]:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+>=[0-9.]+", requirement), requirement


def test_constraints_pin_every_direct_requirement() -> None:
    """Fails if a requirement is added without the version it was tested with."""
    lines = [line for line in CONSTRAINTS.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line) for line in lines)
    direct = {_name(r) for r in PROJECT["dependencies"]}
    direct |= {_name(r) for extra in PROJECT["optional-dependencies"].values() for r in extra}
    assert {_name(line) for line in lines} == direct - {"hepbridge"}
    assert "torch==2.13.0" in lines


def test_both_make_targets_use_the_constraints() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert len(re.findall(r"pip install -c constraints\.txt -e ", makefile)) == 2
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK) or os.name == "nt"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_wheel_holds_all_files(wheel: Path) -> None:
    """Fails if a recipe, a template or the sample is left out, or something foreign gets in."""
    with zipfile.ZipFile(wheel) as archive:
        inside = {n for n in archive.namelist() if n.startswith("hepbridge/")}
        size = sum(i.compress_size for i in archive.infolist())
    package = Path(hepbridge.__file__).parent
    here = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == here
    assert {Path(n).suffix for n in inside} <= {
        ".py", ".typed", ".yaml", ".html", ".css", ".j2", ".h5", ".json", ".md", ".safetensors",
        ".svg",
    }  # fmt: skip
    assert size < 15e6


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """An environment with nothing but pip: install the wheel, use it away from the checkout."""
    venv.create(tmp_path / "env", with_pip=True)
    scripts = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HEPBRIDGE"))}

    def run(*command: str) -> str:
        done = subprocess.run(
            [str(scripts / command[0]), *command[1:]],
            cwd=tmp_path,
            env={**clean, "MPLBACKEND": "Agg"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("python", "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel))
    assert run("hepbridge", "--version") == f"hepbridge {hepbridge.__version__}\n"
    run(
        "python",
        "-W",
        "error",
        "-c",
        "import hepbridge as hb\n"
        "from hepbridge.data import sample\n"
        "from hepbridge.recipes import names\n"
        "from importlib.resources import files\n"
        "assert 'env' in hb.__file__, hb.__file__\n"
        "assert {'squirels', 'squirels-paper'} <= set(names())\n"
        "assert list((files('hepbridge') / 'report' / 'templates').iterdir())\n"
        "hb.save(sample.load('full', 20)[:50], 'showers.h5')\n",
    )
    record = json.loads(run("hepbridge", "info", "showers.h5", "--json"))
    assert record["showers"] == 50
    assert record["incident_energy_gev"]["values"] == [20.0]
    assert "10×10" in run("hepbridge", "info", "showers.h5")
