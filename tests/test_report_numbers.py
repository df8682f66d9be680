"""The numbers behind figures and tables: bins, ratios and errors, formats, verdicts in words."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hepbridge.core.errors import ConfigError
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.report.console import markdown, table
from hepbridge.report.histograms import (
    Binned,
    band,
    bin_edges,
    cell_spectrum,
    profile,
    ratio,
    shower_distribution,
)
from hepbridge.report.panels import PANELS, _outside
from hepbridge.report.style import roles, styles
from hepbridge.report.text import number, percent, plus_minus, shorthand, times
from hepbridge.report.words import against_baselines, grade, halved, judge, losses, mean_ratios

SQUARE = Geometry("square", (2, 2), ("x", "y"), (1.0, 1.0))


def showers(cells: np.ndarray, weights: np.ndarray | None = None) -> Showers:
    return Showers.from_arrays(cells, np.full(len(cells), 100.0), geometry=SQUARE, weights=weights)


def test_ratio_errors_by_hand() -> None:
    """Fails if the errors of reference and candidate are mixed, or not scaled with their size."""
    edges = np.array([0.0, 1.0, 2.0])
    ref = shower_distribution(np.repeat([0.5, 1.5], [100, 400]), None, edges)
    cand = shower_distribution(np.repeat([0.5, 1.5], [60, 140]), None, edges)
    value, error, ref_error = ratio(cand, ref)
    # fractions 0.3, 0.7 against 0.2, 0.8; Poisson: sqrt(count) / size
    assert value == pytest.approx([0.3 / 0.2, 0.7 / 0.8])
    assert error == pytest.approx([np.sqrt(60) / 200 / 0.2, np.sqrt(140) / 200 / 0.8])
    assert ref_error == pytest.approx([1 / np.sqrt(100), 1 / np.sqrt(400)])


def test_weighted_errors_are_sums_of_squares() -> None:
    edges = np.array([0.0, 1.0, 2.0])
    binned = shower_distribution(np.array([0.5, 0.5, 1.5]), np.array([3.0, 1.0, 4.0]), edges)
    assert binned.values == pytest.approx([0.5, 0.5])
    assert binned.sigma == pytest.approx([np.sqrt(9 + 1) / 8, 4 / 8])


def test_overflow_is_counted_and_kept_in_the_normalisation() -> None:
    """Fails if what lies outside is dropped: the bins would then add up to 1."""
    binned = shower_distribution(np.array([-5.0, 0.5, 0.6, 9.0]), None, np.array([0.0, 1.0]))
    assert (binned.below, binned.above) == (0.25, 0.25)
    assert binned.values == pytest.approx([0.5])


def test_ratio_is_not_drawn_where_the_reference_is_unknown() -> None:
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    ref = shower_distribution(np.repeat([0.5, 1.5], [3, 97]), None, edges)
    value, *_ = ratio(ref, ref)
    assert np.isnan(value[[0, 2]]).all()
    assert value[1] == 1.0


@settings(derandomize=True, max_examples=30, deadline=None)
@given(
    centre=st.floats(-1e3, 1e3),
    scale=st.floats(1e-2, 1e3),
    shift=st.floats(-50, 50),
    integer=st.booleans(),
)
def test_bins_hold_the_bulk_of_the_reference(
    centre: float, scale: float, shift: float, integer: bool
) -> None:
    rng = np.random.default_rng(1)
    ref = rng.normal(centre, scale, 500)
    other = ref + shift * scale
    if integer:
        ref, other = np.round(ref), np.round(other)
    edges = bin_edges(ref, [other], integer=integer)
    widths = np.diff(edges)
    assert widths == pytest.approx(widths[0])
    assert np.mean((ref >= edges[0]) & (ref < edges[-1])) >= 0.985
    assert len(widths) <= 100
    if integer:
        assert edges[0] % 1 == 0.5 and widths[0] == round(widths[0])


def test_bins_of_a_constant_reference() -> None:
    edges = bin_edges(np.full(100, 7.0), [np.full(100, 7.0)])
    assert edges[0] <= 7.0 < edges[-1]


def test_captions_name_what_is_lost_above_one_per_cent() -> None:
    edges, none = np.array([0.0, 1.0]), np.zeros(1)
    drawn = {
        "full": Binned(edges, none, none, below=0.4, above=0.009),
        "fast": Binned(edges, none, none, below=0.011, above=0.02),
    }
    assert (
        _outside(PANELS["e_sum"], drawn) == "full 40.0 % below, fast 1.1 % below, fast 2.0 % above"
    )
    assert _outside(PANELS["e_spec"], drawn) == "fast 2.0 % above"  # empty cells are below


def test_cell_spectrum_against_a_loop() -> None:
    rng = np.random.default_rng(2)
    s = showers(10 ** rng.uniform(-2, 3, (40, 4)))
    edges = np.array([1e-4, 1e-3, 1e-2, 1e-1])
    binned = cell_spectrum(s, edges)
    gev = s.cells / 1000.0
    for b in range(3):
        counts = [sum(edges[b] <= e < edges[b + 1] for e in row) for row in gev]
        assert binned.values[b] == pytest.approx(np.mean(counts))
        assert binned.sigma[b] == pytest.approx(np.std(counts) / np.sqrt(len(counts)))
    assert binned.below == pytest.approx(np.mean(gev < 1e-4))
    assert binned.above == pytest.approx(np.mean(gev >= 1e-1))


def test_profile_error_is_that_of_a_bootstrap() -> None:
    """Within 5 standard errors of the bootstrap's own scatter, σ/√(2·400)."""
    rng = np.random.default_rng(3)
    s = showers(rng.gamma(2.0, 10.0, (300, 4)), rng.uniform(0.5, 2.0, 300))
    binned = profile(s, "x")
    assert binned.values.sum() == pytest.approx(1.0)
    draws = [profile(s[rng.integers(0, 300, 300)], "x").values for _ in range(400)]
    assert binned.sigma == pytest.approx(np.std(draws, axis=0), rel=5 / np.sqrt(800))


