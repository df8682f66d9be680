"""Writing a report: all of it or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import matplotlib

from hepbridge.core.errors import ConfigError, OutputError
from hepbridge.core.files import replaced_folder
from hepbridge.data.points import PointShowers
from hepbridge.data.showers import Showers
from hepbridge.metrics.kinds import prepared
from hepbridge.metrics.shapes.shapes import THRESHOLD_MEV, Shapes
from hepbridge.report.console import as_record
from hepbridge.report.failures import failure_plates
from hepbridge.report.figures import draw_all
from hepbridge.report.html import page
from hepbridge.report.learning_curves import learning_curves
from hepbridge.report.plate import Plate
from hepbridge.report.samples import Samples, drawn_sets
from hepbridge.report.shape_figures import draw_shapes
from hepbridge.report.style import RC, roles, styles

__all__ = ["Report", "check_directory", "write", "written"]

_CONTENT = {"report.html", "metrics.json", "figures"}


def write(
    evaluation: Any,
    ref: Showers | PointShowers | Shapes,
    candidates: Mapping[str, Showers | PointShowers | Shapes],
    ref2: Showers | PointShowers | Shapes | None,
    out_dir: str | Path,
    *,
    fast: str | None = None,
    refined: str | None = None,
    mixed: Samples | None = None,
    bands: Mapping[str, Sequence[Showers]] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ``report.html``, ``metrics.json`` and ``figures/`` (PNG and PDF) into ``out_dir``.

    ``evaluation`` is what `hepbridge.metrics.evaluate` returned for the same showers, or the
    content of its ``metrics.json``. ``fast`` and ``refined`` name the candidates drawn in red and
    blue (default: see `hepbridge.report.style.roles`). ``mixed`` = (ref, candidates, ref2) adds a
    mixed-energy sample to the figures of fixed energies. ``bands`` gives for a candidate the
    showers of an ensemble of trainings, drawn as a shaded band; both are for one plane of cells.

    Everything is made in a temporary folder beside ``out_dir``, which takes the name at the end.
    Returns the path of the page. Raises OutputError as `check_directory` says, DataError if the
    showers are not those of the evaluation, ConfigError for unknown names.
    """
    record = as_record(evaluation)
    given = {"ref": ref, **({} if ref2 is None else {"ref2": ref2}), **candidates}
    threshold = (record.get("layout") or {}).get("threshold_mev", THRESHOLD_MEV)
    found = prepared(given, threshold_mev=threshold)
    full = found["ref"], {name: found[name] for name in candidates}, found.get("ref2")
    plane = not isinstance(found["ref"], Shapes)
    if not plane and (mixed is not None or bands):
        raise ConfigError("bands and a second sample of figures are for one plane of x-y cells")
    fast, refined = roles(candidates, fast, refined)
    look = styles(candidates, fast, refined)
    sets = drawn_sets(record, full, mixed, bands)
    with written(out_dir, record, overwrite=overwrite) as report:
        drawn = chain(
            (draw_all if plane else draw_shapes)(sets, look, fast, refined),
            learning_curves(record, look, fast),
            failure_plates(record, sets, look, fast, refined),
        )
        plates = [(plate, report.save(plate)) for plate in drawn]
        samples = _by_name(full)
        only_drawn = _by_name(mixed) if mixed is not None else {}
        report.page(page(record, plates, samples, only_drawn, fast=fast, refined=refined))
    return report.path


@dataclass(frozen=True)
class Report:
    """A report in the making: its pieces are written into ``folder``; ``path`` is its page's."""

    folder: Path
    path: Path

    def save(self, plate: Plate) -> bytes | None:
        """The figure as PNG and PDF in ``figures/``; returns the PNG, None without a figure."""
        if plate.figure is None:
            return None
        path = self.folder / "figures" / f"{plate.key}.png"
        plate.figure.savefig(path)
        # without dates, so that the same numbers give the same bytes
        plate.figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
        return path.read_bytes()

    def page(self, text: str) -> None:
        (self.folder / self.path.name).write_text(text, encoding="utf-8")


@contextmanager
def written(
    out_dir: str | Path, record: Mapping[str, Any], *, overwrite: bool = False
) -> Iterator[Report]:
    """A report with ``record`` as its ``metrics.json``, drawn in the style of `RC`.

    It takes its place when the block ends without an error. Raises OutputError as
    `check_directory` says.
    """
    out_dir = check_directory(out_dir, overwrite=overwrite)
    metrics = json.dumps(record, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    with replaced_folder(out_dir, "the report") as folder, matplotlib.rc_context(cast(Any, RC)):
        (folder / "figures").mkdir()
        (folder / "metrics.json").write_text(metrics + "\n", encoding="utf-8")
        yield Report(folder, out_dir / "report.html")


def _by_name(samples: Samples) -> dict[str, Any]:
    ref, candidates, ref2 = samples
    return {"ref": ref, **({} if ref2 is None else {"ref2": ref2}), **candidates}


def check_directory(path: str | Path, *, overwrite: bool = False) -> Path:
    """The absolute path, if a report may be written there; call it before long work.

    Raises OutputError if it is a file, if its parent does not exist, if it holds anything (unless
    ``overwrite``), or if it holds something that is no report (always: a folder is never emptied of
    files that hepbridge did not write).
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; give the name of a folder for the report")
    if not path.parent.is_dir():
        raise OutputError(
            f"cannot write {path}: the folder {path.parent} does not exist; make it first"
        )
    found = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    foreign = sorted(found - _CONTENT)
    if foreign:
        raise OutputError(
            f"{path} holds files that are no part of a report ({', '.join(foreign[:3])}); "
            "choose another folder"
        )
    if found and not overwrite:
        raise OutputError(
            f"{path} holds a report already; choose another folder or pass --overwrite "
            "(overwrite=True in Python)"
        )
    return path
