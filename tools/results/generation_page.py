"""docs/results/generation.md and its figures from what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import matplotlib
from figures import plain
from generation_models import showers
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from page import table

import hepbridge as hb
from hepbridge.data.showers import Showers
from hepbridge.report.plate import write_picture
from hepbridge.report.profiles import profiles
from hepbridge.report.style import RC
from hepbridge.report.text import p_value

SHOWN = ("caloflow-student", "caloinn", "caloflow-student-quantile", "calo-cfm")  # in the profiles
EVENTS, LAYER = 8, 1  # of the gallery
PAIRS = ("", "-quantile")  # endings of the names of teacher and student
MARKS = {
    "marginals": ("#e69f00", "s"),
    "caloflow-teacher": ("#b2182b", "v"),
    "caloflow-student": ("#b2182b", "^"),
    "caloinn": ("#009e73", "P"),
    "caloinn-bayesian": ("#009e73", "X"),
    "calo-diffusion": ("#cc79a7", "D"),
    "caloflow-teacher-quantile": ("#b2182b", "v"),
    "caloflow-student-quantile": ("#b2182b", "^"),
    "calo-diffusion-quantile": ("#cc79a7", "D"),
    "calo-cfm-teacher": ("#5aa0dc", "o"),
    "calo-cfm": ("#0064b0", "*"),
}
GOALS = {"auc": 0.02, "student": 0.03, "faster": 300.0}


def page(found: dict[str, Any]) -> str:
    """The page; ``found`` as `generation.main` keeps it."""
    samples = {k.partition(":")[2]: v for k, v in found.items() if k.startswith("fidelity:")}
    parts = [
        "# Generating showers from noise",
        f"Made by `make results-generation` (`tools/results/generation.py`) on {found['date'][:10]}. "
        "The samples are in `data/`, made with Geant4 by `hepbridge simulate` (`data/README.md`). All "
        "generators were trained on the same showers, on CPU cores, in minutes; they are smaller than "
        "the published ones, and the numbers say nothing about those. `calo-cfm` learns from "
        "`calo-cfm-teacher`, `caloflow-student` from `caloflow-teacher`; `marginals` has no network. Names in "
        "`-quantile` are published transports in the frame of `calo-cfm` in place of their own. "
        "[How they work](../generation.md).",
        "## Goals",
        table(["goal", "reached", "met"], goals(samples, found.get("speed"))),
        "The student's factor is small because the teacher is fast: to draw a coordinate it computes the outputs for "
        "that coordinate alone, not a whole pass of the network.",
    ]
    for name, record in samples.items():
        low, high = (e / 1000 for e in record["energies"])
        parts += [
            f"## {name}",
            f"{record['about'].get('particle', '')} of {low:.3g} to {high:.3g} GeV, "
            f"{record['about'].get('simulation', '')}; {record['train']:,} showers to train on, "
            f"{record['n']:,} to compare with, and as many of a second full simulation for the floor.",
            "Rows are those of [any calorimeter](../evaluation.md#any-calorimeter-point-clouds); AUC of boosted "
            "trees and of an MLP on cells (low) and shapes (high), three seeds.",
            table(
                ["generator", "rows above the floor's 95 % quantile", "geometric-mean floor ratio",
                 "trees low", "trees high", "MLP low", "MLP high", "evaluations", "parameters",
                 "training (s)"],
                [fidelity_row(n, m) for n, m in record["models"].items()],
            ),
            floor_words(record),
            f"![Fidelity against time](generation-{name}-pareto.png)",
            f"![Energy against depth and radius, and energy sums](generation-{name}-showers.png)",
            f"The middle layer of the first {EVENTS} test showers, one row a generator; white: less than 10 keV. "
            "All draw the same noise for the same event, so their showers are alike.",
            f"![Single showers](generation-{name}-gallery.png)",
        ]  # fmt: skip
    if "speed" in found:
        parts += ["## Cost", *cost(found["speed"])]
    return "\n\n".join(parts) + "\n"


def goals(samples: dict[str, Any], speed: dict[str, Any] | None) -> list[list[str]]:
    rows = []
    for name, record in samples.items():
        auc = {n: mean_auc(m) for n, m in record["models"].items()}
        error = max(t["se"] for m in record["models"].values() for t in tests(m))
        best = min(auc, key=lambda n: auc[n])
        if "caloflow-teacher" in auc:
            flow = auc["caloflow-teacher"]
            rows.append([
                f"{name}: the best generator beats our CaloFlow teacher in AUC (mean of four)",
                f"`{best}` {auc[best]:.3f} against {flow:.3f} (± {error:.3f} each)",
                "yes" if auc[best] < flow - 2 * error else "no",
            ])  # fmt: skip
        for ending in PAIRS:
            names = [f"caloflow-{who}{ending}" for who in ("student", "teacher")]
            if names[0] not in auc:
                continue
            apart = auc[names[0]] - auc[names[1]]
            rows.append([
                f"{name}: `{names[0]}` at most {GOALS['student']} behind its teacher in AUC",
                f"{auc[names[0]]:.3f} against {auc[names[1]]:.3f}: {apart:+.3f}",
                "yes" if apart <= GOALS["student"] else "no",
            ])  # fmt: skip
        apart = auc["calo-cfm"] - auc["calo-cfm-teacher"]
        rows.append([f"{name}: `calo-cfm` (1 evaluation) within {GOALS['auc']} of its 40-evaluation teacher",
                     f"{auc['calo-cfm']:.3f} against {auc['calo-cfm-teacher']:.3f}: {apart:+.3f}",
                     "yes" if apart <= GOALS["auc"] else "no"])  # fmt: skip
    if speed is not None:
        times = {b: speed[b]["caloflow-student"]["faster"] for b in ("1", "100", "1000")}
        words = ", ".join(f"{v:,.0f}× at batch {b}" for b, v in times.items())
        met = "yes" if max(times.values()) >= GOALS["faster"] else "no"
        rows.append(
            [f"student at least {GOALS['faster']:.0f} times faster than its teacher", words, met]
        )
    return rows


def tests(model: dict[str, Any]) -> list[dict[str, float]]:
    return [test for levels in model["auc"].values() for test in levels.values()]


def mean_auc(model: dict[str, Any]) -> float:
    found = [test["auc"] for test in tests(model)]
    return sum(found) / len(found)


def fidelity_row(name: str, model: dict[str, Any]) -> list[str]:
    verdict, auc = model["verdict"], model["auc"]
    return [
        f"`{name}`",
        f"{verdict['above']} of {verdict['of']} ({p_value(verdict)})",
        f"{model['ratio']:.2f}",
        *(f"{auc[c][k]['auc']:.3f}" for c in ("trees", "mlp") for k in ("low", "high")),
        str(model["nfe"]),
        f"{model['parameters'] / 1e6:.2f} M",
        f"{model['seconds']:,.0f}",
    ]


def floor_words(record: dict[str, Any]) -> str:
    model = next(iter(record["models"].values()))
    floors = [
        f"{c} {k} {t['floor_auc']:.3f}" for c, v in model["auc"].items() for k, t in v.items()
    ]
    worst = max(t["se"] for m in record["models"].values() for t in tests(m))
    return f"Floors of the AUCs: {', '.join(floors)}; standard errors up to {worst:.3f}."


def cost(speed: dict[str, Any]) -> list[str]:
    rows = [
        [f"`{n}`", *(f"{speed[b][n]['ms']:.3g}" for b in ("1", "100", "1000")),
         f"{speed['1000'][n]['faster']:,.0f}", f"{speed['1000'][n]['repeats']}"]
        for n in speed["1000"]
    ]  # fmt: skip
    return [
        f"CPU time in ms/shower on one pinned core ({speed['machine']['cpu']}), noise and frame included, in memory, "
        "generators in turn; medians.",
        table(["generator", "at 1", "at 100", "at 1,000", "times faster than caloflow-teacher at 1,000",
               "rounds at 1,000"], rows),
    ]  # fmt: skip


# -- figures ----------------------------------------------------------------------------------


def figures(found: dict[str, Any], data: Path, work: Path, docs: Path) -> None:
    for key, record in found.items():
        if not key.startswith("fidelity:"):
            continue
        sample = key.partition(":")[2]
        if "speed" in found:
            pareto(record, found["speed"], docs / f"generation-{sample}-pareto.png")
        made = {"Geant4": showers(data, sample, "test")}
        made |= {n: hb.load(work / sample / f"{n}-test.h5") for n in SHOWN if n in record["models"]}
        gallery(
            {"Geant4": made["Geant4"]}
            | {n: hb.load(work / sample / f"{n}-test.h5") for n in MARKS if n in record["models"]},
            docs / f"generation-{sample}-gallery.png",
        )
        write_picture(
            lambda made=made: profiles(made),
            docs / f"generation-{sample}-showers.png",
            overwrite=True,
        )


def gallery(made: dict[str, Showers], path: Path) -> None:
    """The middle layer of the first showers of everyone, a row each; in a column the energy is the same."""
    geometry = made["Geant4"].geometry
    start, shape = int(geometry.layer_starts[LAYER]), cast(Any, geometry.layers[LAYER].cells).n
    cells = slice(start, start + shape[0] * shape[1])
    with matplotlib.rc_context(cast(Any, RC)):
        figure = Figure(figsize=(1.0 * EVENTS + 2.2, 0.98 * len(made) + 0.9), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(made), EVENTS, squeeze=False)
        norm = LogNorm(1e-2, float(made["Geant4"].cells[:EVENTS, cells].max()))
        for row, (name, showers) in zip(panels, made.items(), strict=True):
            row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
            for k, panel in enumerate(row):
                image = showers.cells[k, cells].reshape(shape)
                drawn = panel.imshow(image, norm=norm, cmap="viridis", origin="lower")
                panel.set_facecolor("white")
                panel.set(xticks=[], yticks=[])
        for panel, energy in zip(panels[0], made["Geant4"].incident_energy, strict=False):
            panel.set_title(f"{energy / 1000:.1f} GeV", fontsize=9)
        figure.colorbar(drawn, ax=panels, label="energy of the cell [MeV]", shrink=0.6)
        figure.savefig(path)


def pareto(record: dict[str, Any], speed: dict[str, Any], path: Path) -> None:
    """Mean AUC and floor ratio against µs/shower at batch 1,000."""
    with matplotlib.rc_context(cast(Any, RC)):
        figure = Figure(figsize=(8.4, 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        for name, (colour, marker) in MARKS.items():
            if name not in record["models"]:
                continue
            model, us = record["models"][name], 1e3 * speed["1000"][name]["ms"]
            size = 13 if marker == "*" else 7
            error = max(t["se"] for t in tests(model))
            # open markers: in another frame than the published one
            look = {"marker": marker, "markersize": size, "ls": "", "color": colour,
                    "mfc": "white" if name.endswith("-quantile") else colour}  # fmt: skip
            left.errorbar([us], [mean_auc(model)], [error], label=name, **look)
            right.plot([us], [model["ratio"]], **look)
        floor = sum(t["floor_auc"] for t in tests(model)) / 4
        for axes, value in ((left, floor), (right, 1.0)):
            axes.axhline(value, color="0.3", lw=0.8)
            axes.set(xscale="log", xlabel="CPU time per shower [µs]")
        left.set_ylabel("classifier AUC (mean of four)")
        right.set(yscale="log", ylabel="geometric-mean floor ratio")
        plain(right.yaxis, (1, 2, 3, 5, 10, 20))
        left.legend(fontsize=8)
        figure.savefig(path)
