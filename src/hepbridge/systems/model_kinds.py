"""The kinds of model files, and which command each one goes with."""

from __future__ import annotations

__all__ = ["GENERATOR", "KINDS", "REFINER", "UNFOLDING"]

REFINER, UNFOLDING, GENERATOR = "hepbridge", "hepbridge-unfolding", "hepbridge-generator"

KINDS = {
    REFINER: "a refiner, which takes fast showers: hepbridge refine (hepbridge.load_model in Python)",
    UNFOLDING: "a model of an unfolding, which takes measured events: hepbridge unfold apply",
    GENERATOR: "a generator, which makes showers from noise: hepbridge generate "
    "(hepbridge.load_generator in Python)",
}
"""By the key of a file's metadata: what such a file is, and what to do with it."""
