"""``hepbridge generate``: showers from noise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["generate"]


def generate(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="A generator's model file (.safetensors).")],
    energies: Annotated[
        str,
        typer.Option(
            metavar="SPEC", help="GeV: fixed:35, uniform:10-100, log:1-1000 or file:E.h5."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="HDF5 file of showers to write.")
    ],
    n: Annotated[
        int | None, typer.Option("--n", help="Showers (default: all of the file of energies).")
    ] = None,
    particle: Annotated[
        str | None,
        typer.Option(help="e-, gamma, …; several with commas (default: those of the training)."),
    ] = None,
    theta: Annotated[
        str, typer.Option(metavar="SPEC", help="Polar angle: fixed:A or uniform:A-B (degrees).")
    ] = "fixed:0",
    phi: Annotated[
        str, typer.Option(metavar="SPEC", help="Azimuth: fixed:A or uniform:A-B (degrees).")
    ] = "uniform:0-360",
    impact: Annotated[
        str, typer.Option(help="axis, cell (uniform over one) or X,Y (mm) on the front face.")
    ] = "axis",
    seed: Annotated[int, typer.Option(help="Seed of the noise, and of the beam.")] = 0,
    beam_seed: Annotated[
        int | None,
        typer.Option(
            "--beam-seed",
            help="Seed of the beam, if another: that of a simulation to compare with.",
        ),
    ] = None,
    chunk: Annotated[
        int | None, typer.Option(min=1, help="Showers in one piece of work; changes no bit.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes (default: all cores allowed, or one with a GPU); their number changes "
            "no bit.",
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(help="Who runs the pieces: local, or through Dask dask, slurm, htcondor."),
    ] = "local",
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only part I (from 0) of N of the work.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse particles outside the trained range.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it exists.")
    ] = False,
) -> None:
    """Generate showers from noise with a trained generator."""
    from hepbridge.deploy.bulk import parse_shard
    from hepbridge.deploy.generation import generate_file

    done = generate_file(
        model,
        energies,
        n,
        output,
        particle=particle,
        theta=theta,
        phi=phi,
        impact=impact,
        seed=seed,
        beam_seed=beam_seed,
        chunk=chunk,
        workers=workers,
        executor=executor,
        shard=parse_shard(shard),
        strict=strict,
        device=device,
        overwrite=overwrite,
    )
    words = {
        "made": f"wrote {output}",
        "complete": f"{output} is unchanged",
        "left": f"{output} waits for other shards",
    }
    ctx.obj.result({"output": output, "made": done == "made", "left": done == "left"}, words[done])
