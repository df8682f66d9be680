"""Programs of examples/cpp, compiled against the library in the wheel of ONNX Runtime, and run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["CPP", "compiled", "run"]

CPP = Path(__file__).parents[1] / "examples" / "cpp"


def compiled(source: Path, folder: Path) -> Path:
    """A program with the host, against the library in the wheel of ONNX Runtime."""
    ort = pytest.importorskip("onnxruntime")
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")  # not everybody who tests has a compiler; CI has one
    libraries = list((Path(ort.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        # wheels of other systems call it otherwise
        pytest.skip("the installed onnxruntime has no libonnxruntime.so")
    library = folder / "libonnxruntime.so.1"  # the name that the linker writes down
    library.symlink_to(libraries[0])
    command = [
        compiler,
        "-std=c++17",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        f"-I{CPP}",
    ]
    done = subprocess.run(
        [*command, str(source), str(library), f"-Wl,-rpath,{folder}", "-o", "program"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "program"


def run(program: Path, *words: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(program), *map(str, words)], capture_output=True, text=True, check=False, env=env
    )
