"""The command line: one file per command, a few lines each, nothing imported before it is used."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> None:
    """Run ``hepbridge ARGS`` (default: ``sys.argv``) and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without × or ▲ shows ? instead
            stream.reconfigure(errors="replace")
    from typer.main import get_command

    from hepbridge.cli.app import app

    get_command(app).main(args=None if args is None else list(args), prog_name="hepbridge")
