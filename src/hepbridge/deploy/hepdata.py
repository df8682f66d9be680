"""Binned results of an unfolding as a HEPData submission: spectra, covariances, systematic variations.

The layout is that of https://hepdata-submission.readthedocs.io: ``submission.yaml`` and a YAML file for each
table, in a folder or a ``.tar.gz``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.tables import Table
from hepbridge.deploy.hepdata_files import written
from hepbridge.report.histograms import bin_edges
from hepbridge.report.unfolding import label_of, symbol_of

__all__ = ["KINDS", "Measurement", "default_edges", "spectrum", "write_hepdata"]

Floats = NDArray[np.float64]

KINDS = ("normalised", "cross-section", "events")
_DIGITS = 8  # significant
_TITLE = 32  # characters of a title; with what is added a name may have 64
_KEYWORDS = ("reactions", "cmenergies", "phrases")


def default_edges(table: Table, column: str) -> Floats:
    """Equal bins of a round width over the central 99 % of a column; whole ones for integers."""
    x = table.column(column)[table.is_defined(column)]
    if not len(x):
        raise DataError(f"column {column!r} has no value in any event")
    return bin_edges(x, [], integer=bool((x == np.round(x)).all()))


def spectrum(
    table: Table,
    column: str,
    edges: ArrayLike,
    *,
    kind: str = "normalised",
    luminosity: float | None = None,
    weights: ArrayLike | None = None,
) -> Floats:
    """A differential spectrum (B,) of unfolded events in bins of ``edges`` (B + 1,).

    Args:
        kind: ``normalised``: (1/N) dN/dx with N *all* events, those outside the bins and without a value
            included; ``cross-section``: dσ/dx = dN/dx / ``luminosity``, in pb for a luminosity in 1/pb;
            ``events``: the number (sum of weights) in each bin.
        weights: (N,), in the place of the table's; those of a bootstrap replica, for example.

    Raises DataError for edges that do not rise, weights of another length or without a positive sum, and
    columns that are not there; ConfigError for another kind, or a luminosity where none belongs.
    """
    _check_kind(kind)
    if (luminosity is not None) != (kind == "cross-section"):
        raise ConfigError("a luminosity is needed for a cross-section, and for nothing else")
    if luminosity is not None and not luminosity > 0:
        raise ConfigError(f"a luminosity is positive, not {luminosity}")
    limits = _edges(edges)
    w = table.weights if weights is None else np.asarray(weights, np.float64)
    w = np.ones(len(table)) if w is None else w
    if w.shape != (len(table),) or not np.isfinite(w).all() or not w.sum() > 0:
        raise DataError(
            f"a spectrum of {len(table)} events needs as many finite weights with a positive sum"
        )
    x, there = table.column(column), table.is_defined(column)
    counts = np.histogram(x[there], limits, weights=w[there])[0].astype(np.float64)
    if kind == "events":
        return counts
    total = w.sum() if luminosity is None else luminosity
    return np.asarray(counts / (total * np.diff(limits)))


@dataclass(frozen=True)
class Measurement:
    """A binned result with its uncertainties.

    Attributes:
        column: of the table; the words of the tables follow from it. unit: of the column.
        kind: see `spectrum`.
        edges: (B + 1,). values: (B,).
        covariance: (B, B), statistical.
        systematics: name -> (up, down), the shifts (B,) of the values under a variation by one standard
            deviation up and down; for a variation with one side only, down is None.
    """

    column: str
    unit: str
    kind: str
    edges: Floats
    values: Floats
    covariance: Floats
    systematics: dict[str, tuple[Floats, Floats | None]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        column: str,
        edges: ArrayLike,
        values: ArrayLike,
        replicas: ArrayLike,
        variations: Mapping[str, ArrayLike | tuple[ArrayLike, ArrayLike]] | None = None,
        *,
        unit: str = "1",
        kind: str = "normalised",
    ) -> Measurement:
        """From the spectra (`spectrum`) of the result, its bootstrap replicas and its variations.

        ``replicas`` (R, B): the covariance is theirs, with R − 1. ``variations``: name -> the varied spectrum
        (B,), or two of them, up and down.

        Raises DataError for shapes that do not fit, fewer than two replicas, and what is not finite.
        """
        _check_kind(kind)
        limits, found = _edges(edges), np.asarray(values, np.float64)
        bins = len(limits) - 1
        drawn = np.asarray(replicas, np.float64)
        if found.shape != (bins,) or drawn.ndim != 2 or drawn.shape[1] != bins or len(drawn) < 2:
            raise DataError(
                f"{column}: {bins} bins need values of shape ({bins},) and at least two replicas "
                f"(R, {bins}); got {found.shape} and {drawn.shape}"
            )
        shifts: dict[str, tuple[Floats, Floats | None]] = {}
        for name, varied in (variations or {}).items():
            sides = varied if isinstance(varied, tuple) else (varied,)
            arrays = [np.asarray(side, np.float64) - found for side in sides]
            if not 1 <= len(arrays) <= 2 or any(a.shape != (bins,) for a in arrays):
                raise DataError(
                    f"{column}: the variation {name!r} is one spectrum of shape ({bins},), or two: "
                    "(up, down)"
                )
            shifts[name] = (arrays[0], arrays[1] if len(arrays) == 2 else None)
        every = [found, drawn, *(a for pair in shifts.values() for a in pair if a is not None)]
        if not all(np.isfinite(a).all() for a in every):
            raise DataError(f"{column}: values, replicas and variations must be finite")
        covariance = np.atleast_2d(np.cov(drawn, rowvar=False))
        return cls(column, unit, kind, limits, found, covariance, shifts)

    @property
    def title(self) -> str:
        """The name of its table."""
        return label_of(self.column)

    def table(self) -> dict[str, Any]:
        """The spectrum as HEPData wants it: bins, values, and errors with labels."""
        bins = [_interval(*pair) for pair in zip(self.edges[:-1], self.edges[1:], strict=True)]
        sigma = np.sqrt(np.diag(self.covariance))
        values = []
        for b, value in enumerate(self.values):
            errors = [{"symerror": _plain(sigma[b]), "label": "stat"}]
            for name, (up, down) in self.systematics.items():
                shift = {
                    "plus": _plain(up[b]),
                    "minus": _plain(-up[b] if down is None else down[b]),
                }
                errors.append({"asymerror": shift, "label": f"sys,{name}"})
            values.append({"value": _plain(value), "errors": errors})
        return {
            "independent_variables": [{"header": self._header(), "values": bins}],
            "dependent_variables": [{"header": self._dependent(), "values": values}],
        }

    def covariance_table(self) -> dict[str, Any]:
        """The statistical covariance: one row for each pair of bins."""
        bins = [_interval(*pair) for pair in zip(self.edges[:-1], self.edges[1:], strict=True)]
        pairs = list(np.ndindex(self.covariance.shape))
        header = self._header()
        unit = _squared(self._dependent().get("units"))
        return {
            "independent_variables": [
                {
                    "header": {**header, "name": f"{header['name']}, {which} bin"},
                    "values": [dict(bins[pair[k]]) for pair in pairs],
                }
                for k, which in enumerate(("first", "second"))
            ],
            "dependent_variables": [
                {
                    "header": {"name": "Statistical covariance", **unit},
                    "values": [{"value": _plain(c)} for c in self.covariance.reshape(-1)],
                }
            ],
        }

    def _header(self) -> dict[str, str]:
        return {
            "name": symbol_of(self.column),
            **({} if self.unit == "1" else {"units": self.unit}),
        }

    def _dependent(self) -> dict[str, str]:
        x = symbol_of(self.column).strip("$") if "$" in symbol_of(self.column) else "x"
        if self.kind == "events":
            return {"name": "Events"}
        per = "" if self.unit == "1" else self.unit
        if self.kind == "normalised":
            units = {"units": f"1/{per}"} if per else {}
            return {"name": rf"$\frac{{1}}{{\sigma}}\,\frac{{d\sigma}}{{d {x}}}$", **units}
        units = {"units": f"pb/{per}" if per else "pb"}
        return {"name": rf"$\frac{{d\sigma}}{{d {x}}}$", **units}


def write_hepdata(
    measurements: Sequence[Measurement],
    path: str | Path,
    *,
    comment: str,
    keywords: Mapping[str, Sequence[str | float]] | None = None,
    descriptions: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a HEPData submission into a new folder, or into a ``.tar.gz``; complete or not at all.

    For each measurement there are two tables: the spectrum with its statistical and systematic errors, and
    the statistical covariance.

    Args:
        comment: what the record is: abstract, phase space, references.
        keywords: of all tables: ``reactions`` ("P P --> Z0 JET X"), ``cmenergies`` (GeV), ``phrases``.
        descriptions: column -> further words on its spectrum.

    Raises ConfigError for other keywords or an empty comment, DataError for no measurements, or two of one
    column, OutputError for a path that cannot be written.
    """
    if not measurements or len({m.column for m in measurements}) < len(measurements):
        raise DataError("a submission needs measurements, each of another column")
    if not comment.strip():
        raise ConfigError("a submission needs a comment: what was measured, in which phase space")
    if unknown := sorted(set(keywords or {}) - set(_KEYWORDS)):
        raise ConfigError(f"there is no keyword {unknown[0]!r}; allowed: {', '.join(_KEYWORDS)}")
    for column in descriptions or {}:
        if column not in {m.column for m in measurements}:
            raise ConfigError(f"there is a description of {column!r}, but no measurement")
    return written(
        _files(measurements, comment, keywords or {}, descriptions or {}), path, overwrite
    )


