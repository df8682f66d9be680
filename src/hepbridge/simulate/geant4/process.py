"""Runs a worker so that nothing that happens in it can hang or end this process."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hepbridge.core.errors import ConfigError, SimulationError

__all__ = ["run_worker"]

log = logging.getLogger(__name__)

POLL_S = 0.5
_TAIL = 12  # lines of the log that an error shows
_BANNER = "EEEE ------- G4Exception-START"  # before what Geant4 says when it gives up


def run_worker(
    command: Sequence[str],
    environment: Mapping[str, str],
    status: Path,
    *,
    log_file: Path,
    start_timeout_s: float,
    event_timeout_s: float,
    keep_log: bool = True,
) -> list[str]:
    """Run ``command`` to its end and return the lines of its status file.

    It runs without standard input, in a session of its own, its output goes to ``log_file``. It is
    killed, with its children, if the status file has no line ``ready`` after ``start_timeout_s`` or
    then does not grow for ``event_timeout_s``, and if this process is interrupted.

    Args:
        keep_log: the log file stays where it is. Otherwise, if the worker fails, it is moved to
            the folder of temporary files, so that it outlives the caller's folder.

    Raises:
        ConfigError: the worker found the request wrong (``error TEXT`` in the status file).
        SimulationError: it could not be started, ended badly or went silent; the message names the
            log file and shows its end.
    """
    status.touch()
    try:
        with open(log_file, "wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
    except OSError as error:
        raise SimulationError(f"cannot start the Geant4 worker: {error}") from error
    try:
        silent = _wait(process, status, start_timeout_s, event_timeout_s)
    finally:
        _kill(process)
    lines = status.read_text(encoding="utf-8", errors="replace").splitlines()
    if process.returncode == 0 and lines and lines[-1] == "done":
        return lines
    for line in lines:
        if line.startswith("error "):
            raise ConfigError(line.removeprefix("error "))
    what = silent or _ending(process.returncode)
    kept = log_file if keep_log else _saved(log_file)
    when = f"after {lines.count('event')} events" if "ready" in lines else "while it started"
    raise SimulationError(
        f"the Geant4 worker {what}, {when}; its log is {kept}\n{_shown(kept)}".rstrip()
    )


def _wait(
    process: subprocess.Popen[bytes], status: Path, start_timeout_s: float, event_timeout_s: float
) -> str:
    """Wait for the end. Returns "", or why the process has to be killed."""
    size, since, ready = 0, time.monotonic(), False
    while True:
        try:
            process.wait(POLL_S)
            return ""
        except subprocess.TimeoutExpired:
            pass
        now, grown = time.monotonic(), status.stat().st_size
        if grown != size:
            size, since = grown, now
            ready = ready or "ready" in status.read_text(encoding="utf-8").splitlines()
        limit = event_timeout_s if ready else start_timeout_s
        if now - since > limit:
            doing = "finished no event" if ready else "was not ready"
            return f"{doing} within {limit:g} s and was killed"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children, if it has not ended by itself."""
    if process.poll() is None:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by signal {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _saved(log_file: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix="hepbridge-geant4-", suffix=".log")
    os.close(handle)
    shutil.copyfile(log_file, name)
    return Path(name)


def _shown(log_file: Path) -> str:
    """What Geant4 said when it gave up, or the last lines of the log."""
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    banners = [i for i, line in enumerate(lines) if _BANNER in line]
    chosen = lines[banners[-1] :] if banners else lines[-_TAIL:]
    return "\n".join(line for line in chosen[:_TAIL] if line.strip())
