"""``hepbridge evaluate --protocol``: a published evaluation, of files that are read in blocks."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hepbridge.cli.session import Session

__all__ = ["by_protocol"]


def by_protocol(
    session: Session,
    name: str,
    files: Mapping[str, Sequence[Path]],
    output: Path,
    options: Mapping[str, Any],
    *,
    classifiers: Sequence[str],
    runs: int,
    seed: int,
    overwrite: bool,
) -> None:
    """Evaluate ``files`` ("ref", maybe "ref2", candidates) and write the report to ``output``."""
    from rich.console import Group

    from hepbridge import __version__
    from hepbridge.metrics.protocols import PROTOCOLS
    from hepbridge.metrics.protocols.base import EvaluationProtocol, Source
    from hepbridge.metrics.sets import check_names
    from hepbridge.report import check_directory
    from hepbridge.report.protocol import protocol_tables
    from hepbridge.report.protocol_page import write_protocol

    own = {k: v for k, v in options.items() if k != "sampling_fraction" and v is not None}
    protocol: EvaluationProtocol = PROTOCOLS[name](**own)
    check_directory(output, overwrite=overwrite)  # before the slow part
    fraction = options["sampling_fraction"]
    sources = {
        key: Source.of_files(key, paths, protocol.geometry, sampling_fraction=fraction)
        for key, paths in files.items()
    }
    ref, ref2 = sources.pop("ref"), sources.pop("ref2", None)
    check_names(sources)
    record = {
        **protocol.evaluate(ref, sources, ref2, classifiers=classifiers, runs=runs, seed=seed),
        "sampling_fraction": fraction,
        "format_version": 1,
        "command": shlex.join(["hepbridge", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "hepbridge": __version__,
    }
    path = write_protocol(record, output, overwrite=overwrite)
    session.result({"report": path, **record}, Group(*protocol_tables(record)))
    session.note(f"wrote {path}")
