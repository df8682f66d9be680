"""docs/results/unfolding.md from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from page import table
from unfolding_samples import NAMES, STUDIES, commands
from unfolding_studies import (
    CALIBRATED,
    CANDIDATES,
    DRAWS,
    EXPERIMENTS,
    FEW,
    ITERATED,
    ITERATIONS,
    METHODS,
    PAPER_ROWS,
    STEP1,
)

from hepbridge.report.text import number, shorthand
from hepbridge.report.unfolding import label_of

TITLES = {
    "closure": "Closure: A14 unfolded with A14",
    "monash": "Monash unfolded with A14",
    "vincia": "Vincia unfolded with A14, both without multiparton interactions",
}
AGAIN = [f"{name} ×{ITERATIONS}" for name in ("omnifold", *ITERATED)]
HEADS = [label_of(name) for name in NAMES]
Record = Mapping[str, Any]


def page(found: Record) -> str:
    """The page; ``found`` as `unfolding.main` has put it together."""
    parts = [
        "# Unfolding Z + jets",
        "Made by `make results-unfolding` (`tools/results/unfolding.py`).",
        f"Z + jets at 14 TeV, {found['n']:,} generated events of each sample, jets above 150 GeV "
        "([events](../unfolding-events.md)):",
        "```console\n" + "\n".join(f"$ {line}" for line in commands(found["n"])) + "\n```",
        table(
            ["sample", "pairs", "misses", "fakes", "efficiency", "purity"],
            [
                [
                    f"`{name}`",
                    *(f"{row[key]:,}" for key in ("pairs", "misses", "fakes")),
                    f"{row['efficiency']:.3f}",
                    f"{row['purity']:.3f}",
                ]
                for name, row in found["samples"].items()
            ],
        ),
        "The tables are about pairs, as the published ones (arXiv:2308.12351): misses and fakes have a "
        "[section of their own](#misses-and-fakes). A cell is the earth mover's distance × 10 (unbinned, "
        "in GeV for the mass) and the triangular discriminator × 1000 (29 bins) to the truth, in brackets "
        "the error of the last digits from 100 bootstraps of the unfolded events. Widths are divided by "
        "R = 0.4. Two perfect samples of these sizes have the distance in the row *by chance*. "
        f"`sbunfold-paper`, the published bridge with its 999 steps, unfolds the first {PAPER_ROWS:,} "
        "events only, and has larger distances by chance alone.",
        "## Goals",
        table(["goal", "reached", "met"], list(_goals(found))),
    ]
    for study, title in TITLES.items():
        if study not in found:
            continue
        parts += [
            f"## {title}",
            f"![Every observable with its ratio to the truth](unfolding-{study}.png)",
            _many(found[study], ["prior", "data", STEP1, *METHODS[STUDIES[study][0]]]),
            f"With {ITERATIONS} iterations of OmniFold: its own weights, and `sbunfold` with this spectrum in the "
            f"place of the simulated one ({CANDIDATES} draws of each event), which amounts to one iteration more:",
            _many(found[study], AGAIN),
        ]
        if f"{study}-few" in found:
            parts += [
                f"{EXPERIMENTS} pseudo-experiments of {FEW:,} events, each against the truth of all; in "
                "brackets the spread between the experiments, not the error of the mean:",
                _few(found[f"{study}-few"]),
            ]
    parts += [
        "## Posteriors",
        "How many of the true values lie in the central 68.27 % and 95 % of the posterior draws, in per "
        f"cent, in closure ({CALIBRATED:,} events, {DRAWS} draws of each; `sbunfold-paper`: 2,000 and 20). "
        "The published bridge does not know where it started: it has the right spectra, and wrong posteriors.",
        "![Calibration curves](unfolding-calibration.png)",
        _coverage(found["calibration"]),
        "## A wrong prior",
        f"Pseudo-data of {found['prior']['n']:,} events for which the simulated spectrum is wrong: of those "
        "of the closure study, each is kept with a probability in proportion to e^{0.5 z} in the "
        "standardised logarithms of mass and multiplicity, cut at e^{±1.5}. The detector is the same, the "
        "jets are heavier and fuller. Iterations take the prior out: distance to the truth (EMD × 10) "
        "against the number of iterations.",
        "![Distances against iterations](unfolding-prior.png)",
        _prior(found["prior"]),
        "## Misses and fakes",
        "All that passes at either level. The sum of the weights is the number of events at particle level, "
        "with its statistical error; fakes go out by the purity, misses come in by the efficiency. OmniFold "
        f"with {ITERATIONS} iterations.",
        _acceptance(found["acceptance"]),
        "## Time",
        "From the columns at detector level to the unfolded ones, one draw for each jet, one thread; "
        "medians of five rounds in turn, and their range. Training on one core of a shared machine.",
        table(
            ["method", "network evaluations", "ms for each jet", "training, s"],
            [
                [
                    f"`{name}`",
                    str(row["evaluations"]),
                    f"{row['ms']:.4f} ({row['low']:.4f}–{row['high']:.4f})",
                    f"{row['training_seconds']:.0f}",
                ]
                for name, row in found["speed"].items()
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _many(record: Record, names: list[str]) -> str:
    rows = []
    for name in names:
        cells = []
        for row in record["rows"]:
            cell = row["candidates"][name]
            cells.append(
                " / ".join(
                    shorthand(cell[k]["value"], cell[k]["sigma"]) for k in ("emd", "triangular")
                )
            )
        auc = record["classifier"]["candidates"][name]
        rows.append([_name(name), *cells, shorthand(auc["auc"], auc["se"])])
    chance = [
        " / ".join(
            number(row["candidates"][names[-1]][key]["chance"]) for key in ("emd", "triangular")
        )
        for row in record["rows"]
    ]
    floor = record["classifier"]["floor"]
    rows.append(["by chance", *chance, shorthand(floor["auc"], floor["se"])])
    return table(["", *HEADS, "AUC of all"], rows)


def _few(record: Record) -> str:
    return table(
        ["", *HEADS],
        [
            [
                _name(name),
                *(
                    " / ".join(
                        shorthand(row[o][key]["mean"], row[o][key]["std"])
                        for key in ("emd", "triangular")
                    )
                    for o in NAMES
                ),
            ]
            for name, row in record.items()
        ],
    )


def _name(name: str) -> str:
    base, times, count = name.partition(" ×")
    words = {
        "prior": "before unfolding: prior",
        "data": "before unfolding: data",
        "truth": "truth of the same events",
    }
    return words.get(name, f"`{base}`{times}{count}")


def _levels(row: Record) -> list[tuple[float, float]]:
    return [(100 * c["value"], 100 * c["sigma"]) for c in row["coverage"]]


def _coverage(record: Record) -> str:
    return table(
        ["", *HEADS],
        [
            [
                _name(name),
                *(" / ".join(f"{value:.1f}" for value, _ in _levels(row[o])) for o in NAMES),
            ]
            for name, row in record.items()
        ],
    )


def _prior(record: Record) -> str:
    rows = []
    for method in ("sbunfold", "omnifold"):
        for count, row in sorted(record[method].items(), key=lambda item: int(item[0])):
            head = "prior" if count == "-1" else f"`{method}`, {count} iterations"
            if count == "-1" and method == "omnifold":
                continue
            rows.append([head, *(number(row[o][0]) for o in NAMES)])
    rows.append(["by chance", *(number(record["floor"][o]) for o in NAMES)])
    return table(["", *HEADS], rows)


def _acceptance(record: Record) -> str:
    rows = []
    for study, row in record.items():
        for method in ("sbunfold", "omnifold"):
            made = row[method]
            cells = [" / ".join(number(v) for v in made["distances"][o]) for o in NAMES]
            share = shorthand(made["sum"], made["error"])
            rows.append(
                [study, f"`{method}`", f"{row['data']:,}", share, f"{row['truth']:,}", *cells]
            )
    return table(["study", "method", "data", "unfolded", "truth", *HEADS], rows)


def _goals(found: Record) -> Iterator[list[str]]:
    closure = found["closure"]
    worse, ratios = [], []
    for row in closure["rows"]:
        ours = row["candidates"]["sbunfold"]["emd"]
        ratios.append(ours["value"] / ours["chance"])
        for other in ("omnifold-step1", "cinn", "fpcd"):
            theirs = row["candidates"][other]["emd"]
            gap = (ours["value"] - theirs["value"]) / np.hypot(ours["sigma"], theirs["sigma"])
            worse.append((float(gap), other, row["observable"]))
    gap, other, name = max(worse)
    yield [
        "closure: `sbunfold` not significantly worse than the best of the others in any observable (EMD, < 3 σ)",
        f"largest: {gap:.1f} σ against `{other}` in {label_of(name).lower()}",
        _yes(gap < 3),
    ]
    yield [
        "closure: within 2× of the floor in every observable",
        f"{max(ratios):.2f}×",
        _yes(max(ratios) < 2),
    ]
    speed = found["speed"]["sbunfold"]
    yield [
        "1–4 network evaluations, under 0.05 ms for each jet",
        f"{speed['evaluations']}, {speed['ms']:.4f} ms",
        _yes(speed["evaluations"] <= 4 and speed["ms"] < 0.05),
    ]
    off = [
        (abs(value - level), o, level)
        for o in NAMES
        for (value, _), level in zip(
            _levels(found["calibration"]["sbunfold"][o]), (68.27, 95.0), strict=True
        )
    ]
    far, where, level = max(off)
    yield [
        "coverage within 2 % at 68 % and 95 %",
        f"furthest: {far:.1f} % off at {level:g} % in {label_of(where).lower()}",
        _yes(far < 2),
    ]
    prior = found["prior"]
    shares = [
        prior["sbunfold"]["8"][o][0] / prior["sbunfold"]["-1"][o][0]
        for o in ("mass", "multiplicity", "width")
    ]
    yield [
        "iteration removes a wrong prior",
        "EMD in mass, multiplicity and width down to "
        + ", ".join(f"{100 * share:.0f} %" for share in shares)
        + " of the prior's after 8",
        _yes(max(shares) < 0.15),
    ]
    for study in [name for name in ("monash", "vincia") if name in found]:
        ours, theirs = (
            [row["candidates"][name]["emd"]["value"] for row in found[study]["rows"]]
            for name in (AGAIN[-1], AGAIN[0])
        )
        better = sum(a < b for a, b in zip(ours, theirs, strict=True))
        yield [
            f"{study}, iterated: `sbunfold` against `omnifold`",
            f"smaller EMD in {better} of {len(NAMES)} observables",
            "–",
        ]


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"


assert set(TITLES) == set(STUDIES)