def _files(
    measurements: Sequence[Measurement],
    comment: str,
    keywords: Mapping[str, Sequence[str | float]],
    descriptions: Mapping[str, str],
) -> dict[str, str]:
    """Name -> text of every file."""
    files: dict[str, str] = {}
    titles: list[str] = []
    entries: list[dict[str, Any]] = [{"comment": comment}]
    said = {
        "normalised": "Normalised differential spectrum",
        "cross-section": "Differential cross-section",
        "events": "Number of events in each bin",
    }
    for m in measurements:
        title = m.title[:_TITLE]
        title = title if title not in titles else f"{title} ({len(titles) + 1})"
        titles.append(title)
        slug = re.sub(r"[^A-Za-z0-9_-]+", "_", m.column).strip("_") or "table"
        slug = slug if f"{slug}.yaml" not in files else f"{slug}_{len(files)}"
        words = (
            f"{said[m.kind]} of the {m.title[:1].lower()}{m.title[1:]}, unfolded to particle level."
        )
        extra = descriptions.get(m.column)
        kinds = {"normalised": "DSIG/DX/SIG", "cross-section": "DSIG/DX", "events": "N"}
        tables = (
            (title, f"{words} {extra}" if extra else words, slug, m.table()),
            (
                f"{title}: statistical covariance",
                f"Statistical covariance of the table '{title}', from bootstrap replicas.",
                f"{slug}_covariance",
                m.covariance_table(),
            ),
        )
        for name, description, stem, table in tables:
            files[f"{stem}.yaml"] = _yaml(table)
            entries.append(
                {
                    "name": name,
                    "description": description,
                    "keywords": [
                        {"name": "observables", "values": [kinds[m.kind]]},
                        *({"name": k, "values": list(v)} for k, v in keywords.items()),
                    ],
                    "data_file": f"{stem}.yaml",
                }
            )
    return {"submission.yaml": "---\n".join(["", *(_yaml(e) for e in entries)]), **files}


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ConfigError(f"there is no kind of spectrum {kind!r}; allowed: {', '.join(KINDS)}")


def _edges(edges: ArrayLike) -> Floats:
    limits = np.asarray(edges, np.float64)
    if limits.ndim != 1 or len(limits) < 2 or not (np.diff(limits) > 0).all():
        raise DataError("the edges of bins are two or more numbers that rise")
    if not np.isfinite(limits).all():
        raise DataError("the edges of bins must be finite")
    return limits


def _interval(low: float, high: float) -> dict[str, float]:
    return {"low": _plain(low), "high": _plain(high)}


def _plain(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}") + 0.0  # no minus zero


def _squared(unit: str | None) -> dict[str, str]:
    return {} if unit is None else {"units": f"({unit})^2"}


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=None))
