"""Writing the report of an unfolding: page, numbers and figures, all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from hepbridge.core.errors import DataError
from hepbridge.data.tables import Table
from hepbridge.metrics.unfolding.observables import Observable
from hepbridge.report.jinja import image, render, versions
from hepbridge.report.plate import Plate
from hepbridge.report.protocol import Record
from hepbridge.report.style import styles
from hepbridge.report.unfolding import label_of, losses, unfolding_tables
from hepbridge.report.unfolding_calibration import calibration_plate
from hepbridge.report.unfolding_figures import observable_plate, support_plate
from hepbridge.report.unfolding_matrices import correlation_plate, migration_plate
from hepbridge.report.writer import written

__all__ = ["unfolding_plates", "write_unfolding"]

_LISTED = {"truth": "Truth", "second": "Truth, second sample"}


def write_unfolding(
    record: Record,
    truth: Table,
    candidates: Mapping[str, Table],
    out_dir: str | Path,
    *,
    baselines: Mapping[str, Table] | None = None,
    detector: str | None = None,
    response: tuple[Table, Table] | None = None,
    data: Table | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ``report.html``, ``metrics.json`` and ``figures/`` (PNG and PDF) into a new folder.

    Args:
        record: what `hepbridge.metrics.unfolding.evaluation.evaluate_unfolding` returned for these samples,
            with ``command`` (or None), ``created`` and ``hepbridge`` (version); ``posteriors`` of
            `evaluate_posteriors` and ``support`` of `support` if there are any.
        detector: the baseline that is the data at detector level; drawn in red.
        response: pairs at particle and detector level, row by row, for the migration matrices.
        data: at detector level, for the figure of ``support``, which needs the response too.

    Returns the path of the page. Raises OutputError as `hepbridge.report.writer.check_directory`, DataError
    if the samples are not those of the record.
    """
    _check(record, {"truth": truth, **(baselines or {}), **candidates}, response)
    with written(out_dir, record, overwrite=overwrite) as report:
        plates = unfolding_plates(
            record,
            truth,
            candidates,
            baselines=baselines,
            detector=detector,
            response=response,
            data=data,
        )
        figures = [(plate, report.save(plate)) for plate in plates]
        report.page(
            render(
                "unfolding.html.j2",
                {},
                record=record,
                names=record["candidates"],
                losses=losses(record),
                tables=list(unfolding_tables(record)),
                figures=[(plate, png and image(png)) for plate, png in figures],
                listed=_LISTED,
                label_of=label_of,
                versions=versions(record["hepbridge"]),
            )
        )
    return report.path


def unfolding_plates(
    record: Record,
    truth: Table,
    candidates: Mapping[str, Table],
    *,
    baselines: Mapping[str, Table] | None = None,
    detector: str | None = None,
    response: tuple[Table, Table] | None = None,
    data: Table | None = None,
) -> Iterator[Plate]:
    """The figures in the order of the page, of samples that are those of the record."""
    shown = {**(baselines or {}), **candidates}
    look = styles(shown, detector, list(candidates)[-1])
    observables = [
        Observable(name, d["low"], d["high"], d["unit"], d["divisor"])
        for name, d in record["observables"].items()
    ]
    yield observable_plate(truth, shown, look, observables)
    if record["correlation"] is not None:
        yield correlation_plate(record["correlation"])
    if record.get("posteriors"):
        yield calibration_plate(record["posteriors"])
    if response is not None:
        particle, seen = response
        yield migration_plate(particle, seen, observables)
        if data is not None and record.get("support"):
            yield support_plate(seen, data, record["support"])


def _check(
    record: Record, samples: Mapping[str, Table], response: tuple[Table, Table] | None
) -> None:
    """Raise DataError unless the samples are those of the record, and the response are pairs."""
    for who, table in samples.items():
        listed = record["samples"].get(who)
        if listed is None or listed["n"] != len(table):
            raise DataError(
                f"sample {who!r} has {len(table)} events, the record "
                f"{'none of this name' if listed is None else listed['n']}; draw what was evaluated"
            )
    if response is not None and len(response[0]) != len(response[1]):
        raise DataError(
            f"the response has {len(response[0])} events at particle and {len(response[1])} at detector "
            "level; it needs pairs, row by row"
        )
