"""docs/results/simulators.md from what was measured."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from page import GOALS, table
from simulators_judge import COMMAND, CUTS, OURS, commands, label
from simulators_memory import MODEL, WORKERS
from simulators_speed import EVENTS, FAST, FULL, RANGE, REFINED, WARM
from simulators_tables import (
    classifier_tests,
    count,
    distances,
    largest,
    means,
    name_of,
    summary,
    verdicts,
)

from hepbridge.deploy.bench import PUBLISHED
from hepbridge.report.text import number, p_value, plus_minus

RECORDED_MS = 2.5
"""Geant4's own GFLASH in the same geometry: noted when its samples were made, not timed here."""

NAMES = {FAST: "GFLASH", REFINED: f"GFLASH + refinement by `{MODEL}`", FULL: "Geant4"}
FASTER = {"least": 1500, "aimed at": 3000}  # times, GFLASH + refinement against Geant4
FAST_MS = 0.1
_BUSY = 0.9  # CPU/wall below this: the core did other work
_FLOOR = "EMD / mean floor = ratio; **bold**: above the floor's 95 % quantile."


def page(found: dict[str, Any]) -> str:
    """The page; ``found`` as `simulators.measure` returns it."""
    parts = [
        "# Simulators: GFLASH, Geant4, speed",
        f"Made by `{COMMAND}` (`tools/results/simulators.py`). Electrons on the axis of 10×10 "
        "crystals of PbWO4, 3×3×24 cm each. [Metrics](../metrics.md), floors and verdicts are those "
        "of `hepbridge evaluate`.",
        "## Goals",
        "p > 0.01 is missed by one perfect simulator in a hundred.",
        table(["goal", "reached", "met"], goals(found)),
        *gflash(found.get("gflash")),
        *geant4(found.get("geant4")),
        *speed(found.get("speed")),
        *memory(found.get("memory")),
    ]
    return "\n\n".join(parts) + "\n"


def goals(found: dict[str, Any]) -> list[list[str]]:
    out = []
    for engine, words in (("gflash", "GFLASH"), ("geant4", "Geant4")):
        for name, candidate, n, verdict in verdicts(found.get(engine)):
            of = "" if candidate == OURS else f", {candidate}"
            out.append(
                [f"{words}, {name}{of}, n = {n:,}: rows above the floor's 95 % quantile compatible "
                 f"with chance (p > {GOALS['p']})",
                 f"{verdict['above']} of {verdict['of']}, {p_value(verdict)}",
                 met(verdict["p"] > GOALS["p"])]
            )  # fmt: skip
    tests = classifier_tests(found.get("gflash"))
    if tests:
        worst = max(test["excess_upper95"] for *_, test in tests)
        out.append(
            [f"GFLASH: AUC of trees − floor ≤ {GOALS['auc']} (upper 95 %) in every sample",
             f"{worst:.3f}", met(worst <= GOALS["auc"])]
        )  # fmt: skip
    if timed := found.get("speed"):
        ms = timed["timings"][f"{FAST} {RANGE}"]["ms"]
        faster = timed["times_faster"][RANGE][REFINED]
        out += [
            [f"GFLASH: at most {FAST_MS} ms/shower on one core, {RANGE}", f"{ms:.3f} ms",
             met(ms <= FAST_MS)],
            *([f"GFLASH + refinement: {wanted:,} times faster than Geant4, {RANGE} ({words})",
               plus_minus(faster["median"], faster["sigma"]), met(faster["median"] >= wanted)]
              for words, wanted in FASTER.items()),
        ]  # fmt: skip
    return out


def met(yes: bool) -> str:
    return "yes" if yes else "**no**"


