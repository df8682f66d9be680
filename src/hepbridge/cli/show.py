"""``hepbridge show``: a picture of showers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hepbridge.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from hepbridge.data.showers import Showers

__all__ = ["show"]


def show(
    ctx: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Shower files of one geometry, each as FILE or NAME=FILE (the NAME is drawn).",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PICTURE", help="PNG, PDF or SVG to write.")
    ],
    event: Annotated[int, typer.Option(min=0, help="Which event to draw.")] = 0,
    threshold: Annotated[
        float, typer.Option(help="Cells with less energy are not drawn, MeV.")
    ] = 0.1,
    profiles: Annotated[
        bool,
        typer.Option(
            "--profiles",
            help="Instead of an event: energy against depth and radius, and the energy sum, of all "
            "showers; ratios are to the first file.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the picture if it exists.")
    ] = False,
) -> None:
    """Draw an event of each file in three dimensions, or the profiles of all showers."""
    from hepbridge.data import io
    from hepbridge.report.display import event_display
    from hepbridge.report.plate import check_picture, write_picture
    from hepbridge.report.profiles import profiles as draw_profiles

    found = _named(files)
    check_picture(output, overwrite=overwrite)  # before files are read
    if profiles:
        every = {n: io.load(path, allow_empty_showers=True) for n, path in found.items()}
        plate = write_picture(lambda: draw_profiles(every), output, overwrite=overwrite)
    else:
        one = {n: _event(path, event) for n, path in found.items()}
        plate = write_picture(
            lambda: event_display(one, threshold_mev=threshold), output, overwrite=overwrite
        )
    ctx.obj.result({"output": output, "caption": plate.caption}, f"wrote {output}")
    ctx.obj.note(plate.caption)


def _named(words: list[str]) -> dict[str, Path]:
    """Name -> file, from FILE (named by its stem) and NAME=FILE."""
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            name, path = Path(word).stem, word
        if not name or not path:
            raise ConfigError(f"{word!r} names no file; write FILE or NAME=FILE")
        if name in found:
            raise ConfigError(
                f"two files are called {name!r}; give them names: {name}={found[name]} other={path}"
            )
        found[name] = Path(path)
    return found


def _event(path: Path, event: int) -> Showers:
    """One event of a file, of which no more is read."""
    from hepbridge.data import io

    with io.open_reader(path, allow_empty_showers=True) as reader:
        if event >= len(reader):
            raise DataError(f"{path} has no event {event}; its events are 0 to {len(reader) - 1}")
        return reader.read(event, event + 1)
