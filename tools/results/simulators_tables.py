"""The tables of the page of the simulators: distances, verdicts, classifier tests, means."""

from __future__ import annotations

from typing import Any

from judge import FIXED, SETTINGS
from page import table
from simulators_judge import OURS

from hepbridge.report.text import above_floor, number, p_value, plus_minus


def distances(found: dict[str, Any]) -> list[str]:
    """Tables for each simulation, at fixed and at mixed energies: observables down, samples across."""
    columns: dict[tuple[bool, str], list[tuple[str, dict[str, Any]]]] = {}
    for name, record in found["evaluations"].items():
        for entry in record["sets"]:
            for candidate in entry["rows"][0]["candidates"]:
                kind = (entry["label"] == "mixed", candidate)
                head = f"{title(name, entry)}, n = {entry['n']:,}"
                columns.setdefault(kind, []).append((head, entry))
    return [
        table(
            ["observable" if candidate == OURS else candidate, *(head for head, _ in entries)],
            [
                [f"`{rows[0]['observable']}`", *(distance(row, candidate) for row in rows)]
                for rows in zip(*(entry["rows"] for _, entry in entries), strict=True)
            ],
        )
        for (_, candidate), entries in columns.items()
    ]


def distance(row: dict[str, Any], candidate: str) -> str:
    cell, floor = row["candidates"][candidate], row["floor"]["mean"]
    words = f"{number(cell['emd_sample'])} / {number(floor)} = {cell['ratio']:.2f}"
    return f"**{words}**" if cell["above_q95"] else words


def name_of(part: str) -> str:
    """A part of the samples in words: 20 GeV, test."""
    return f"{part[1:]} GeV" if part in FIXED else part


def title(name: str, entry: dict[str, Any]) -> str:
    """A fixed energy by itself, a mixed sample by its name."""
    return entry["label"] if entry["label"] != "mixed" else f"{name}, 10–100 GeV"


def verdicts(found: dict[str, Any] | None) -> list[tuple[str, str, int, dict[str, float]]]:
    """Sample, candidate, n, verdict over the rows of the sample."""
    if found is None:
        return []
    return [
        (name, candidate, record["sets"][0]["n"], verdict)
        for name, record in found["evaluations"].items()
        for candidate, verdict in record["verdict"].items()
    ]


def classifier_tests(
    found: dict[str, Any] | None,
) -> list[tuple[str, int, str, str, dict[str, Any]]]:
    """Sample, n, candidate, level, test."""
    if found is None:
        return []
    return [
        (title(name, entry), entry["n"], candidate, level, test)
        for name, record in found["evaluations"].items()
        for entry in record["sets"]
        for candidate, tests in entry["classifier"].items()
        for level, test in tests.get("trees", {}).items()
    ]


def summary(found: dict[str, Any]) -> list[str]:
    """The verdicts and the classifier tests."""
    return [
        table(
            ["sample", "simulation", "n", "rows above the floor's 95 % quantile", "p",
             "geometric-mean floor ratio", "largest excess, upper 95 % (σ)"],
            [
                [name, candidate, f"{n:,}", f"{v['above']} of {v['of']}", p_value(v),
                 ", ".join(f"{entry['ratio_geometric_mean'][candidate]:.2f}"
                           for entry in found["evaluations"][name]["sets"]),
                 worst(found["evaluations"][name], candidate)]
                for name, candidate, n, v in verdicts(found)
            ],
        ),
        f"Classifier test (boosted trees, {SETTINGS.seeds} seeds, {SETTINGS.folds}-fold; floor: the "
        "same between two samples of the reference). Learning curve: AUC (floor) against showers per "
        "class in the classifier's training, one seed at the smaller sizes.",
        table(
            ["sample", "simulation", "n", "input", "AUC", "floor AUC", "AUC − floor",
             "learning curve"],
            [
                [where, candidate, f"{n:,}", level, plus_minus(t["auc"], t["se"]),
                 plus_minus(t["floor_auc"], t["floor_se"]), above_floor(t), curve(t)]
                for where, n, candidate, level, t in classifier_tests(found)
            ],
        ),
    ]  # fmt: skip


def worst(record: dict[str, Any], candidate: str) -> str:
    """The largest upper limit of an excess, and its row: ``0.034 (n_hit, 20 GeV)``."""
    value, where = max(
        (row["candidates"][candidate]["excess_upper95"], f"{row['observable']}, {entry['label']}")
        for entry in record["sets"]
        for row in entry["rows"]
    )
    return f"{value:.3f} ({where})"


def curve(test: dict[str, Any]) -> str:
    """AUC (floor) against showers per class in the classifier's training."""
    floors = {point["n"]: point["auc"] for point in test["floor_curve"]}
    return ", ".join(f"{p['auc']:.3f} ({floors[p['n']]:.3f}) at {p['n']:,}" for p in test["curve"])


def means(columns: dict[str, dict[str, Any]]) -> str:
    """Quantities down, samples across."""
    names = next(iter(columns.values()))["rows"]
    rows = [
        [name, *(f"{m['rows'][name]['difference']:+.3%} ({m['rows'][name]['sigma']:+.1f})"
                 for m in columns.values())]
        for name in names
    ]  # fmt: skip
    return table(["mean of", *columns], rows)


def largest(samples: Any) -> float:
    """The largest difference of means in standard errors."""
    return max(abs(float(row["sigma"])) for m in samples for row in m["rows"].values())


def count(samples: dict[str, dict[str, Any]]) -> int:
    return sum(len(m["rows"]) for m in samples.values())