def test_band_is_mean_and_deviation_of_the_members() -> None:
    edges = np.array([0.0, 1.0, 2.0])
    members = [
        shower_distribution(np.repeat([0.5, 1.5], [k, 10 - k]), None, edges) for k in (2, 4, 6)
    ]
    mean, spread = band(members)
    assert mean == pytest.approx([0.4, 0.6])
    assert spread == pytest.approx([0.2, 0.2])
    assert band(members[:1])[1] == pytest.approx([0.0, 0.0])


@pytest.mark.parametrize(
    ("value", "sigma", "text"),
    [
        (0.02134, 0.00041, "0.0213 ± 0.0004"),
        (0.02134, 0.00014, "0.02134 ± 0.00014"),
        (11.372, 0.0096, "11.372 ± 0.010"),
        (123.4, 25.0, "123 ± 25"),
        (0.5, 0.0, "0.500"),
    ],
)
def test_plus_minus(value: float, sigma: float, text: str) -> None:
    assert plus_minus(value, sigma) == text


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.floats(1e-5, 1e5), st.floats(1e-6, 1e3))
def test_plus_minus_rounds_by_less_than_sigma(value: float, sigma: float) -> None:
    shown, error = plus_minus(value, sigma).split(" ± ")
    assert abs(float(shown) - value) <= 0.5 * sigma + 0.5
    assert float(error) == pytest.approx(sigma, rel=0.35, abs=0.5)


def test_small_formats() -> None:
    assert [number(v) for v in (0.0, 0.000737, 12.34, 1e-9)] == [
        "0",
        "0.000737",
        "12.3",
        "1.00e-09",
    ]
    assert [times(v) for v in (None, 1.04, 17.3)] == ["–", "1.0×", "17×"]
    assert [percent(v) for v in (0.0, 0.00031, 0.0312)] == ["0.0 %", "0.031 %", "3.1 %"]


