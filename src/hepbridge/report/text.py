"""How numbers are written, the same in figures, tables and on the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

__all__ = [
    "above_floor",
    "name_of",
    "number",
    "p_value",
    "percent",
    "plus_minus",
    "shorthand",
    "times",
]

_NAMES = {
    "e_sum": "energy sum",
    "e_ratio": "energy sum / incident energy",
    "e_max": "largest cell",
    "n_hit": "cells above 1 MeV",
    "e_spec": "cell spectrum",
    "e_spec_log": "cell spectrum (log)",
    "profile_x": "profile in x",
    "profile_y": "profile in y",
    "profile_z": "profile in depth",
    "profile_r": "profile in radius",
    "hits": "cells above the threshold",
    "centre_x": "centre in x",
    "centre_y": "centre in y",
    "centre_z": "centre in depth",
    "width_x": "width in x",
    "width_y": "width in y",
    "width_z": "width in depth",
    "correlation": "correlations",
    "e_layer": "energies of layers",
    "hits_layer": "hits in layers",
}
_LAYERS = {"e_layer": "energy of layer", "hits_layer": "hits in layer"}


def name_of(observable: str) -> str:
    """The observable in words; a name without words of its own is shown as it is."""
    layer = re.fullmatch(r"(e_layer|hits_layer)_(\d+)", observable)
    if layer:
        return f"{_LAYERS[layer[1]]} {layer[2]}"
    return _NAMES.get(observable, observable.replace("_", " "))


def above_floor(test: Mapping[str, float | None]) -> str:
    """AUC − floor AUC with its upper limit, ``0.021 (< 0.037 at 95 %)``; a dash without a floor."""
    excess, upper = test.get("excess"), test.get("excess_upper95")
    return "–" if excess is None else f"{excess:.3f} (< {upper:.3f} at 95 %)"


def plus_minus(value: float, sigma: float) -> str:
    """``0.0213 ± 0.0004``: sigma with two digits if it begins with 1, otherwise with one."""
    if not (math.isfinite(value) and math.isfinite(sigma)) or sigma <= 0:
        return number(value)
    digits = _digits(sigma)
    return f"{value:.{digits}f} ± {sigma:.{digits}f}"


def shorthand(value: float, sigma: float) -> str:
    """``0.0213(4)``: the uncertainty of the last digits in brackets, as in the paper's tables."""
    if not (math.isfinite(value) and math.isfinite(sigma)) or sigma <= 0:
        return number(value)
    digits = _digits(sigma)
    last = f"{sigma:.{digits}f}"
    return f"{value:.{digits}f}({last if float(last) >= 1 else last.replace('.', '').lstrip('0')})"


def _digits(sigma: float) -> int:
    """Decimals at which an uncertainty is rounded."""
    power = math.floor(math.log10(sigma))
    if round(sigma / 10.0**power, 6) < 1.95:
        power -= 1
    return max(0, -power)


def number(value: float) -> str:
    """Three significant digits, without an exponent down to 1e-5."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -5 or magnitude > 5:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - magnitude)}f}"


def p_value(verdict: Mapping[str, float]) -> str:
    """``p = 0.295``, or ``p ≤ 0.005`` at the bound of a verdict: 200 splits know no more.

    The bound is rounded up to two significant digits, so that it stays one.
    """
    p, bound = verdict["p"], verdict.get("p_bound", 0.0)
    if p > bound:
        return f"p = {number(p)}"
    digits = 1 - math.floor(math.log10(bound))
    return f"p ≤ {math.ceil(round(bound * 10.0**digits, 6)) / 10.0**digits:g}"


def times(ratio: float | None) -> str:
    """A floor ratio: ``1.2×``, ``17×``; a dash where there is no floor."""
    if ratio is None:
        return "–"
    return f"{ratio:.1f}×" if ratio < 9.95 else f"{ratio:.0f}×"


def percent(fraction: float) -> str:
    """``0.03 %``: two significant digits below one per cent."""
    value = 100.0 * fraction
    return f"{value:.1f} %" if value >= 0.95 or value == 0 else f"{value:.2g} %"
