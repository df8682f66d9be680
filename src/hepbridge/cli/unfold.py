"""``hepbridge unfold``: what events were, from what a detector saw of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["unfold"]

unfold = typer.Typer(no_args_is_help=True)

_Units = typer.Option(
    "--unit", metavar="COLUMN=UNIT", help="Unit of a column in a file that does not say; repeat."
)
_Weights = typer.Option(help="Column of event weights, in files that do not say.")
_Prefixes = typer.Option(
    metavar="P,D",
    help="How columns of particle and detector level begin, if both are in one table: gen_,reco_.",
)
_Tables = typer.Option(metavar="P,D", help="Names of the tables of particle and detector level.")
_Seed = typer.Option(help="Seed of all randomness.")
_Overwrite = typer.Option("--overwrite", help="Replace the output if it exists.")


@unfold.command()
def train(
    ctx: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="sbunfold, cinn, fpcd: truths of single events; omnifold: weights of simulated ones.",
        ),
    ],
    response: Annotated[
        Path, typer.Option(metavar="FILE", help="Simulated events at both levels.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Model file (.safetensors).")
    ],
    response_detector: Annotated[
        Path | None,
        typer.Option(
            "--response-detector", metavar="FILE", help="Their detector level, if in another file."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measured events: for omnifold, and for iterations."),
    ] = None,
    background: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Background in the data, weighted as many as expected."),
    ] = None,
    observables: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", help="Columns to unfold (default: all of both levels)."),
    ] = None,
    further: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", help="Columns of the detector that help, not unfolded."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Model to start from: only its iterations are done anew.",
        ),
    ] = None,
    bootstrap: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="K",
            help="Train on replica K of the data, weighted with Poisson numbers.",
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(min=0, help="Of OmniFold: how often the simulated spectrum is improved."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML file that changes the recipe.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one entry of the recipe; repeat."),
    ] = None,
    units: Annotated[list[str] | None, _Units] = None,
    weights: Annotated[str | None, _Weights] = None,
    prefixes: Annotated[str | None, _Prefixes] = None,
    tables: Annotated[str, _Tables] = "particle,detector",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "cpu",
    seed: Annotated[int, _Seed] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted training of this output.")
    ] = False,
    overwrite: Annotated[bool, _Overwrite] = False,
) -> None:
    """Train an unfolding and write one model file."""
    from hepbridge.cli.tables import Reader, names_of
    from hepbridge.systems.unfolding.data import Data
    from hepbridge.systems.unfolding.model_file import load_unfolding
    from hepbridge.systems.unfolding.response import Response
    from hepbridge.systems.unfolding.train import train_unfolding

    reader = Reader.of(units or [], weights, prefixes, tables)
    simulated = Response.from_tables(
        reader.response(response, response_detector), names_of(observables), names_of(further)
    )
    measured = None
    if data is not None:
        measured = Data.from_table(reader.table(data, 1), simulated.observables, str(data))
    if background is not None:
        if measured is None:
            raise typer.BadParameter("a background is one of --data", param_hint="--background")
        taken = Data.from_table(reader.table(background, 1), simulated.observables, str(background))
        measured = measured.less(taken)
    if bootstrap is not None:
        if measured is None:
            raise typer.BadParameter("a replica is one of --data", param_hint="--bootstrap")
        measured = measured.replica(bootstrap, seed)
    changes = list(overrides or [])
    if iterations is not None:
        changes.append(f"iterations={iterations}")
    model = train_unfolding(
        simulated,
        measured,
        recipe=recipe,
        config=config,
        overrides=changes,
        start=None if start is None else load_unfolding(start),
        output=output,
        device=device,
        seed=seed,
        resume=resume,
        overwrite=overwrite,
    )
    found = model.summary["response"]
    ctx.obj.note(
        f"response: {found['pairs']:,} pairs, {found['misses']:,} misses, {found['fakes']:,} fakes "
        f"(efficiency {found['efficiency']:.3f}, purity {found['purity']:.3f})"
    )
    for step in model.summary.get("iterations", []):
        ctx.obj.note(_step(step))
    ctx.obj.result({"output": output, **model.describe()}, f"{output} is a trained unfolding")


def _step(step: dict[str, Any]) -> str:
    """One iteration in words."""
    return (
        f"iteration {step['iteration']}: data against simulation AUC {step['detector_auc']:.4f}, "
        f"reweighted {step['detector_auc_after']:.4f}"
    )


@unfold.command()
def apply(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model of an unfolding.")],
    events: Annotated[
        Path, typer.Argument(metavar="EVENTS", help="Measured events, or simulated ones to weight.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help=".h5, .root, .parquet or .npz."),
    ],
    level: Annotated[
        str | None,
        typer.Option(
            help="detector: truths of measured events; particle: weights of simulated events "
            "(default: what the model is for)."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Truths drawn of each measured event.")] = 1,
    background: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Background, weighted as many as expected."),
    ] = None,
    replicas: Annotated[
        int, typer.Option(min=0, help="Columns of Poisson bootstrap numbers to add.")
    ] = 0,
    units: Annotated[list[str] | None, _Units] = None,
    weights: Annotated[str | None, _Weights] = None,
    prefixes: Annotated[str | None, _Prefixes] = None,
    tables: Annotated[str, _Tables] = "particle,detector",
    seed: Annotated[int, _Seed] = 0,
    overwrite: Annotated[bool, _Overwrite] = False,
) -> None:
    """Unfold measured events, or weight simulated ones."""
    from hepbridge.cli.tables import Reader
    from hepbridge.core.files import check_output
    from hepbridge.data.table_files import write_tables
    from hepbridge.systems.unfolding.apply import reweight
    from hepbridge.systems.unfolding.apply import unfold as run
    from hepbridge.systems.unfolding.model_file import load_unfolding

    check_output(output, overwrite=overwrite)
    trained = load_unfolding(model)
    level = level or ("detector" if trained.unfolder else "particle")
    if level not in ("detector", "particle"):
        raise typer.BadParameter(f"{level!r} is not detector or particle", param_hint="--level")
    reader = Reader.of(units or [], weights, prefixes, tables)
    if level == "particle":
        if background is not None or samples > 1:
            raise typer.BadParameter(
                "--background and --samples are for measured events (--level detector)"
            )
        made = reweight(trained, reader.table(events, 0), seed=seed, replicas=replicas)
    else:
        made = run(
            trained,
            reader.table(events, 1),
            seed=seed,
            samples=samples,
            background=None if background is None else reader.table(background, 1),
            replicas=replicas,
        )
    write_tables({"unfolded": made}, output, overwrite=overwrite)
    total = float(made.weights.sum()) if made.weights is not None else float(len(made))
    ctx.obj.result(
        {"output": output, "events": len(made), "sum_of_weights": total},
        f"{output}: {len(made):,} events, weights add up to {total:,.1f}",
    )


@unfold.command()
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
    units: Annotated[list[str] | None, _Units] = None,
    weights: Annotated[str | None, _Weights] = None,
    prefixes: Annotated[str | None, _Prefixes] = None,
    tables: Annotated[str, _Tables] = "particle,detector",
    seed: Annotated[int, _Seed] = 0,
    overwrite: Annotated[bool, _Overwrite] = False,
) -> None:
    """Compare unfolded events with a truth that is known, and write a report."""
    from rich.console import Group

    from hepbridge.cli.tables import Reader, mapping_of, names_of
    from hepbridge.deploy.unfolding import Samples, write_comparison
    from hepbridge.report.protocol import as_table
    from hepbridge.report.unfolding import unfolding_tables

    reader = Reader.of(units or [], weights, prefixes, tables)
    files = mapping_of(unfolded, "NAME=FILE")
    path, record = write_comparison(
        Samples(
            truth=reader.table(truth, 0),
            unfolded={name: reader.table(Path(file), 1) for name, file in files.items()},
            response=None if prior is None else reader.response(prior, None),
            data=None if data is None else reader.table(data, 1),
            second=None if second is None else reader.table(second, 0),
        ),
        output,
        observables=names_of(observables),
        seed=seed,
        overwrite=overwrite,
    )
    shown = Group(*(as_table(numbers) for numbers in unfolding_tables(record)))
    ctx.obj.result({"report": path, **record}, shown)
    ctx.obj.note(f"wrote {path}")


@unfold.command(name="bin")
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
            "bootstrap of the unfolded events, the model kept.",
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
    seed: Annotated[int, _Seed] = 0,
    overwrite: Annotated[bool, _Overwrite] = False,
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
