"""``hepbridge detectors``: the detectors that can be simulated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hepbridge.simulate.detector import Detector

__all__ = ["detectors"]


def detectors(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="A detector of the list, or the path of a YAML file.")
    ] = None,
    binning: Annotated[
        Path | None,
        typer.Option(help="Write the voxels as a binning file of the CaloChallenge (XML)."),
    ] = None,
    particle: Annotated[str, typer.Option(help="Particle named in the binning file.")] = "electron",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the binning file if it exists.")
    ] = False,
) -> None:
    """List the detectors, or describe one: check a detector file of your own with this."""
    from hepbridge.data.binning_xml import write_binning
    from hepbridge.simulate import detector as room

    if name is None:
        if binning is not None:
            raise typer.BadParameter("--binning needs the name of a detector")
        found = [room.load_detector(n) for n in room.detectors()]
        lines = [f"{d.name:<18}{_layers(d)}" for d in found]
        ctx.obj.result(
            {d.name: {"about": d.about, "digest": d.digest()} for d in found}, "\n".join(lines)
        )
        return
    found_one = room.load_detector(name)
    geometry = found_one.geometry()
    if binning is not None:
        write_binning(binning, geometry, particle, overwrite=overwrite)
        ctx.obj.note(f"wrote {binning}")
    record = {
        "detector": found_one.to_dict(),
        "digest": found_one.digest(),
        "cells": geometry.n_cells,
        "depth_mm": found_one.depth_mm,
        "depth_x0": found_one.depth_x0(),
        "geometry": geometry.to_dict(),
    }
    ctx.obj.result(record, f"{_words(found_one)}\n{found_one.to_yaml().rstrip()}")


def _words(detector: Detector) -> str:
    """A summary as comments, so that the whole output is a detector file."""
    geometry, slabs = detector.geometry(), detector.envelope()
    wide = (
        f"discs of radius {slabs.x_mm:g} mm"
        if slabs.shape == "tube"
        else f"{2 * slabs.x_mm:g} × {2 * slabs.y_mm:g} mm"
    )
    active = sum(s.z1_mm - s.z0_mm for s in detector.slabs() if s.active)
    rows = {
        "layers": _layers(detector),
        "slabs": f"{len(detector.slabs())}, {wide}, in {detector.world}",
        "depth": f"{detector.depth_mm:g} mm = {detector.depth_x0():.1f} X0, {active:g} mm active",
        "symmetry": f"{geometry.symmetry} (for a beam on the axis)",
        "digest": detector.digest(),
    }
    return "\n".join(f"# {k:<10}{v}" for k, v in rows.items())


def _layers(detector: Detector) -> str:
    grids: dict[str, int] = {}
    for layer in detector.layers:
        grids[str(layer.cells)] = grids.get(str(layer.cells), 0) + 1
    parts = ", ".join(f"{n} of {grid}" if n > 1 else grid for grid, n in grids.items())
    n = len(detector.layers)
    return f"{n} layer{'s' if n > 1 else ''}, {detector.geometry().n_cells} cells: {parts}"