def cell(emd: float, ratio: float | None, above: bool | None) -> dict:
    return {
        "emd": emd,
        "sigma": 0.01,
        "ratio": ratio,
        "excess": None,
        "excess_upper95": None,
        "above_q95": above,
    }


def record(
    refined: float = 1.1, baseline: float = 5.0, floor: bool = True, auc: float | None = None
) -> dict:
    """Two rows at one energy; the energy sum is starred where the candidates are all alike."""

    def cells(scale: float) -> dict:
        return {
            name: cell(0.1 * r * scale, r if floor else None, r > 1.5 if floor else None)
            for name, r in (("gflash", 20.0), ("quantile", baseline), ("refined", refined))
        }

    def verdict(r: float) -> dict:
        return {"above": 2 * (r > 1.5), "of": 2, "p": 0.005 if r > 1.5 else 0.6}

    tested = (
        {}
        if auc is None
        else {
            "refined": {
                "trees": {
                    "low": {
                        "auc": auc,
                        "se": 0.01,
                        "floor_auc": 0.5,
                        "floor_se": 0.01,
                        "n": 100,
                        "curve": [],
                    }
                }
            }
        }
    )
    rows = [
        {
            "observable": o,
            "unit": u,
            "std_ref": 1.0,
            "candidates": cells(s),
            "floor": {"mean": 0.1 * s, "std": 0.02 * s, "q95": 0.15 * s} if floor else None,
        }
        for o, u, s in (("n_hit", "cells", 1.0), ("e_max", "GeV", 0.1))
    ]
    return {
        "sets": [
            {
                "label": "50 GeV",
                "incident_energy_gev": 50.0,
                "n": 1000,
                "floor_n": 1000,
                "floor_source": "ref2" if floor else None,
                "rows": rows,
                "classifier": tested,
            }
        ],
        "verdict": {
            n: verdict(r)
            for n, r in (("gflash", 20.0), ("quantile", baseline), ("refined", refined))
        }
        if floor
        else None,
        "starred": [],
    }


def test_verdict_names_what_fails_and_by_how_much() -> None:
    by_name = {j.name: j for j in judge(record())}
    assert by_name["refined"].status == "compatible"
    assert "0 of 2 rows" in by_name["refined"].summary
    assert by_name["refined"].failures == []
    assert by_name["gflash"].status == "distinguishable"
    assert by_name["gflash"].failures == [
        "cells above 1 MeV, 50 GeV: 20×",
        "largest cell, 50 GeV: 20×",
    ]


def test_every_baseline_is_compared_and_what_is_not_resolved_is_said() -> None:
    """Fails if a difference within two standard errors is called closer, or the fast one a baseline."""
    assert against_baselines(record()) == [
        "refined against quantile: closer in distance (1.1× the floor against 5.0×)."
    ]
    assert "farther in distance" in against_baselines(record(refined=5.0, baseline=1.1))[0]
    # 0.01 of 0.11 in one row, of 0.011 in the other: 0.9 in the logarithms' sum, 0.46 in its mean
    assert "not resolved in distance" in against_baselines(record(baseline=1.2))[0]
    assert against_baselines(record(floor=False)) == []
    tested = record(auc=0.55)
    found = tested["sets"][0]["classifier"]
    found["quantile"] = {"trees": {"low": {**found["refined"]["trees"]["low"], "auc": 0.60}}}
    assert "closer in classifier AUC (0.550 against 0.600)" in against_baselines(tested)[0]
    found["quantile"]["trees"]["low"]["auc"] = 0.57  # 1.4 standard errors
    assert "not resolved in classifier AUC" in against_baselines(tested)[0]


