"""``hepbridge simulate``: showers from a detector and a beam."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hepbridge.cli.zjets import zjets

if TYPE_CHECKING:
    from hepbridge.simulate.detector import Detector
    from hepbridge.simulate.gun import Gun

__all__ = ["simulate"]

simulate = typer.Typer(no_args_is_help=True)
simulate.command()(zjets)

_Detector = typer.Option(help="Name of a detector (squirels, ild-ecal, …) or a YAML file.")
_N = typer.Option("--n", help="Showers to make (default: all of the file of energies).")
_Energies = typer.Option(
    metavar="SPEC", help="GeV: fixed:35, uniform:10-100, log:1-1000 or file:E.h5."
)
_Particle = typer.Option(
    help="e-, e+ or gamma; several with commas, equally frequent. Geant4 with its hadronic data "
    "sets also mu-, pi+, proton, …"
)
_Theta = typer.Option(metavar="SPEC", help="Polar angle: fixed:A or uniform:A-B (degrees).")
_Phi = typer.Option(metavar="SPEC", help="Azimuth: fixed:A or uniform:A-B (degrees).")
_Impact = typer.Option(help="axis, cell (uniform over one) or X,Y (mm) on the front face.")
_Seed = typer.Option(help="Seed of the showers, and of the beam.")
_BeamSeed = typer.Option(
    "--beam-seed", help="Seed of the beam, if another: the same particles with other showers."
)
_Workers = typer.Option(
    min=1, help="Processes or threads (default: all cores allowed); their number changes no bit."
)
_Chunk = typer.Option(min=1, help="Showers in one piece of work.")
_Overwrite = typer.Option("--overwrite", help="Replace the output if it exists.")
_Output = typer.Option("--output", "-o", metavar="FILE", help="HDF5 file of showers to write.")
_Physics = typer.Option(
    help="FTFP_BERT or another list of Geant4; em: electromagnetic only (default: FTFP_BERT if its "
    "data sets are installed, else em)."
)
_Published = typer.Option(
    "--published",
    help="Critical energy and Molière radius of the publication in crystals, too, where Geant4's "
    "GFLASH has its own. Better for crystals other than lead tungstate.",
)
_Resolution = typer.Option(
    metavar="C",
    help="Sampling fluctuations of GFLASH: σ(E)/E = C / √(E/GeV), e.g. 0.1 (default: Wigmans' "
    "estimate for the detector).",
)
_Cut = typer.Option("--cut-mm", help="Production cut of Geant4, mm (default: 0.7).")


def _check(ctx: typer.Context, value: bool) -> None:
    """``--check`` answers at once, whatever else was said."""
    if value:
        from hepbridge.simulate.geant4 import check

        words = check()
        ctx.obj.result({"check": words}, words)
        raise typer.Exit()


_Check = typer.Option(
    "--check",
    callback=_check,
    is_eager=True,
    help="Say what is installed, which data sets are found and what to do; simulate nothing.",
)


@simulate.command()
def gflash(
    ctx: typer.Context,
    energies: Annotated[str, _Energies],
    output: Annotated[Path, _Output],
    n: Annotated[int | None, _N] = None,
    detector: Annotated[str, _Detector] = "squirels",
    particle: Annotated[str, _Particle] = "e-",
    theta: Annotated[str, _Theta] = "fixed:0",
    phi: Annotated[str, _Phi] = "uniform:0-360",
    impact: Annotated[str, _Impact] = "axis",
    published: Annotated[bool, _Published] = False,
    resolution: Annotated[float | None, _Resolution] = None,
    seed: Annotated[int, _Seed] = 0,
    beam_seed: Annotated[int | None, _BeamSeed] = None,
    workers: Annotated[int | None, _Workers] = None,
    chunk: Annotated[int | None, _Chunk] = None,
    overwrite: Annotated[bool, _Overwrite] = False,
) -> None:
    """Fast simulation: the GFLASH parameterisation."""
    setup = _setup(detector, energies, particle, theta, phi, impact, seed, beam_seed)
    how = {"seed": seed, "workers": workers, "chunk": chunk, "overwrite": overwrite}
    options = _given(published=published or None, resolution=resolution)
    _produce(ctx, "gflash", setup, n, output, options=options, **how)


@simulate.command()
def geant4(
    ctx: typer.Context,
    energies: Annotated[str, _Energies],
    output: Annotated[Path, _Output],
    n: Annotated[int | None, _N] = None,
    detector: Annotated[str, _Detector] = "squirels",
    particle: Annotated[str, _Particle] = "e-",
    theta: Annotated[str, _Theta] = "fixed:0",
    phi: Annotated[str, _Phi] = "uniform:0-360",
    impact: Annotated[str, _Impact] = "axis",
    physics: Annotated[str | None, _Physics] = None,
    cut_mm: Annotated[float | None, _Cut] = None,
    seed: Annotated[int, _Seed] = 0,
    beam_seed: Annotated[int | None, _BeamSeed] = None,
    workers: Annotated[int | None, _Workers] = None,
    chunk: Annotated[int | None, _Chunk] = None,
    check: Annotated[bool, _Check] = False,
    overwrite: Annotated[bool, _Overwrite] = False,
) -> None:
    """Full simulation: Geant4."""
    setup = _setup(detector, energies, particle, theta, phi, impact, seed, beam_seed)
    how = {"seed": seed, "workers": workers, "chunk": chunk, "overwrite": overwrite}
    _produce(ctx, "geant4", setup, n, output, options=_given(physics=physics, cut_mm=cut_mm), **how)


@simulate.command()
def pairs(
    ctx: typer.Context,
    detector: Annotated[str, typer.Argument(help="Name of a detector, or a YAML file.")],
    energies: Annotated[str, _Energies],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER|PREFIX",
            help="Folder of fast.h5 and full.h5, or the prefix of PREFIX_fast.h5 and PREFIX_full.h5.",
        ),
    ],
    n: Annotated[int | None, _N] = None,
    particle: Annotated[str, _Particle] = "e-",
    theta: Annotated[str, _Theta] = "fixed:0",
    phi: Annotated[str, _Phi] = "uniform:0-360",
    impact: Annotated[str, _Impact] = "axis",
    published: Annotated[bool, _Published] = False,
    resolution: Annotated[float | None, _Resolution] = None,
    physics: Annotated[str | None, _Physics] = None,
    cut_mm: Annotated[float | None, _Cut] = None,
    seed: Annotated[int, _Seed] = 0,
    beam_seed: Annotated[int | None, _BeamSeed] = None,
    workers: Annotated[int | None, _Workers] = None,
    chunk: Annotated[int | None, _Chunk] = None,
    executor: Annotated[
        str, typer.Option(help="Who runs the pieces: local, dask, slurm, htcondor.")
    ] = "local",
    overwrite: Annotated[bool, _Overwrite] = False,
) -> None:
    """Matched files of fast and full simulation: the same particles through both."""
    from hepbridge.simulate.engines import ENGINES
    from hepbridge.simulate.pairs import produce_pairs

    described, gun = _setup(detector, energies, particle, theta, phi, impact, seed, beam_seed)
    made = produce_pairs(
        described,
        gun,
        n,
        output,
        fast=ENGINES["gflash"],
        full=ENGINES["geant4"],
        fast_options=_given(published=published or None, resolution=resolution),
        full_options=_given(physics=physics, cut_mm=cut_mm),
        seed=seed,
        workers=workers,
        chunk=chunk,
        executor=executor,
        overwrite=overwrite,
    )
    _answer(ctx, made)


def _setup(
    detector: str,
    energies: str,
    particle: str,
    theta: str,
    phi: str,
    impact: str,
    seed: int,
    beam_seed: int | None,
) -> tuple[Detector, Gun]:
    """The detector and the gun."""
    from hepbridge.simulate.detector import load_detector
    from hepbridge.simulate.gun import Gun

    described = load_detector(detector)
    gun = Gun.of(
        described,
        energies,
        particle=particle,
        theta=theta,
        phi=phi,
        impact=impact,
        seed=seed if beam_seed is None else beam_seed,
    )
    return described, gun


def _produce(
    ctx: typer.Context,
    engine: str,
    setup: tuple[Detector, Gun],
    n: int | None,
    output: Path,
    **how: Any,
) -> None:
    """Simulate into a file with one engine, and say so."""
    from hepbridge.simulate.engines import ENGINES
    from hepbridge.simulate.produce import produce

    _answer(ctx, {output: produce(ENGINES[engine], *setup, n, output, **how)})


def _given(**options: Any) -> dict[str, Any]:
    """The options that were said; the others keep the default of the engine."""
    return {name: value for name, value in options.items() if value is not None}


def _answer(ctx: typer.Context, made: dict[Path, bool]) -> None:
    words = [f"wrote {path}" if new else f"{path} is unchanged" for path, new in made.items()]
    files = [{"output": path, "made": new} for path, new in made.items()]
    ctx.obj.result(files[0] if len(files) == 1 else {"files": files}, "\n".join(words))
