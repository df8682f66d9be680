"""``hepbridge simulate zjets``: matched events of an unfolding study."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["zjets"]


class Switch(StrEnum):
    """On or off, as Pythia says it."""

    on = "on"
    off = "off"


def _check(ctx: typer.Context, value: bool) -> None:
    """``--check`` answers at once, whatever else was said."""
    if value:
        from hepbridge.simulate.zjets.generator import CONFIGURATIONS
        from hepbridge.simulate.zjets.produce import versions

        found = versions()
        words = f"Pythia {found['pythia8mc']} and FastJet {found['fastjet']} are installed"
        record = {"versions": found, "configurations": list(CONFIGURATIONS)}
        ctx.obj.result(record, f"{words}\nconfigurations: {', '.join(CONFIGURATIONS)}")
        raise typer.Exit()


def zjets(
    ctx: typer.Context,
    n: Annotated[int, typer.Option("--n", help="Events to generate.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="HDF5 file of tables to write.")
    ],
    config: Annotated[
        str,
        typer.Option(
            help="Configuration of Pythia: monash, a14, a14-var2plus, a14-var2minus, vincia or cp5."
        ),
    ] = "a14",
    mpi: Annotated[Switch, typer.Option(help="Multiparton interactions.")] = Switch.on,
    ecm: Annotated[float, typer.Option(help="Energy of the collision, GeV.")] = 14_000.0,
    pt_hat: Annotated[
        float, typer.Option("--pt-hat", help="Least transverse momentum of the hard process, GeV.")
    ] = 150.0,
    radius: Annotated[float, typer.Option(help="Radius of the anti-kT jets.")] = 0.4,
    jet_pt: Annotated[
        float,
        typer.Option("--jet-pt", help="Least transverse momentum of the leading jet, GeV."),
    ] = 150.0,
    seed: Annotated[int, typer.Option(help="Seed of the events and of the detector.")] = 0,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes (default: all cores allowed); their number changes no bit."
        ),
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Who runs the pieces: local, dask, slurm, htcondor.")
    ] = "local",
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            callback=_check,
            is_eager=True,
            help="Say whether Pythia and FastJet are installed; simulate nothing.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it exists.")
    ] = False,
) -> None:
    """Z + jet events at particle and detector level, for unfolding."""
    from hepbridge.simulate.zjets.generator import Setup
    from hepbridge.simulate.zjets.produce import Selection, produce_zjets

    made = produce_zjets(
        n,
        output,
        setup=Setup(config, mpi is Switch.on, ecm, pt_hat),
        selection=Selection(radius, jet_pt),
        seed=seed,
        workers=workers,
        executor=executor,
        overwrite=overwrite,
    )
    words = f"wrote {output}" if made else f"{output} is unchanged"
    ctx.obj.result({"output": output, "made": made}, words)
