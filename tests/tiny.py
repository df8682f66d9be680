"""The smallest default refiner: for tests of everything but its quality."""

from __future__ import annotations

_THEN = "model.options.teacher_options.then"
_FIRST = "model.options.teacher_options.first"

# overrides of recipe squirels: networks of 16 columns, one block each
TINY = [
    "model.match_marginals=false",
    *(f"model.options.{word}" for word in ("width=16", "depth=1", "images=1", "batch_size=64")),
    *(f"{_FIRST}.{word}" for word in ("width=16", "depth=1", "steps=1", "windows=1")),
    *(f"{_THEN}.{word}" for word in ("width=16", "depth=1", "steps=1", "windows=1")),
]
