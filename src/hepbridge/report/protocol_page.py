"""Writing the report of a protocol: page, numbers and figures, all of it or nothing."""

from __future__ import annotations

from pathlib import Path

from hepbridge.report.jinja import image, render, versions
from hepbridge.report.protocol import Record, numbers, places
from hepbridge.report.protocol_figures import protocol_plates
from hepbridge.report.style import roles, styles
from hepbridge.report.writer import written

__all__ = ["write_protocol"]

_LISTED = {"ref": "ref (full simulation)", "ref2": "ref2 (second full simulation)"}


def write_protocol(record: Record, out_dir: str | Path, *, overwrite: bool = False) -> Path:
    """Write ``report.html``, ``metrics.json`` and ``figures/`` into a new folder.

    ``record`` is what a protocol returned, with ``sampling_fraction``, ``command``, ``created`` and
    ``hepbridge`` (version). Returns the path of the page. Raises OutputError as `check_directory`.
    """
    names = list(record["candidates"])
    look = styles(names, *roles(names))
    with written(out_dir, record, overwrite=overwrite) as report:
        plates = [(plate, report.save(plate)) for plate in protocol_plates(record, look)]
        report.page(
            render(
                "protocol.html.j2",
                {},
                record=record,
                names=names,
                tables=[
                    (
                        name,
                        numbers(record, name),
                        places(record, name) if found["ranking"] else None,
                    )
                    for name, found in record["candidates"].items()
                ],
                figures=[(plate, png and image(png)) for plate, png in plates],
                listed=_LISTED,
                versions=versions(record["hepbridge"]),
            )
        )
    return report.path
