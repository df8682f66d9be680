"""hepbridge: learned maps between distributions of particle-physics data.

>>> import hepbridge as hb
>>> fast, full = hb.load("fast.h5"), hb.load("full.h5")  # doctest: +SKIP
>>> model = hb.train(fast, full)  # doctest: +SKIP
>>> refined = model.refine(fast)  # doctest: +SKIP
>>> evaluation = hb.evaluate(full, {"refined": refined})  # doctest: +SKIP

Names are imported when they are first used: ``import hepbridge`` alone does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hepbridge.core.errors import HepbridgeError
    from hepbridge.data.geometry import Geometry
    from hepbridge.data.io import load, save
    from hepbridge.data.showers import Showers
    from hepbridge.deploy.generation import generate_file
    from hepbridge.deploy.onnx.export import export_onnx
    from hepbridge.deploy.onnx.refiner import OnnxRefiner
    from hepbridge.deploy.refine import refine_file
    from hepbridge.metrics import evaluate
    from hepbridge.report import write as write_report
    from hepbridge.systems.generation.model_file import load_generator
    from hepbridge.systems.generation.train import train_generator
    from hepbridge.systems.model_file import load as load_model
    from hepbridge.systems.train import train

__version__ = "0.1.0"

__all__ = [
    "Geometry",
    "HepbridgeError",
    "OnnxRefiner",
    "Showers",
    "__version__",
    "evaluate",
    "export_onnx",
    "generate_file",
    "load",
    "load_generator",
    "load_model",
    "refine_file",
    "save",
    "train",
    "train_generator",
    "write_report",
]

_HOMES = {
    "Geometry": "hepbridge.data.geometry:Geometry",
    "HepbridgeError": "hepbridge.core.errors:HepbridgeError",
    "OnnxRefiner": "hepbridge.deploy.onnx.refiner:OnnxRefiner",
    "Showers": "hepbridge.data.showers:Showers",
    "evaluate": "hepbridge.metrics:evaluate",
    "export_onnx": "hepbridge.deploy.onnx.export:export_onnx",
    "generate_file": "hepbridge.deploy.generation:generate_file",
    "load": "hepbridge.data.io:load",
    "load_generator": "hepbridge.systems.generation.model_file:load_generator",
    "load_model": "hepbridge.systems.model_file:load",
    "refine_file": "hepbridge.deploy.refine:refine_file",
    "save": "hepbridge.data.io:save",
    "train": "hepbridge.systems.train:train",
    "train_generator": "hepbridge.systems.generation.train:train_generator",
    "write_report": "hepbridge.report:write",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hepbridge' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__]
