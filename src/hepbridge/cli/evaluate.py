"""``hepbridge evaluate``: how close candidates are to full simulation."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["evaluate"]


def evaluate(
    ctx: typer.Context,
    ref: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Full simulation (repeat to join files).")
    ],
    cand: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=FILE", help="A candidate (repeat; files of one name are joined)."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the report.")
    ],
    ref2: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="A second, independent full simulation: the statistical floor."
        ),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Also the conventions of the SQuIRELS paper's Table I.")
    ] = False,
    classifier: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Of the classifier test: trees (default) or mlp; with --protocol calochallenge "
            "low, low-normed or high, none by default (repeatable).",
        ),
    ] = None,
    no_classifier: Annotated[
        bool, typer.Option("--no-classifier", help="Without the classifier test, the slow part.")
    ] = False,
    band: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="What another member of NAME's ensemble made: drawn as a band (repeatable).",
        ),
    ] = None,
    train: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Full simulation that the candidates were trained on: looks for memorised showers.",
        ),
    ] = None,
    goal: Annotated[
        float | None,
        typer.Option(
            metavar="SIGMAS", help="Excess for which the advice counts showers (default 0.03)."
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Evaluate as a published protocol does: calochallenge."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Protocol: its data set: 1-photons, 1-pions, 2 or 3."),
    ] = None,
    binning: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Protocol: cells of your own, as a binning file (XML)."),
    ] = None,
    particle: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose cells, if the binning file has several."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="MEV",
            help="Layers and points: a hit is a cell above (default 0.1). Protocol: cells below count "
            "as empty (binning file).",
        ),
    ] = None,
    geometry: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Where the cells are, if the files do not say: a detector, a binning file (XML), or "
            "cell positions (HDF5).",
        ),
    ] = None,
    sampling_fraction: Annotated[
        float | None,
        typer.Option(
            metavar="F", help="Protocol: cells hold visible energies; divide them by this."
        ),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(min=1, help="Protocol: trainings of each classifier test (default 10)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of bootstraps, splits and classifiers.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the report if it exists.")
    ] = False,
) -> None:
    """Compare candidates with full simulation; write report.html, metrics.json and the figures."""
    from rich.console import Group

    from hepbridge.cli import samples
    from hepbridge.cli.protocol import by_protocol
    from hepbridge.core.errors import ConfigError
    from hepbridge.metrics import evaluate as run
    from hepbridge.metrics.advice import GOAL
    from hepbridge.metrics.shapes.shapes import THRESHOLD_MEV, Shapes
    from hepbridge.metrics.shapes.sources import read_samples
    from hepbridge.report import check_directory, classifier_table, summary, table, write

    options = {
        "dataset": dataset,
        "binning": binning,
        "particle": particle,
        "threshold": threshold,
        "sampling_fraction": sampling_fraction,
    }
    only = {**options, "runs": runs}
    given = [f"--{name.replace('_', '-')}" for name, value in only.items() if value is not None]
    if protocol is not None:
        if paper or band or train or goal is not None or geometry is not None:
            raise ConfigError(
                "--paper, --band, --train, --goal and --geometry have no meaning with --protocol; "
                "leave them out"
            )
        files = {"ref": ref, **({"ref2": ref2} if ref2 else {}), **samples.by_name(cand)}
        by_protocol(
            ctx.obj,
            protocol,
            files,
            output,
            options,
            classifiers=() if no_classifier else tuple(dict.fromkeys(classifier or ())),
            runs=10 if runs is None else runs,
            seed=seed,
            overwrite=overwrite,
        )
        return
    shared = ("--threshold", *(["--particle"] if geometry is not None else []))
    given = [name for name in given if name not in shared]
    if given:
        raise ConfigError(f"{', '.join(given)}: only with --protocol calochallenge")
    if no_classifier and classifier:
        raise ConfigError("--classifier and --no-classifier exclude each other; leave one out")
    files = {"ref": ref, **({"ref2": ref2} if ref2 else {}), **samples.by_name(cand)}
    check_directory(output, overwrite=overwrite)  # before the slow part
    above = THRESHOLD_MEV if threshold is None else threshold
    cells = samples.cells_of(geometry, particle)
    wanted = {**files, **({"--train": train} if train else {})}
    candidates = read_samples(wanted, cells, threshold_mev=above)
    taught = candidates.pop("--train", None)
    reference, second = candidates.pop("ref"), candidates.pop("ref2", None)
    layered = isinstance(reference, Shapes)
    if layered and (band or paper):
        raise ConfigError("--band and --paper are for calorimeters of one plane of x-y cells")
    if not layered and threshold is not None:
        raise ConfigError(
            "--threshold is for calorimeters with layers, for points, and for --protocol; the "
            "observables of one plane of x-y cells have thresholds of their own"
        )
    ensembles = samples.by_name(band or [])
    if unknown := ensembles.keys() - candidates.keys():
        raise ConfigError(
            f"--band {', '.join(sorted(unknown))}: no such candidate; there is {', '.join(candidates)}"
        )
    bands = {
        name: [candidates[name], *(samples.joined([path]) for path in paths)]
        for name, paths in ensembles.items()
    }
    evaluation = run(
        reference,
        candidates,
        second,
        seed=seed,
        classifiers=() if no_classifier else tuple(dict.fromkeys(classifier or ["trees"])),
        paper=paper,
        train=taught,
        threshold_mev=above,
        goal=GOAL if goal is None else goal,
        paths={name: " ".join(str(path) for path in paths) for name, paths in wanted.items()},
        command=shlex.join(["hepbridge", *sys.argv[1:]]),
    )
    page = write(
        evaluation, reference, candidates, second, output, bands=bands, overwrite=overwrite
    )
    tables = [found for found in (table(evaluation), classifier_table(evaluation)) if found]
    ctx.obj.result({"report": page, **evaluation.to_dict()}, Group(*tables))
    ctx.obj.note(summary(evaluation.to_dict()))
    ctx.obj.note(f"wrote {page}")
