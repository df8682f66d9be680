"""The machine on which something is timed: what it is, how busy it is, and one core of it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["on_one_core", "state"]

_LIBRARIES = ("hepbridge", "torch", "numpy", "onnxruntime")
_LOOK_S = 0.3  # how long to watch the cores before one is chosen


def state() -> dict[str, Any]:
    """CPU, cores, load averages (1, 5, 15 minutes; null where the system has none), versions."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            **{name: version for name in _LIBRARIES if (version := _version(name))},
        },
    }


@contextmanager
def on_one_core() -> Iterator[int | None]:
    """Run on one core with one thread, and leave all as it was; yields the core.

    The core is the one that was least busy over the last moment, out of those that this process may
    use. Where the system cannot pin a process (macOS, Windows), only the threads are limited and
    None is yielded.
    """
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    core = _quietest(cores) if cores else None
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        torch.set_num_threads(1)
        with threadpool_limits(1):
            yield core
    finally:
        torch.set_num_threads(threads)
        if core is not None:
            os.sched_setaffinity(0, cores)


def _quietest(cores: set[int]) -> int:
    before = _busy()
    time.sleep(_LOOK_S)
    after = _busy()
    return min(cores, key=lambda core: (after.get(core, 0) - before.get(core, 0), core))


def _busy() -> dict[int, int]:
    """Ticks that each core has spent working so far (Linux; elsewhere nothing is known)."""
    path = Path("/proc/stat")
    if not path.is_file():
        return {}
    ticks = {}
    for line in path.read_text(encoding="ascii").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _idle, _wait, *interrupts = (int(field) for field in fields)
            ticks[int(name[3:])] = user + nice + system + sum(interrupts[:3])  # … and stolen
    return ticks


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
