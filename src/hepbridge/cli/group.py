"""The command group: global options in any place, and every way in which a command can end."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from hepbridge.cli.session import Session
from hepbridge.core.errors import HepbridgeError

__all__ = ["DEBUG_LOG", "INTERRUPTED", "Group"]

DEBUG_LOG = "hepbridge-debug.log"
INTERRUPTED = 130
_BROKEN_PIPE = 141
_ANYWHERE = ("--quiet", "-q", "--json", "--debug")


class Group(TyperGroup):
    """Turns exceptions into one message and an exit code (``docs/cli.md``)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """``hepbridge info FILE --json`` means ``hepbridge --json info FILE``."""
        end = args.index("--") if "--" in args else len(args)
        moved = [a for a in args[:end] if a in _ANYWHERE]
        kept = [a for a in args[:end] if a not in _ANYWHERE]
        return super().parse_args(ctx, moved + kept + args[end:])

    def invoke(self, ctx: Any) -> Any:
        try:
            value = super().invoke(ctx)
            sys.stdout.flush()
            return value
        except HepbridgeError as error:
            raise _failed(ctx, str(error), error.exit_code) from error
        except KeyboardInterrupt as error:
            words = "interrupted; no output is half-written"
            raise _failed(ctx, words, INTERRUPTED) from error
        except BrokenPipeError as error:
            # The reader of our output is gone: nobody is left to tell, at interpreter exit neither.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_BROKEN_PIPE) from error
        except Exception as error:  # the last resort: a bug ends in one sentence, too
            if type(error).__module__.partition(".")[0] in ("typer", "click"):
                if _session(ctx).json and hasattr(error, "format_message"):
                    _answer(error.format_message(), 2)
                raise  # usage errors and regular exits: typer prints those itself
            raise _failed(ctx, _bug(ctx, error), 1) from error


def _session(ctx: Any) -> Session:
    return ctx.obj if isinstance(ctx.obj, Session) else Session()


def _failed(ctx: Any, message: str, code: int) -> typer.Exit:
    """Say what went wrong, once on standard error and with ``--json`` also on standard output."""
    typer.echo(f"error: {message}", err=True)
    if _session(ctx).json:
        _answer(message, code)
    return typer.Exit(code)


def _answer(message: str, code: int) -> None:
    """The error as the one JSON object on standard output."""
    typer.echo(json.dumps({"error": message, "exit_code": code}, ensure_ascii=False))


def _bug(ctx: Any, error: Exception) -> str:
    """The message for an exception that nobody raised on purpose."""
    from hepbridge import __version__

    words = (
        f"this is a bug in hepbridge {__version__}, not your fault: {type(error).__name__}: {error}"
    )
    if not _session(ctx).debug:
        return f"{words}\nrun the same command with --debug to write the details to {DEBUG_LOG}"
    try:
        Path(DEBUG_LOG).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError as failure:
        return f"{words}\nthe details could not be written to {DEBUG_LOG}: {failure.strerror}"
    return f"{words}\nthe details are in {DEBUG_LOG}; please send that file with your report"
