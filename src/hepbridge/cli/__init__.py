"""The command line: one file per command, a few lines each, nothing imported before it is used."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> None:
    """Run ``hepbridge ARGS`` (default: ``sys.argv``) and end the process with its exit code."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a terminal without × or ▲ shows ? instead
                stream.reconfigure(errors="replace")
        from hepbridge.cli.streams import guard_output, interrupt_on_sigterm
        from hepbridge.core.errors import OutputError

        interrupt_on_sigterm()
        guard_output()
        from typer.main import get_command

        from hepbridge.cli.app import app

        try:
            get_command(app).main(args=None if args is None else list(args), prog_name="hepbridge")
        except OutputError as error:  # while printing --help or --version
            sys.stderr.write(f"error: {error}\n")
            sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before a command has begun, while libraries are imported
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)
