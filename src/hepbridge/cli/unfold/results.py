"""``hepbridge unfold evaluate`` and ``bin``: what came out, compared or binned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hepbridge.cli.unfold.options import (
    DataWeights,
    Overwrite,
    Prefixes,
    Seed,
    Tables,
    Units,
    Weights,
)

__all__ = ["bin_", "evaluate"]


def evaluate(
    ctx: typer.Context,
    unfolded: Annotated[
        list[str], typer.Argument(metavar="NAME=FILE…", help="Outputs of unfold apply.")
    ],
    truth: Annotated[Path, typer.Option(metavar="FILE", help="Events at particle level.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the report.")
    ],
    prior: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The response, as it is before any unfolding."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The measured events that were unfolded.")
    ] = None,
    second: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More truth, independent, for the floor.")
    ] = None,
    observables: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Columns to compare (default: all).")
    ] = None,
    units: Units = None,
    weights: Weights = None,
    data_weights: DataWeights = None,
    prefixes: Prefixes = None,
    tables: Tables = "particle,detector",
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Compare unfolded events with a truth that is known, and write a report."""
    from rich.console import Group

    from hepbridge.cli.tables import Reader, mapping_of, names_of
    from hepbridge.deploy.unfolding import Samples, write_comparison
    from hepbridge.report.protocol import as_table
    from hepbridge.report.unfolding import unfolding_tables

    reader = Reader.of(units or [], weights, data_weights, prefixes, tables)
    files = mapping_of(unfolded, "NAME=FILE")
    samples = Samples(
        truth=reader.table(truth, 0),
        unfolded={name: reader.table(Path(file), 1) for name, file in files.items()},
        response=None if prior is None else reader.response(prior, None),
        data=None if data is None else reader.table(data, 1, measured=True),
        second=None if second is None else reader.table(second, 0),
    )
    reader.check()
    path, record = write_comparison(
        samples,
        output,
        observables=names_of(observables),
        seed=seed,
        overwrite=overwrite,
    )
    shown = Group(*(as_table(numbers) for numbers in unfolding_tables(record)))
    ctx.obj.result({"report": path, **record}, shown)
    ctx.obj.note(f"wrote {path}")


def bin_(
    ctx: typer.Context,
    unfolded: Annotated[Path, typer.Argument(metavar="UNFOLDED", help="Output of unfold apply.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="HEPData submission: a folder, or .tar.gz."
        ),
    ],
    bins: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=EDGES",
            help="mass=0,5,10,20,60 or mass=0:60:30 (30 equal bins); repeat. Default: all unfolded "
            "columns, equal bins.",
        ),
    ] = None,
    kind: Annotated[str, typer.Option(help="normalised, cross-section or events.")] = "normalised",
    luminosity: Annotated[
        float | None, typer.Option(help="Of the data, 1/pb; for a cross-section.")
    ] = None,
    replicas: Annotated[
        list[Path] | None,
        typer.Option(
            "--replica",
            metavar="FILE",
            help="Output for a bootstrap replica of the data (train --bootstrap); repeat. Default: "
            "bootstrap of the unfolded events, the model kept; of weighted simulated events there "
            "is none.",
        ),
    ] = None,
    variations: Annotated[
        list[str] | None,
        typer.Option(
            "--systematic",
            metavar="NAME=FILE[,FILE]",
            help="Output under a variation of the response, or two: up and down; repeat.",
        ),
    ] = None,
    comment: Annotated[
        str, typer.Option(help="Of the submission: what was measured, where.")
    ] = "Unfolded with hepbridge.",
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Binned spectra with covariance, ready for HEPData."""
    from hepbridge.cli.tables import Reader, mapping_of
    from hepbridge.deploy.unfolding import binned

    reader = Reader()
    varied = {
        name: [reader.table(Path(file), 1) for file in files.split(",")]
        for name, files in mapping_of(variations or [], "--systematic").items()
    }
    found = binned(
        reader.table(unfolded, 1),
        output,
        bins=mapping_of(bins or [], "--bins"),
        kind=kind,
        luminosity=luminosity,
        comment=comment,
        replicas=[reader.table(file, 1) for file in replicas or []],
        variations=varied,
        seed=seed,
        overwrite=overwrite,
    )
    words = ", ".join(f"{name} ({n} bins)" for name, n in found.items())
    ctx.obj.result({"output": output, "bins": found}, f"wrote {output}: {words}")