def gflash(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    return [
        "## GFLASH against Geant4's GFLASH",
        f"`hepbridge simulate gflash` ([algorithm](../gflash.md)) at the incident energies of real "
        f"showers: {found['about']['simulation']}. The floor is between real showers: samples at a "
        "fixed energy are split in half; at mixed energies neighbours in energy are dealt to two "
        "halves (`tools/compare_gflash.py`). `train, all` has every shower of the training sample.",
        _FLOOR,
        *distances(found),
        *summary(found),
        "All showers of each sample: difference of the means of hepbridge and of Geant4's GFLASH, "
        "and the same in standard errors.",
        means({f"{name_of(part)}, n = {m['n'][0]:,}": m for part, m in found["means"].items()}),
        f"Largest of {count(found['means'])} differences: {largest(found['means'].values()):.1f} "
        "standard errors.",
        *figures(
            "simulators-gflash",
            "Geant4's GFLASH (grey) and hepbridge's (blue).",
        ),
    ]


def geant4(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    cuts, made = found["cuts"], commands(Path("SHOWERS"), Path("WORK"), *found["n"])
    by_cut = {
        cut: {part: m[label(cut)] for part, m in found["means"].items() if label(cut) in m}
        for cut in CUTS
    }
    return [
        "## Geant4 against samples of full simulation",
        f"`hepbridge simulate geant4` with Geant4 {found['version']}, G4EmStandardPhysics, against "
        f"`squirels_full`: {found['about']['simulation']}; cross sections of both: "
        f"{found['about']['cross_sections']}. The floor is an independent second full simulation, "
        "`squirels_full2`. The beam spot of the reference is σ = 10 µm, ours ±1 µm.",
        "**The production cut.** Geant4 silently ignores a default cut that is set before "
        f"`Initialize`: asked for 0.7 mm, the crystals have {cuts['before']:g} mm if it is set "
        f"before, {cuts['after']:.1f} mm if it is set after, {cuts['never']:g} mm if it is not set "
        "(`python tools/results/simulators_cut.py before 0.7`). The reference says 0.7 mm but may "
        "have been made with 1 mm; hepbridge sets the cut after `Initialize`. So both are compared.",
        _FLOOR,
        *distances(found),
        *summary(found),
        "Difference of the means of hepbridge and of the reference, and the same in standard errors; "
        "at fixed energies against both full samples together.",
        means(
            {f"{name_of(p)}, {c}, n = {m['n'][1]:,}": m
             for p, of in found["means"].items() for c, m in of.items()}
        ),
        "Largest difference: "
        + "; ".join(
            f"{largest(of.values()):.1f} standard errors with a cut of {cut} mm ({count(of)} means)"
            for cut, of in by_cut.items()
        )
        + ".",
        *figures(
            "simulators-geant4",
            "The reference (grey) and `hepbridge simulate geant4` with both cuts.",
        ),
        "Made by:",
        "```console\n" + "\n".join(f"$ {shlex.join(c)}" for c in made.values()) + "\n```",
    ]  # fmt: skip


def speed(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    timings, machine = found["timings"], found["machine"]
    labels = [*(f"{energy} GeV" for energy in EVENTS), RANGE]
    busy = min(t["cpu_over_wall"] for t in timings.values())
    load = machine["load_average"]
    return [
        "## Speed",
        f"Milliseconds per shower on one pinned core ({machine['cpu']}; Geant4 {machine['geant4']}, "
        f"numba and torch {machine['versions']['torch']} with one thread), all in turn, median of "
        f"{found['repeats']} rounds ± its standard error. The start of a Geant4 worker "
        f"with its first {len(WARM)} showers ({found['start_s']:.1f} s) is timed in every round and "
        f"taken off; compilation and loading of the fast ones do not count. {RANGE}: uniform. "
        f"Load average of the machine at the start: {load[0]:.1f}; CPU/wall at least {busy:.2f}."
        + (" **The core was busy with other work: provisional.**" if busy < _BUSY else ""),
        table(
            ["energy", *(NAMES[n] for n in (FAST, REFINED, FULL)), "Geant4 / GFLASH",
             "Geant4 / (GFLASH + refinement)"],
            [
                [at,
                 *(plus_minus(timings[f"{n} {at}"]["ms"], timings[f"{n} {at}"]["error"])
                   for n in (FAST, REFINED, FULL)),
                 *(plus_minus(found["times_faster"][at][n]["median"],
                              found["times_faster"][at][n]["sigma"]) for n in (FAST, REFINED))]
                for at in labels
            ],
        ),
        "![Time per shower against incident energy](simulators-speed.png)",
        f"Per core, {RANGE}:",
        table(
            ["simulation", "showers/s", "ms", "ms of CPU", "CPU/wall"],
            [
                [NAMES[n], rate(t["ms"]), number(t["ms"]), number(t["cpu_ms"]),
                 f"{t['cpu_over_wall']:.2f}"]
                for n in (FAST, REFINED, FULL)
                for t in (timings[f"{n} {RANGE}"],)
            ]
            + [["Geant4's own GFLASH, recorded", rate(RECORDED_MS), f"{RECORDED_MS}", "–",
                "–"]],
        ),
        f"Geant4's own GFLASH took {RECORDED_MS} ms when its samples were made; geant4-pybind does not "
        f"wrap its classes, so it cannot be timed here. {PUBLISHED['source']}, has "
        f"{PUBLISHED['ms_per_shower']['GFLASH'][0]} ms for it and "
        f"{PUBLISHED['ms_per_shower']['Geant4'][0]} ms for Geant4, on {PUBLISHED['machine']}.",
    ]  # fmt: skip


def rate(ms: float) -> str:
    """Showers per second."""
    return f"{1e3 / ms:,.0f}" if ms < 10 else f"{1e3 / ms:.2f}"


def memory(found: dict[str, float] | None) -> list[str]:
    if found is None:
        return []
    return [
        "## Memory per worker",
        "Peak resident memory of a process that does nothing else, libraries included "
        "(`python tools/results/simulators_memory.py gflash`).",
        table(
            ["worker", "showers", "MB"],
            [[NAMES[n], f"{WORKERS[n]:,}", f"{mb:.0f}"] for n, mb in found.items()],
        ),
    ]


def figures(stem: str, words: str) -> list[str]:
    return [
        f"{words} 50 GeV and 10 to 100 GeV. Legends: EMD as in the table ± scatter of its bootstraps, "
        "floor ± scatter of its splits. Lower panels: ratio to the reference with its uncertainty "
        "(grey), that of the candidate (bars) and, dotted, the second sample of the reference.",
        f"![Energy sum and number of cells]({stem}-showers.png)",
        f"![Largest cell and cell energies]({stem}-cells.png)",
        f"![Profile in x]({stem}-profiles.png)",
    ]
