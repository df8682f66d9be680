"""What the numbers of an evaluation say, in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hepbridge.metrics.rows import weighted_mean
from hepbridge.report.style import roles
from hepbridge.report.text import above_floor, name_of, p_value, times

__all__ = [
    "GRADES",
    "MARKS",
    "Judgement",
    "against_baselines",
    "grade",
    "halved",
    "judge",
    "losses",
    "mean_auc",
    "mean_error",
    "mean_ratios",
    "summary",
]

_LEVEL = 0.05  # p below which a candidate is called distinguishable
_FAR = 3.0  # floor ratio from which a row counts as far away
_SIGMAS = 3.0  # of an AUC above its floor

Record = Mapping[str, Any]

GRADES = {
    "floor": "at the floor",
    "above": "above the floor",
    "far": "far above the floor",
    "none": "no floor",
}
MARKS = {"floor": "✓", "above": "▲", "far": "▲▲", "none": ""}


def grade(cell: Record) -> str:
    """The key of `GRADES` of one candidate in one row."""
    if cell["above_q95"] is None:
        return "none"
    if not cell["above_q95"]:
        return "floor"
    return "far" if cell["ratio"] is None or cell["ratio"] >= _FAR else "above"


@dataclass(frozen=True)
class Judgement:
    """One candidate: ``status`` is compatible, distinguishable or unknown; the rest is prose."""

    name: str
    status: str
    summary: str
    failures: list[str] = field(default_factory=list)


def judge(record: Record) -> list[Judgement]:
    """A verdict for every candidate, in the order of the tables."""
    means = mean_ratios(record)
    return [_judge(record, name, means.get(name)) for name in _candidates(record)]


def summary(record: Record) -> str:
    """The verdicts in plain lines, and how the refined candidate does against the baselines."""
    lines = [f"{found.name}: {found.summary}" for found in judge(record)]
    return "\n".join([*lines, *against_baselines(record), *losses(record)])


def halved(record: Record) -> str:
    """What a floor from halves of the reference costs; empty if there is none."""
    split = [entry["n"] for entry in record["sets"] if entry.get("floor_source") == "split"]
    if not split:
        return ""
    return (
        f"{sum(split):,} of {record['samples']['ref']['n']:,} reference showers are compared, as "
        "many others make the floor; pass a second full simulation (--ref2) to use all."
    )


def _judge(record: Record, name: str, mean: float | None) -> Judgement:
    verdict = (record.get("verdict") or {}).get(name)
    told = _classifier(record, name)
    if verdict is None:
        summary = (
            "no floor, so no verdict: only the distances are given. "
            "A second full simulation gives one."
        )
        return Judgement(name, "unknown", " ".join(filter(None, [summary, told[1]])))
    passed = verdict.get("p_global", verdict["p"]) >= _LEVEL
    status = "compatible" if passed and not told[0] else "distinguishable"
    of_rows = (
        f"{verdict['above']} of {verdict['of']} rows lie above the 95 % quantile of the floor "
        f"({p_value(verdict)}){_alone(record, name, verdict)}"
    )
    if status == "compatible":
        lead = f"compatible with full simulation at this sample size: {of_rows}"
    elif passed:
        lead = (
            f"at the floor in the one-dimensional rows, yet told apart by the classifier: {of_rows}"
        )
    else:
        lead = f"distinguishable from full simulation: {of_rows}"
    mean_words = "" if mean is None else f", at {times(mean)} the floor in the geometric mean"
    summary = " ".join(filter(None, [f"{lead}{mean_words}.", told[1]]))
    return Judgement(name, status, summary, _failures(record, name))


def _alone(record: Record, name: str, verdict: Record) -> str:
    """How many rows stand out on their own, corrected for the number of rows looked at."""
    if "p_max" not in verdict:  # a record of before
        return ""
    found = sum((cell.get("p_adjusted") or 1.0) < _LEVEL for _, _, cell in _cells(record, name))
    smallest = p_value({"p": verdict["p_max"], "p_bound": verdict["p_bound"]})
    return (
        f", and {found} {'stands' if found == 1 else 'stand'} out even among so many rows "
        f"(smallest corrected {smallest})"
    )


def _failures(record: Record, name: str) -> list[str]:
    """The rows above the floor, the worst first: ``cells above 1 MeV, 80 GeV: 41×``."""
    worst: dict[tuple[str, str], tuple[float, str, int]] = {}
    for entry, row, cell in _cells(record, name):
        if cell["above_q95"] and row["observable"] not in record["starred"]:
            key = entry["label"], row.get("group", row["observable"])
            ratio, words = cell["ratio"] or math.inf, name_of(row["observable"])
            before = worst.get(key, (-math.inf, "", 0))
            chosen = max((ratio, words), before[:2], key=lambda found: found[0])
            worst[key] = (*chosen, before[2] + 1)
    return [
        f"{words}{f' (the worst of {count} such rows)' if count > 1 else ''}, {label}: "
        f"{times(None if math.isinf(ratio) else ratio)}"
        for (label, _), (ratio, words, count) in sorted(worst.items(), key=lambda item: -item[1][0])
    ]


def _classifier(record: Record, name: str) -> tuple[bool, str]:
    """Whether a classifier tells the candidate from full simulation; the strongest in words."""
    results = [
        (r, f"{kind} on {level}-level inputs, {entry['label']}")
        for entry in record["sets"]
        for kind, levels in entry["classifier"].get(name, {}).items()
        for level, r in levels.items()
    ]
    if not results:
        return False, ""
    worst, where = max(results, key=lambda result: result[0]["auc"])
    words = f"Strongest classifier ({where}): AUC {worst['auc']:.3f} ± {worst['se']:.3f}"
    if worst["floor_auc"] is None:
        return False, words + "."
    tells = any(
        r["floor_auc"] is not None
        and r["auc"] - r["floor_auc"] > _SIGMAS * math.hypot(r["se"], r["floor_se"])
        for r, _ in results
    )
    words += f", floor {worst['floor_auc']:.3f} ± {worst['floor_se']:.3f}"
    if worst.get("excess") is not None:
        words += f": {above_floor(worst)} above the floor"
    return tells, words + "."


def losses(record: Record, fast: str | None = None, refined: str | None = None) -> list[str]:
    """Sentences for every candidate that the refined one loses to; empty if it loses to none.

    Compared by the geometric mean of the floor ratios, without a floor by the number of rows, and
    by the AUC of every classifier, averaged over sets and inputs. It loses a comparison if it is
    worse by more than two standard errors: one sample more or less must not turn the sentence.
    """
    names = _candidates(record)
    fast, refined = roles(names, fast, refined)
    if refined is None:
        return []
    means, found = mean_ratios(record), []
    for other in (n for n in names if n != refined):
        whom = (
            f"{'the fast simulation it starts from' if other == fast else 'the baseline'} {other}"
        )
        if refined in means and other in means:
            worse = means[refined] > means[other] * math.exp(
                _SURE * mean_error(record, refined, other)
            )
            if worse:
                found.append(
                    f"{refined} LOSES to {whom}: {times(means[refined])} the floor against "
                    f"{times(means[other])} (geometric means over all rows)."
                )
        else:
            rows = list(zip(_cells(record, refined), _cells(record, other), strict=True))
            count = sum(a[2]["emd"] >= b[2]["emd"] for a, b in rows)
            if 2 * count >= len(rows):
                found.append(
                    f"{refined} LOSES to {whom}: it is not closer to full simulation in "
                    f"{count} of {len(rows)} rows."
                )
        mine, its = mean_auc(record, refined), mean_auc(record, other)
        if mine and its and mine[0] - its[0] > _SURE * math.hypot(mine[1], its[1]):
            found.append(
                f"{refined} LOSES to {whom} in the classifier test: mean AUC {mine[0]:.3f} against "
                f"{its[0]:.3f}."
            )
    return found


def against_baselines(
    record: Record, fast: str | None = None, refined: str | None = None
) -> list[str]:
    """For every baseline whether the refined candidate is closer to full simulation or not.

    In distance (geometric mean of the floor ratios) and in AUC (mean of the classifier tests), as
    far as there are any; within two standard errors nothing is resolved, as in `losses`.
    """
    names = _candidates(record)
    fast, refined = roles(names, fast, refined)
    if refined is None:
        return []
    means, found = mean_ratios(record), []
    for other in (n for n in names if n not in (fast, refined)):
        parts = []
        if refined in means and other in means and min(means[refined], means[other]) > 0:
            difference = math.log(means[refined] / means[other])
            words = f"distance ({times(means[refined])} the floor against {times(means[other])})"
            parts.append((difference, mean_error(record, refined, other), words))
        mine, its = mean_auc(record, refined), mean_auc(record, other)
        if mine and its:
            words = f"classifier AUC ({mine[0]:.3f} against {its[0]:.3f})"
            parts.append((mine[0] - its[0], math.hypot(mine[1], its[1]), words))
        told = ", ".join(f"{_closer(value, error)} in {words}" for value, error, words in parts)
        if told:
            found.append(f"{refined} against {other}: {told}.")
    return found


def _closer(difference: float, error: float) -> str:
    if abs(difference) <= _SURE * error:
        return "not resolved"
    return "closer" if difference < 0 else "farther"


_SURE = 2.0  # standard errors


def mean_error(record: Record, *names: str) -> float:
    """Standard error of the difference of two logarithmic mean ratios, rows taken as independent."""
    total, rows = 0.0, 1.0
    for name in names:
        cells = [
            (entry["label"], row.get("group"), cell)
            for entry, row, cell in _cells(record, name)
            if row["observable"] not in record["starred"]
        ]
        size = Counter((label, group) for label, group, _ in cells)
        weight = [1.0 if g is None else 1.0 / size[label, g] for label, g, _ in cells]
        total += sum(
            (w * c["sigma"] / c["emd"]) ** 2
            for w, (_, _, c) in zip(weight, cells, strict=True)
            if c["emd"] > 0
        )
        rows = max(rows, sum(weight))
    return math.sqrt(total) / rows


def mean_auc(record: Record, name: str) -> tuple[float, float] | None:
    """Mean AUC and its standard error over sets, classifiers and inputs; None if there is none."""
    tests = [
        test
        for entry in record["sets"]
        for levels in entry["classifier"].get(name, {}).values()
        for test in levels.values()
    ]
    if not tests:
        return None
    # inputs share their showers: the errors do not shrink with the number of tests
    return sum(t["auc"] for t in tests) / len(tests), max(t["se"] for t in tests)


def mean_ratios(record: Record) -> dict[str, float]:
    """Geometric mean of the floor ratios over all rows of all sets that are not starred.

    A group of rows of one set weighs as much as one row.
    """
    means = {}
    for name in _candidates(record):
        ratios = [
            (cell["ratio"], f"{row['group']}, {entry['label']}" if "group" in row else None)
            for entry, row, cell in _cells(record, name)
            if cell["ratio"] is not None and row["observable"] not in record["starred"]
        ]
        mean = weighted_mean(ratios)
        if mean is not None:
            means[name] = mean
    return means


def _candidates(record: Record) -> list[str]:
    return list(
        dict.fromkeys(n for s in record["sets"] for row in s["rows"] for n in row["candidates"])
    )


def _cells(record: Record, name: str) -> Iterator[tuple[Record, Record, Record]]:
    """(set, row, cell) of a candidate."""
    for entry in record["sets"]:
        for row in entry["rows"]:
            if name in row["candidates"]:
                yield entry, row, row["candidates"][name]
