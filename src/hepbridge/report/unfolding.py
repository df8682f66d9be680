"""The record of an unfolding (`hepbridge.metrics.unfolding`) in words and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from hepbridge.report.protocol import Numbers, Record
from hepbridge.report.text import number, p_value, percent, shorthand

__all__ = ["axis_label", "label_of", "losses", "symbol_of", "unfolding_tables"]

_WORDS = {  # column -> (in words, symbol)
    "pt": ("Jet transverse momentum", r"$p_\mathrm{T}$"),
    "rapidity": ("Jet rapidity", "$y$"),
    "phi": ("Jet azimuth", r"$\phi$"),
    "mass": ("Jet mass", "$m$"),
    "width": ("Jet width", "$w$"),
    "multiplicity": ("Constituent multiplicity", "$N$"),
    "ln_rho": ("Groomed jet mass", r"$\ln\rho$"),
    "z_g": ("Groomed momentum sharing", "$z_g$"),
    "tau21": ("N-subjettiness ratio", r"$\tau_{21}$"),
    "z_pt": ("Z boson transverse momentum", r"$p_\mathrm{T}^Z$"),
}
_TIMES = "The second number of a cell is the ratio to what two perfect samples of these sizes have by chance."


def label_of(column: str) -> str:
    """The observable in words."""
    words = column.replace("_", " ")
    return _WORDS[column][0] if column in _WORDS else words[:1].upper() + words[1:]


def symbol_of(column: str) -> str:
    """The symbol of the observable, its name in words if it has none."""
    return _WORDS[column][1] if column in _WORDS else column.replace("_", " ")


def axis_label(column: str, unit: str = "1", divisor: float = 1.0, of: str = "") -> str:
    """``Jet mass $m$ [GeV]``; ``of`` follows the symbol: at which level."""
    symbol = f" {_WORDS[column][1]}" if column in _WORDS else ""
    over = f" / {divisor:g}" if divisor != 1 else ""
    return f"{label_of(column)}{symbol}{over}{of}{'' if unit == '1' else f' [{unit}]'}"


def unfolding_tables(record: Record) -> Iterator[Numbers]:
    """The tables in the order of the page."""
    shown = [*record["baselines"], *record["candidates"]]
    yield _summary(record, shown)
    yield _distances(
        record,
        shown,
        "emd",
        "Earth mover's distance to the truth × 10",
        f"Unbinned, in the unit of the observable. In brackets the standard deviation over "
        f"{record['bootstraps']} bootstraps of the sample. {_TIMES}",
    )
    yield _distances(
        record,
        shown,
        "triangular",
        "Triangular discriminator × 1000",
        f"Of normalised histograms with 29 bins. Errors as above. {_TIMES}",
    )
    if any(_undefined(row) for row in record["rows"]):
        yield _undefined_table(record, shown)
    if (joint := _joint(record, shown)) is not None:
        yield joint
    for who, found in record.get("posteriors", {}).items():
        yield _coverage(who, found)
    if record.get("support"):
        yield _support(record["support"])


def losses(record: Record) -> list[str]:
    """What is said of a candidate that is further from the truth than a sample without any unfolding.

    By more than a tenth in the mean of `_mean`: what is less is chance.
    """
    return [
        f"{candidate} is further from the truth than {baseline} without any unfolding: its earth mover's "
        f"distances are {_mean(record, candidate, 'emd'):.1f} times what chance has, those of {baseline} "
        f"{_mean(record, baseline, 'emd'):.1f} times."
        for candidate in record["candidates"]
        for baseline in record["baselines"]
        if _mean(record, candidate, "emd") > 1.1 * _mean(record, baseline, "emd")
    ]


def _mean(record: Record, who: str, key: str) -> float:
    """Geometric mean over the observables of a distance over that by chance, each at least 1.

    Below chance all are equally good; data at detector level are, where they are the truth's own events.
    """
    cells = [row["candidates"][who][key] for row in record["rows"]]
    logs = [math.log(max(1.0, c["value"] / c["chance"])) for c in cells if c["chance"] > 0]
    return math.exp(sum(logs) / len(logs)) if logs else 1.0


def _summary(record: Record, shown: list[str]) -> Numbers:
    rows = []
    for who in shown:
        cells = [row["candidates"][who]["emd"] for row in record["rows"]]
        near = sum(c["value"] <= c["chance_q95"] for c in cells)
        tested = record["classifier"]
        auc = tested and tested["candidates"][who]
        rows.append(
            [
                who,
                "nothing" if who in record["baselines"] else "unfolded",
                *(f"{_mean(record, who, key):.1f}×" for key in ("emd", "triangular")),
                f"{near} of {len(cells)}",
                shorthand(auc["auc"], auc["se"]) if auc else "–",
            ]
        )
    return Numbers(
        "Summary",
        "Geometric means over the observables of the distance to the truth over that which two perfect samples "
        "of these sizes have by chance, each at least 1; compatible: observables whose earth mover's distance "
        "is below the 95 % quantile by chance; area under the ROC curve of a classifier of all observables "
        "(0.5: it cannot tell).",
        ["sample", "done", "earth mover's", "triangular", "compatible", "AUC"],
        rows,
    )


def _distances(record: Record, shown: list[str], key: str, title: str, caption: str) -> Numbers:
    rows = []
    for row in record["rows"]:
        described = record["observables"][row["observable"]]
        cells = [_distance(row["candidates"][who][key]) for who in shown]
        ground = row["floor"][key]
        unit = [described["unit"].replace("1", "")] if key == "emd" else []
        rows.append([_name(row["observable"], described), *unit, *cells, number(ground["mean"])])
    n = record["rows"][0]["floor"][key]["n"]
    return Numbers(
        title,
        f"{caption} Last column: two samples of the truth of {n:,.0f} events each.",
        ["observable", *(["unit"] if key == "emd" else []), *shown, "truth, twice"],
        rows,
    )


def _name(column: str, described: Mapping[str, Any]) -> str:
    over = f" / {described['divisor']:g}" if described["divisor"] != 1 else ""
    return f"{label_of(column)}{over}"


def _distance(cell: Mapping[str, float]) -> str:
    ratio = cell["value"] / cell["chance"] if cell["chance"] > 0 else None
    text = shorthand(cell["value"], cell["sigma"])
    return text if ratio is None else f"{text} · {ratio:.1f}×"


def _undefined(row: Mapping[str, Any]) -> bool:
    return any(v["value"] > 0 for v in _fractions(row))


def _fractions(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row["undefined"], *(cell["undefined"] for cell in row["candidates"].values())]


def _undefined_table(record: Record, shown: list[str]) -> Numbers:
    rows = []
    for row in record["rows"]:
        if _undefined(row):
            found = [row["undefined"], *(row["candidates"][who]["undefined"] for who in shown)]
            rows.append([label_of(row["observable"]), *(_percent(f) for f in found)])
    return Numbers(
        "Events without a value",
        "In per cent, such as jets in which soft drop finds no splitting. All distances are those of the "
        "events that have one. In brackets the statistical error.",
        ["observable", "truth", *shown],
        rows,
    )


def _percent(found: Mapping[str, Any]) -> str:
    return shorthand(100 * found["value"], 100 * found["sigma"])


def _joint(record: Record, shown: list[str]) -> Numbers | None:
    """Correlations and classifier: all observables together."""
    rows = []
    if (found := record["correlation"]) is not None:
        for key, words in (
            ("frobenius", "Correlations, norm of the difference"),
            ("largest", "Correlations, largest difference"),
        ):
            cells = [found["candidates"][who][key] for who in shown]
            texts = [f"{number(c['value'])} · {c['value'] / c['chance']:.1f}×" for c in cells]
            rows.append([words, *texts, number(found["floor"][key]["mean"])])
    if (tested := record["classifier"]) is not None:
        cells = [tested["candidates"][who] for who in shown]
        texts = [shorthand(c["auc"], c["se"]) for c in cells]
        floor = tested["floor"]
        rows.append(["AUC of a classifier", *texts, shorthand(floor["auc"], floor["se"])])
    if not rows:
        return None
    return Numbers(
        "All observables together",
        "Pearson correlations of the events that have a value; area under the ROC curve of "
        f"gradient-boosted trees that tell a sample from the truth (0.5: they cannot). {_TIMES}",
        ["quantity", *shown, "truth, twice"],
        rows,
    )


def _coverage(who: str, found: Mapping[str, Any]) -> Numbers:
    first = next(iter(found.values()))
    levels = [c["level"] for c in first["coverage"]]
    rows = [
        [
            label_of(column),
            *(shorthand(100 * c["value"], 100 * c["sigma"]) for c in row["coverage"]),
            f"{row['chi2']:.1f} / {row['ndf']}",
            p_value({"p": row["p"]}) if row["p"] > 1e-5 else "p < 0.00001",
        ]
        for column, row in found.items()
    ]
    return Numbers(
        f"Coverage of the posteriors of {who}",
        f"Per cent of {first['n_effective']:,.0f} events whose truth lies in the central interval of "
        f"{first['samples']} posterior samples; the statistical error is that of a calibrated posterior. "
        "χ² of 20 bins of the ranks.",
        ["observable", *(f"{100 * level:g} %" for level in levels), "χ² / ndf", "probability"],
        rows,
    )


def _support(found: Mapping[str, Any]) -> Numbers:
    rows = [
        [
            label_of(column),
            f"{row['below']:,}",
            f"{row['above']:,}",
            f"{row['undefined']:,}",
            percent(row["fraction"]),
            f"{row['tails']:,}",
            f"{row['expected'] * found['n']:.1f}",
            number(row["p"]) if row["p"] >= 1e-5 else "< 0.00001",
        ]
        for column, row in found["columns"].items()
    ]
    return Numbers(
        "Data beyond the simulation",
        f"Of {found['n']:,} data events, {found['any']:,} ({percent(found['any_fraction'])}) lie beyond the "
        f"{found['n_response']:,} simulated ones at detector level in one column or more; there the response "
        f"is extrapolated. Tails: beyond the quantiles of {100 * found['tail']:g} % on either side of the "
        "simulation, how many are expected if the data are like it, and the probability of as many or more.",
        [
            "observable",
            "below",
            "above",
            "undefined",
            "outside",
            "in tails",
            "expected",
            "probability",
        ],
        rows,
    )
