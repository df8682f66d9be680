"""docs/results/refine-or-generate.md and its figure from what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from figures import plain
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from page import table

from hepbridge.report.style import RC

MARKS = {
    "squirels": ("#0064b0", "*"),
    "calo-cfm": ("#009e73", "o"),
    "caloflow": ("#b2182b", "v"),
    "caloflow-quantile": ("#cc79a7", "^"),
}


def page(found: dict[str, Any]) -> str:
    models = found["models"]
    rows = []
    for record in models.values():
        auc = record["auc"]
        rows.append([
            record["method"], f"{record['showers']:,}", f"{record['ratio']:.2f}",
            *(f"{auc[k][0]:.3f} ({auc[k][2]:.3f})" for k in auc), f"{record['seconds']:,.0f}",
        ])  # fmt: skip
    errors = [auc[1] for record in models.values() for auc in record["auc"].values()]
    tiny = [
        f"{100 * part:.2g} % in {name.rpartition('_')[0].replace('_', '-') or name}"
        for name, part in found["tiny"].items()
    ]
    common = found["common"]
    observables = list(next(iter(common.values())))
    parts = [
        "# Refine or generate?",
        f"Made by `make results-refine-or-generate` on {found['date'][:10]}. Electrons of 10 to 100 GeV in the "
        f"crystals of SQuIRELS; {found['n']:,} held-out showers of `train` to compare with. `squirels` "
        "refines GFLASH; `calo-cfm` (distilled, one evaluation for the energy sum and one for the cells) "
        "and `caloflow` (recipe `caloflow-student`, in its published frame and, `-quantile`, in that of `calo-cfm`) "
        "start at noise. All learn from the same showers of Geant4; a "
        "refiner has a fast shower for each.",
        *answer(found),
        "![Fidelity against training showers](refine-or-generate.png)",
        "## Fidelity and training",
        f"AUC of boosted trees (floor), standard error up to {max(errors):.3f}. Budgets are the same at all "
        "sizes: 4,000 steps of the refiner, 15,000 of `calo-cfm` and 6,300 of `caloflow`, half of these for the energy "
        "sum alone; wall times of trainings that shared two cores.",
        table(["method", "training showers", "geometric-mean floor ratio", "AUC low (floor)",
               "AUC high (floor)", "training (s)"], rows),
        "Trees on cells (low) see tiny energies where Geant4 has none: the part of all cells with less "
        f"than 10 keV, but not zero, is {', '.join(tiny)}. "
        "In the published frame of CaloFlow an empty cell is noise of 1 keV under a logit, of which a network "
        "leaves some above the threshold.",
        "## Time per shower",
        f"CPU time on one pinned core ({found['speed']['machine']['cpu']}), batch {found['speed']['batch']:,}, in "
        "turn; the refiner together with the GFLASH that it needs.",
        table(["chain", "µs/shower"],
              [[n, f"{us:.0f}"] for n, us in found["speed"]["us"].items()]),
        "## What one-to-one buys",
        "Variance of the difference between two simulations of the same events, one with 2 % more energy, as a "
        "part of what independent simulations have: what a study of small changes gains. Common random "
        "numbers: GFLASH, the refiner's and the generators' noise are drawn from the event's number alone. "
        "1: nothing gained; 0.1: a tenth of the showers suffices. "
        "A generator is a smooth function of the energy at fixed noise, so it gains most; a refiner "
        "gains what the fast simulation does, whose random walk is another one at another energy.",
        table(["chain", *observables],
              [[n, *(f"{v[o]:.3f}" for o in observables)] for n, v in common.items()]),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def answer(found: dict[str, Any]) -> list[str]:
    """Who is better at each number of showers, in words."""
    by: dict[str, list[dict[str, Any]]] = {}
    for record in found["models"].values():
        by.setdefault(record["method"], []).append(record)
    refined = sorted(by["squirels"], key=lambda r: r["showers"])
    words = []
    for method in [m for m in MARKS if m != "squirels" and m in by]:
        drawn = sorted(by[method], key=lambda r: r["showers"])
        won = [r for r, g in zip(refined, drawn, strict=True) if _auc(r) < _auc(g)]
        words.append(
            f"against `{method}` the refiner has the lower mean AUC at {len(won)} of {len(drawn)} sizes "
            f"({clear(refined, drawn)} by two standard errors), and the lower floor ratio at "
            f"{sum(r['ratio'] < g['ratio'] for r, g in zip(refined, drawn, strict=True))}"
        )
    return ["**In short:** " + "; ".join(words) + "."]


def clear(refined: list[dict[str, Any]], drawn: list[dict[str, Any]]) -> int:
    """At how many sizes the refiner's mean AUC is lower by more than two standard errors."""
    pairs = zip(refined, drawn, strict=True)
    return sum(_auc(g) - _auc(r) > 2 * np.hypot(_error(r), _error(g)) for r, g in pairs)


def _error(record: dict[str, Any]) -> float:
    """Of the mean, as if both tests were one: they see the same showers."""
    return max(auc[1] for auc in record["auc"].values())


def _auc(record: dict[str, Any]) -> float:
    return float(np.mean([auc[0] for auc in record["auc"].values()]))


def figure(found: dict[str, Any], path: Path) -> None:
    """Floor ratio and mean AUC against the number of training showers."""
    with matplotlib.rc_context(cast(Any, RC)):
        drawn = Figure(figsize=(7.8, 3.5), layout="constrained")
        FigureCanvasAgg(drawn)
        left, right = drawn.subplots(1, 2)
        for method, (colour, marker) in MARKS.items():
            mine = sorted(
                (r["showers"], r["ratio"], _auc(r), max(a[1] for a in r["auc"].values()))
                for r in found["models"].values()
                if r["method"] == method
            )
            if not mine:
                continue
            n, ratio, auc, error = zip(*mine, strict=True)
            size = 11 if marker == "*" else 6
            left.plot(n, ratio, marker=marker, color=colour, markersize=size, label=method)
            right.errorbar(n, auc, error, marker=marker, color=colour, markersize=size)
        for axes, value in ((left, 1.0), (right, 0.5)):
            axes.axhline(value, color="0.3", lw=0.8)
            axes.set(xscale="log", xlabel="training showers")
        left.set(yscale="log", ylabel="geometric-mean floor ratio")
        plain(left.yaxis, (1, 1.5, 2, 3, 5, 10, 20))
        right.set_ylabel("classifier AUC (trees, mean of two)")
        left.legend(fontsize=8)
        drawn.savefig(path)
