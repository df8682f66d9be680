"""Does another version of ONNX Runtime compute what torch does, from the file of a target?

    python3.9 -m venv old && old/bin/pip install onnxruntime==1.8.1 'numpy<1.24' 'protobuf<3.21'
    python tools/old_runtimes.py old/bin/python --target ort-1.8

The other Python needs ONNX Runtime and NumPy, not hepbridge.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from hepbridge.deploy.onnx.check import by_torch, trial
from hepbridge.deploy.onnx.export import export_onnx
from hepbridge.deploy.onnx.targets import TARGETS
from hepbridge.systems.model_file import load

RUN = """
import sys, numpy, onnxruntime
inputs = dict(numpy.load(sys.argv[2]))
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
numpy.save(sys.argv[3], session.run(["refined"], inputs)[0])
print("ONNX Runtime", onnxruntime.__version__)
"""


def compare(python: str, model: str, target: str, folder: Path) -> str:
    """One line: the largest difference of a cell over the energy of its shower."""
    loaded, file = load(model), folder / "m.onnx"
    contract, _ = export_onnx(loaded, file, target=target, overwrite=True)
    inputs = trial(loaded, contract, TARGETS[target].rows or 1000, seed=3)
    np.savez(folder / "in.npz", **inputs)
    words = [python, "-c", RUN, str(file), str(folder / "in.npz"), str(folder / "out.npy")]
    said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    ours, theirs = by_torch(loaded, 0, inputs), np.load(folder / "out.npy")
    usual = (inputs["cells"] > 0).sum(axis=1) > 1  # far tails of the others may round to anything
    apart = np.abs(theirs - ours)[usual] / ours[usual].sum(axis=1, keepdims=True)
    return f"{said}, {model} for {target}: cells within {apart.max():.1e} of the shower's energy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", help="an interpreter that has the other ONNX Runtime")
    parser.add_argument("--target", choices=TARGETS, default="ort-1.16")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for model in ("squirels", "squirels-small"):
            print(compare(given.python, model, given.target, Path(folder)))


if __name__ == "__main__":
    main()
