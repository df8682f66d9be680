"""Timing of several things side by side, so that whatever the machine does hits all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hepbridge.core.errors import ConfigError

__all__ = ["NOISY", "Ratio", "Timing", "interleaved", "ratio"]

NOISY = 0.1  # CPU time and wall time may differ by this fraction before a timing is called noisy
_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_MEDIAN_TO_MEAN = math.sqrt(math.pi / 2)  # standard error of a median over that of a mean

Clock = Callable[[], float]


@dataclass(frozen=True)
class Ratio:
    """Quotient of two timings over their common rounds.

    Attributes:
        median, q25, q75: of the quotients of single rounds.
        sigma: standard error of the median, estimated from the median absolute deviation; 0 for a
            single pair.
        pairs: number of common rounds.
    """

    median: float
    q25: float
    q75: float
    sigma: float
    pairs: int


@dataclass(frozen=True)
class Timing:
    """Repeats of one callable.

    Attributes:
        seconds: wall time per call of every repeat.
        cpu: CPU time of this process per call of every repeat.
        rounds: the round in which each repeat ran.
        calls: calls in a repeat.
    """

    seconds: tuple[float, ...]
    cpu: tuple[float, ...]
    rounds: tuple[int, ...]
    calls: int = 1

    @property
    def repeats(self) -> int:
        return len(self.seconds)

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def cpu_median(self) -> float:
        return float(np.median(self.cpu))

    @property
    def quartiles(self) -> tuple[float, float]:
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return float(low), float(high)

    @property
    def mad(self) -> float:
        """Median absolute deviation from the median."""
        return _mad(self.seconds)

    @property
    def cpu_over_wall(self) -> float:
        """The part of the core that this process had while it was timed; 1 on an idle core."""
        return sum(self.cpu) / sum(self.seconds)

    @property
    def noisy(self) -> bool:
        """Whether something else had the core for more than 10 % of the time (or threads ran)."""
        return abs(self.cpu_over_wall - 1.0) > NOISY


def interleaved(
    callables: Mapping[str, Callable[[], object]],
    repeats: int,
    budget_s: Mapping[str, float] | None = None,
    *,
    least_s: float = 0.0,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
) -> dict[str, Timing]:
    """Time callables in turn: one repeat of each per round, every second round in reverse order.

    Reversing cancels what drifts in time and what one callable leaves behind for the next. Each is
    called once before the first round, untimed: initialisation does not count.

    Args:
        callables: what to time, by name.
        repeats: rounds.
        budget_s: seconds that the repeats of a name may take in all; before a repeat that would
            exceed them, by its longest repeat so far, the name leaves the later rounds. The first
            repeat always runs.
        least_s: calls in a repeat are repeated until it lasts about this long (their number is found
            by one more untimed call), for calls too short to be timed one by one.
        clock, cpu_clock: seconds of wall time and of this process's CPU time.

    Raises ConfigError if there is nothing to time, or ``budget_s`` has a name that is not timed.
    """
    budget_s = budget_s or {}
    if not callables or repeats < 1:
        raise ConfigError(
            f"nothing to time: {len(callables)} callables, {repeats} repeats; give at least one each"
        )
    if unknown := budget_s.keys() - callables.keys():
        raise ConfigError(f"a budget for {', '.join(sorted(unknown))}, which is not timed")
    calls = {name: _calls(call, least_s, clock) for name, call in callables.items()}
    wall: dict[str, list[float]] = {name: [] for name in callables}
    cpu: dict[str, list[float]] = {name: [] for name in callables}
    rounds: dict[str, list[int]] = {name: [] for name in callables}
    for k in range(repeats):
        for name in list(callables)[:: -1 if k % 2 else 1]:
            spent = wall[name]
            if spent and sum(spent) + max(spent) > budget_s.get(name, math.inf):
                continue
            call, began, cpu_began = callables[name], clock(), cpu_clock()
            for _ in range(calls[name]):
                call()
            cpu[name].append(cpu_clock() - cpu_began)
            wall[name].append(clock() - began)
            rounds[name].append(k)
    return {
        name: Timing(
            tuple(s / calls[name] for s in wall[name]),
            tuple(s / calls[name] for s in cpu[name]),
            tuple(rounds[name]),
            calls[name],
        )
        for name in callables
    }


def ratio(slow: Timing, fast: Timing, scale: float = 1.0) -> Ratio:
    """How many times longer ``slow`` takes than ``fast``, times ``scale``, from common rounds.

    ``scale`` allows for different work per call: rows of ``fast`` divided by rows of ``slow``.
    Raises ConfigError if the two have no round in common.
    """
    common = sorted(set(slow.rounds) & set(fast.rounds))
    if not common:
        raise ConfigError("the two timings have no round in common: time them together")
    a, b = (dict(zip(t.rounds, t.seconds, strict=True)) for t in (slow, fast))
    quotients = [scale * a[k] / b[k] for k in common]
    q25, median, q75 = (float(q) for q in np.quantile(quotients, [0.25, 0.5, 0.75]))
    sigma = _MEDIAN_TO_MEAN * _MAD_TO_SIGMA * _mad(quotients) / math.sqrt(len(quotients))
    return Ratio(median, q25, q75, sigma, len(quotients))


def _calls(call: Callable[[], object], least_s: float, clock: Clock) -> int:
    """Calls in a repeat; warms up on the way."""
    call()
    if least_s <= 0:
        return 1
    began = clock()
    call()
    return max(1, math.ceil(least_s / max(clock() - began, 1e-9)))


def _mad(values: Sequence[float]) -> float:
    return float(np.median(np.abs(np.asarray(values) - np.median(values))))
