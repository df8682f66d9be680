"""Matched samples: the same particles through two engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hepbridge.core.errors import OutputError
from hepbridge.simulate.detector import Detector
from hepbridge.simulate.engines import Engine
from hepbridge.simulate.gun import Gun
from hepbridge.simulate.produce import produce

__all__ = ["names", "produce_pairs"]


def produce_pairs(
    detector: Detector,
    gun: Gun,
    n: int | None,
    output: str | Path,
    *,
    fast: Engine,
    full: Engine,
    fast_options: dict[str, Any] | None = None,
    full_options: dict[str, Any] | None = None,
    **how: Any,
) -> dict[Path, bool]:
    """Simulate a fast and a full file whose rows i are the same particle.

    The rows share event id, incident energy and all conditions; given those, the showers are
    independent draws. Each file is one `produce`, which takes the arguments ``how``.

    Returns:
        The two files (see `names`), and whether each was made (False: it was complete already).
    """
    both = ((fast, dict(fast_options or {})), (full, dict(full_options or {})))
    for engine, options in both:  # both can run, before an hour goes into one of them
        engine.describe(detector, gun.particles, options)
    made: dict[Path, bool] = {}
    for path, (engine, options) in zip(names(output), both, strict=True):
        made[path] = produce(engine, detector, gun, n, path, options=options, **how)
    return made


def names(output: str | Path) -> tuple[Path, Path]:
    """The files of a pair: ``fast.h5`` and ``full.h5`` in a folder, or ``PREFIX_fast.h5``, ….

    ``output`` is a folder if it exists as one or ends with a slash; then it is made.
    """
    path = Path(output)
    if str(output).endswith("/") or path.is_dir():
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {path}: {error.strerror}") from error
        return path / "fast.h5", path / "full.h5"
    if path.suffix.lower() in (".h5", ".hdf5"):
        raise OutputError(
            f"{path}: a pair is two files; give a folder, or a prefix such as {path.with_suffix('')}"
        )
    return path.with_name(f"{path.name}_fast.h5"), path.with_name(f"{path.name}_full.h5")
