"""``hepbridge refine``: fast showers in, refined showers out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["refine"]


def refine(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="A model file (its name holds a / or ends in .safetensors), or the name of a model "
            "that comes with hepbridge: squirels, squirels-small."
        ),
    ],
    fast: Annotated[
        list[str], typer.Argument(help="Files of fast showers, or quoted patterns: 'in/*.h5'.")
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER/",
            help="File of showers to write; a folder (it exists, or ends with /) for several inputs.",
        ),
    ],
    seed: Annotated[int, typer.Option(help="Seed of the noise; each event has its own.")] = 0,
    member: Annotated[int, typer.Option(min=0, help="Which member of an ensemble.")] = 0,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Showers at a time (default 4096); changes no output bit."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes or jobs; their number changes no output bit.")
    ] = 1,
    executor: Annotated[
        str,
        typer.Option(help="Who runs the pieces: local, or through Dask dask, slurm, htcondor."),
    ] = "local",
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only part I (from 0) of N of the work."),
    ] = None,
    submit: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Run nothing: write scripts for an array of --workers jobs (slurm, htcondor).",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Read the outputs again: rows, checksums, events of the input."
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse showers outside the trained range.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it exists.")
    ] = False,
) -> None:
    """Refine files of fast showers with a trained model."""
    from hepbridge.deploy.bulk import named_outputs, parse_shard

    files, part = named_outputs(fast, output), parse_shard(shard)
    if submit is not None:
        _submit(ctx, submit, executor, model, files, shards=workers)
        return
    from hepbridge.deploy.contents import verify_files
    from hepbridge.deploy.refine import refine_files
    from hepbridge.deploy.refine_job import Options

    chosen = {} if batch is None else {"batch": batch}
    options = Options(
        seed=seed, member=member, strict=strict, overwrite=overwrite, device=device, **chosen
    )
    done = refine_files(
        model, files, options, workers=workers, executor=executor, shard=part, collect=verify
    )
    there = {*done.made, *done.complete, *done.refused}
    record: dict[str, Any] = {"output": output, "made": bool(done.made)}
    words = f"wrote {output}" if done.made else f"{output} is unchanged"
    if list(files.values()) != [Path(output)] or done.left:
        record = {"output": output, "made": done.made, "complete": done.complete, "left": done.left}
        words = (
            f"{output}: {len(done.made)} files written, {len(done.complete)} unchanged, "
            f"{len(done.left)} wait for other shards"
        )
    if verify:
        names = {fast: out.absolute() for fast, out in files.items()}
        known = {fast: out for fast, out in names.items() if out in there}
        checked = verify_files(known, done.refused)
        record["verified_rows"] = sum(found["rows"] for found in checked)
        words += f"; {record['verified_rows']} rows in {len(checked)} files verified"
    ctx.obj.result(record, words)


def _submit(
    ctx: typer.Context,
    folder: Path,
    system: str,
    model: str,
    files: dict[Path, Path],
    *,
    shards: int,
) -> None:
    """Scripts that repeat this command, shard by shard, from any folder."""
    from hepbridge.core.errors import ConfigError
    from hepbridge.deploy.submission import write_scripts
    from hepbridge.systems.model_file import locate

    given = ctx.params
    if given["overwrite"] or given["shard"]:
        raise ConfigError("--submit makes shards, which go with neither --overwrite nor --shard")
    several = list(files.values()) != [Path(given["output"])]
    output = str(Path(given["output"]).absolute()) + ("/" if several else "")
    options = ["--output", output, "--seed", str(given["seed"]), "--member", str(given["member"])]
    options += ["--device", given["device"], *(["--strict"] if given["strict"] else [])]
    if given["batch"] is not None:
        options += ["--batch", str(given["batch"])]
    there = (folder / "submit.sh").exists()
    script = write_scripts(
        folder, system, str(locate(model).absolute()), files, options, shards=shards
    )
    words = f"wrote {script}: run it to submit {shards} shards"
    if there:
        words = (
            f"{script} is of this request and unchanged: run it again to submit all {shards} shards; "
            "what is complete is kept, and only what is missing is computed"
        )
    ctx.obj.result({"output": script, "made": not there}, words)