def test_a_halved_reference_is_said_in_table_and_words() -> None:
    found = record()
    assert halved(found) == ""
    found["sets"][0] |= {"floor_source": "split", "n": 400}
    found["samples"] = {"ref": {"n": 1000}}
    assert halved(found).startswith("400 of 1,000 reference showers are compared")
    assert halved(found) in markdown(found)
    out = io.StringIO()
    Console(file=out, width=400).print(table(found))
    assert halved(found) in " ".join(out.getvalue().split())  # the caption is as wide as the table


def test_a_classifier_alone_takes_compatibility_away() -> None:
    judged = {j.name: j for j in judge(record(auc=0.61))}["refined"]
    assert judged.status == "distinguishable"
    assert "told apart by the classifier" in judged.summary
    assert {j.name: j for j in judge(record(auc=0.51))}["refined"].status == "compatible"


def test_a_starred_row_is_no_failure() -> None:
    starred = {**record(), "starred": ["n_hit"]}
    assert {j.name: j for j in judge(starred)}["gflash"].failures == ["largest cell, 50 GeV: 20×"]


def test_without_a_floor_there_is_no_verdict() -> None:
    judgements = judge(record(floor=False))
    assert {j.status for j in judgements} == {"unknown"}
    assert mean_ratios(record(floor=False)) == {}


@pytest.mark.parametrize("floor", [True, False])
def test_losing_to_a_baseline_is_said(floor: bool) -> None:
    """Fails if the comparison is turned around, or skipped where there is no floor."""
    assert losses(record(floor=floor)) == []
    (sentence,) = losses(record(refined=9.0, floor=floor))
    assert sentence.startswith("refined LOSES to the baseline quantile")
    assert len(losses(record(refined=30.0, floor=floor))) == 2


def test_grades() -> None:
    assert [
        grade(cell(1, r, a)) for r, a in ((9.0, False), (2.0, True), (3.0, True), (None, None))
    ] == ["floor", "above", "far", "none"]


def test_roles_and_colours() -> None:
    assert roles(["gflash", "quantile", "squirels"]) == ("gflash", "squirels")
    assert roles(["refined", "other"]) == (None, "refined")
    assert roles(["fast"]) == ("fast", None)
    assert roles(["a", "b"], fast="b") == ("b", "a")
    with pytest.raises(ConfigError, match="refined='c' is no candidate; candidates: a, b"):
        roles(["a", "b"], refined="c")
    look = styles(["gflash", "q", "r"], "gflash", "r")
    assert len({s.colour for s in look.values()}) == len({s.marker for s in look.values()}) == 3


def test_terminal_table_and_markdown_show_the_cells() -> None:
    """Fails if a unit in brackets is taken for rich markup and vanishes."""
    out = io.StringIO()
    Console(file=out, width=200).print(table(record()))
    text, page = out.getvalue(), markdown(record())
    for words in ("n_hit [cells]", "0.10(2)", "2.000(10) (20×) ▲▲", "(1.1×) ✓"):
        assert words in text
    for words in ("cells above 1 MeV [cells]", "0.10 ± 0.02", "2.000 ± 0.010 (20×) ▲▲", "(1.1×) ✓"):
        assert words in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len({line.count("|") for line in rows}) == 1


@pytest.mark.parametrize(
    ("value", "sigma", "text"),
    [
        (0.02134, 0.0004, "0.0213(4)"),
        (10.47, 0.13, "10.47(13)"),
        (3.21, 1.3, "3.2(1.3)"),
        (2.0, 0.0, "2.00"),
    ],
)
def test_shorthand_uncertainties(value: float, sigma: float, text: str) -> None:
    assert shorthand(value, sigma) == text


def test_losing_needs_more_than_chance() -> None:
    """A difference inside two standard errors is no loss; a worse classifier result is one."""
    level = record(refined=5.05)
    assert losses(level) == []
    beaten = record(auc=0.9)
    beaten["sets"][0]["classifier"]["quantile"] = {"trees": {"low": {"auc": 0.6, "se": 0.01}}}
    (sentence,) = losses(beaten)
    assert sentence == (
        "refined LOSES to the baseline quantile in the classifier test: mean AUC 0.900 against 0.600."
    )
