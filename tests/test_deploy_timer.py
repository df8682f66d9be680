"""The interleaved timer, on a clock that only moves when a callable says so."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest

from hepbridge.core.errors import ConfigError
from hepbridge.deploy.timer import Timing, interleaved, ratio


class World:
    """Wall and CPU clocks, and a log of who was called."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.log: list[str] = []

    def takes(self, name: str, *seconds: float, share: float = 1.0) -> Callable[[], None]:
        """A callable whose k-th call takes the k-th time, the last one for ever."""
        left = list(seconds)

        def call() -> None:
            spent = left.pop(0) if len(left) > 1 else left[0]
            self.log.append(name)
            self.wall += spent
            self.cpu += share * spent

        return call

    def time(
        self, callables: dict[str, Callable[[], None]], repeats: int, **options: object
    ) -> dict[str, Timing]:
        clocks = {"clock": lambda: self.wall, "cpu_clock": lambda: self.cpu}
        return interleaved(callables, repeats, **clocks, **options)


def test_rounds_go_there_and_back_after_one_call_that_does_not_count() -> None:
    """Fails if callables run one after the other, or always in one order."""
    world = World()
    found = world.time({n: world.takes(n, 9.0, 1.0) for n in "abc"}, 3)
    assert "".join(world.log) == "abc" + "abc" + "cba" + "abc"
    for timing in found.values():
        assert timing.seconds == (1.0, 1.0, 1.0)  # the initialisation of 9 s is left out
        assert timing.rounds == (0, 1, 2)


def test_median_quartiles_and_deviation() -> None:
    """By hand: of 1, 2, 4, 8, 100 the median is 4, quartiles 2 and 8, deviations 3, 2, 0, 4, 96."""
    world = World()
    timing = world.time({"a": world.takes("a", 0.0, 8.0, 1.0, 100.0, 2.0, 4.0)}, 5)["a"]
    assert (timing.median, timing.quartiles, timing.mad) == (4.0, (2.0, 8.0), 3.0)
    assert timing.repeats == 5


def test_ratio_is_that_of_pairs() -> None:
    """A drift that both feel drops out: quotients are 3 in every round, although times double.

    Fails if the ratio is that of the medians of unpaired repeats, taken in another order.
    """
    drift = [1.0, 2.0, 4.0, 8.0, 16.0]
    world = World()
    slow = world.takes("slow", 0.0, *(3 * d for d in drift))
    found = world.time({"slow": slow, "fast": world.takes("fast", 0.0, *drift)}, 5)
    quotient = ratio(found["slow"], found["fast"])
    assert (quotient.median, quotient.q25, quotient.q75, quotient.sigma) == (3.0, 3.0, 3.0, 0.0)
    assert quotient.pairs == 5
    assert ratio(found["slow"], found["fast"], scale=0.5).median == 1.5
    assert ratio(found["fast"], found["slow"]).median == pytest.approx(1 / 3, rel=1e-15)


def test_ratio_by_hand_where_rounds_are_missing() -> None:
    """Rounds 1 and 3 are common: 20/4 and 40/10; the third value of ``fast`` has no partner."""
    slow = Timing((10.0, 20.0, 40.0), (10.0, 20.0, 40.0), (0, 1, 3))
    fast = Timing((4.0, 5.0, 10.0), (4.0, 5.0, 10.0), (1, 2, 3))
    quotient = ratio(slow, fast)
    assert (quotient.median, quotient.q25, quotient.q75, quotient.pairs) == (4.5, 4.25, 4.75, 2)
    with pytest.raises(ConfigError, match="no round in common"):
        ratio(slow, Timing((1.0,), (1.0,), (2,)))


def test_uncertainty_of_a_ratio_is_that_of_its_median() -> None:
    """Against the scatter of the medians of 2,000 repetitions with normal noise.

    The estimate from the median deviation of 101 pairs is low by 1 %, and the scatter of 2,000
    medians is known to 1.6 %.
    """
    rng = np.random.default_rng(1)
    rounds = tuple(range(101))
    one = Timing((1.0,) * 101, (1.0,) * 101, rounds)
    medians, sigmas = [], []
    for _ in range(2000):
        times = tuple(1 + 0.05 * rng.standard_normal(101))
        found = ratio(Timing(times, times, rounds), one)
        medians.append(found.median)
        sigmas.append(found.sigma)
    scatter = float(np.std(medians))
    assert abs(np.mean(sigmas) / scatter - 0.99) < 4 * 1 / math.sqrt(2 * 2000)


def test_budget_ends_the_slow_one_and_no_other() -> None:
    """8 s allow two repeats of 3 s (a third would end at 9); the first is never refused."""
    world = World()
    callables = {"slow": world.takes("slow", 3.0), "fast": world.takes("fast", 1.0)}
    found = world.time(callables, 6, budget_s={"slow": 8.0})
    assert found["slow"].rounds == (0, 1) and found["fast"].rounds == (0, 1, 2, 3, 4, 5)
    assert ratio(found["slow"], found["fast"]).pairs == 2
    world = World()
    assert world.time({"a": world.takes("a", 5.0)}, 4, budget_s={"a": 0.1})["a"].repeats == 1


def test_short_calls_are_repeated_within_a_repeat() -> None:
    """Calls of 0.25 s in repeats of 1 s: four each, and the time is still that of one call."""
    world = World()
    timing = world.time({"a": world.takes("a", 0.25)}, 3, least_s=1.0)["a"]
    assert timing.calls == 4 and timing.seconds == (0.25, 0.25, 0.25)
    assert len(world.log) == 2 + 3 * 4
    assert world.time({"a": world.takes("a", 2.0)}, 1, least_s=1.0)["a"].calls == 1


@pytest.mark.parametrize(
    ("share", "noisy"), [(1.0, False), (0.92, False), (0.85, True), (2.0, True)]
)
def test_noisy_is_told_from_the_cpu_time(share: float, noisy: bool) -> None:
    world = World()
    timing = world.time({"a": world.takes("a", 1.0, share=share)}, 4)["a"]
    assert timing.cpu_over_wall == pytest.approx(share, rel=1e-12)
    assert timing.noisy is noisy


def test_planted_slowdown_is_seen_on_the_real_clock() -> None:
    """Twice the arithmetic takes twice the CPU time. Within 30 %: this may be a busy machine."""
    a = np.linspace(0.0, 1.0, 200_000)

    def once() -> None:
        np.sqrt(a)

    def twice() -> None:
        np.sqrt(a)
        np.sqrt(a)

    found = interleaved({"once": once, "twice": twice}, 21, least_s=0.005, clock=time.process_time)
    assert 1.4 < ratio(found["twice"], found["once"]).median < 2.6


def test_nothing_to_time_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing to time"):
        interleaved({}, 3)
    with pytest.raises(ConfigError, match="nothing to time"):
        interleaved({"a": lambda: None}, 0)
    with pytest.raises(ConfigError, match="a budget for b"):
        interleaved({"a": lambda: None}, 1, {"b": 1.0})


def test_the_median_of_cpu_time_is_its_own() -> None:
    """A call that waits for half of its time. Fails if wall time is taken."""
    world = World()
    found = world.time({"a": world.takes("a", 1.0, share=0.5)}, 3)
    assert found["a"].median == 1.0 and found["a"].cpu_median == 0.5
