"""Results of an unfolding: compared with a truth, and binned for publication."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge import __version__
from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.tables import Table
from hepbridge.deploy.hepdata import Measurement, default_edges, spectrum, write_hepdata
from hepbridge.metrics.unfolding.evaluation import evaluate_posteriors, evaluate_unfolding
from hepbridge.metrics.unfolding.support import support
from hepbridge.report import check_directory
from hepbridge.report.unfolding_page import write_unfolding
from hepbridge.systems.unfolding.apply import (
    DRAWS_KEY,
    ITERATED_KEY,
    UNFOLDED_KEY,
    unfolded_column,
    weight_column,
)
from hepbridge.systems.unfolding.bootstrap import poisson_weights
from hepbridge.systems.unfolding.response import Response, passing

__all__ = ["Samples", "binned", "write_comparison"]

log = logging.getLogger(__name__)

_REPLICAS = 200


@dataclass(frozen=True)
class Samples:
    """What is compared.

    Attributes:
        truth: events at particle level; those that pass are used.
        unfolded: name -> output of `systems.unfolding.apply`.
        response: tables of both levels, the simulation before any unfolding.
        data: what was unfolded.
        second: more truth, for the floor.
    """

    truth: Table
    unfolded: Mapping[str, Table]
    response: Mapping[str, Table] | None = None
    data: Table | None = None
    second: Table | None = None


def write_comparison(
    samples: Samples,
    output: Path,
    *,
    observables: Sequence[str] = (),
    seed: int = 0,
    overwrite: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Evaluate unfolded events against the truth and write the report; its path and record.

    Raises DataError for samples that do not fit, OutputError if the folder cannot be written.
    """
    check_directory(output, overwrite=overwrite)  # before the slow part
    truth = samples.truth[passing(samples.truth)]
    candidates = {name: _moved(table) for name, table in samples.unfolded.items()}
    chosen = list(observables) or [
        n for n in truth.columns if all(n in t.columns for t in candidates.values())
    ]
    if not chosen:
        raise DataError(
            f"truth and unfolded events have no column in common; the truth has: "
            f"{', '.join(truth.columns)}"
        )
    baselines: dict[str, Table] = {}
    pairs, detector, data = None, None, None
    if samples.response is not None:
        response = Response.from_tables(samples.response, chosen)
        particle, seen = (samples.response[level] for level in ("particle", "detector"))
        baselines["prior"] = particle[response.passes_particle]
        pairs = particle[response.pairs], seen[response.pairs]
    if samples.data is not None:
        data = samples.data[passing(samples.data)]
        baselines["data"], detector = data, "data"
    record = evaluate_unfolding(
        truth,
        candidates,
        chosen,
        baselines=baselines,
        second=None if samples.second is None else samples.second[passing(samples.second)],
        seed=seed,
    )
    if found := _posteriors(truth, samples.unfolded, chosen, seed):
        record["posteriors"] = found
    if pairs is not None and data is not None:
        record["support"] = support(pairs[1], data, chosen)
    record |= {
        "command": shlex.join(["hepbridge", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "hepbridge": __version__,
    }
    path = write_unfolding(
        record,
        truth,
        candidates,
        output,
        baselines=baselines,
        detector=detector,
        response=pairs,
        data=data,
        overwrite=overwrite,
    )
    return path, record


def binned(
    table: Table,
    output: Path,
    *,
    bins: Mapping[str, str] | None = None,
    kind: str = "normalised",
    luminosity: float | None = None,
    comment: str = "Unfolded with hepbridge.",
    replicas: Sequence[Table] = (),
    variations: Mapping[str, Sequence[Table]] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write spectra of unfolded events with covariances as a HEPData submission; bins by observable.

    ``bins``: observable -> "0,5,10" or "0:60:30"; default: all unfolded columns. The covariance is that
    of ``replicas``, outputs for bootstrap replicas of the data; without, that of Poisson numbers on the
    unfolded events, which lacks what the training would have made of other data. Simulated events with
    weights need replicas: how many were simulated says nothing of the data.

    Raises ConfigError for bins that are none and for weighted events without replicas, DataError for
    tables without the columns.
    """
    nominal = _moved(table)
    names = list(bins or {}) or _unfolded(table)[0]
    if not names:
        raise ConfigError(
            "these are weighted events, not unfolded ones: say which columns to bin (--bins mass=0:60:30)"
        )
    if not replicas and not _unfolded(table)[0]:
        raise ConfigError(
            "the statistical error is missing: without unfolded columns these are simulated events with "
            "the weights of an unfolding, and Poisson numbers on them (also their columns replica_0, …) "
            "are no error of the data. Train on replicas of the data (hepbridge unfold train … "
            "--bootstrap K, several K), apply each model and give each output with --replica"
        )
    if not replicas and int(table.meta.get(ITERATED_KEY, 0)):
        log.warning(
            "the spectrum of an iterated model is learned from the data, too, and a bootstrap of the "
            "unfolded events keeps the model: the errors are too small. Train on replicas of the data "
            "(hepbridge unfold train … --bootstrap K, several K) and give each output with --replica"
        )
    again = [_moved(other) for other in replicas]
    drawn = [] if again else _poisson(nominal, seed)
    varied = {name: [_moved(t) for t in ts] for name, ts in (variations or {}).items()}
    found = []
    for name in names:
        edges = _edges((bins or {}).get(name), name, nominal)
        of = partial(spectrum, column=name, edges=edges, kind=kind, luminosity=luminosity)
        found.append(
            Measurement.of(
                name,
                edges,
                of(nominal),
                [of(other) for other in again]
                or [of(nominal, weights=weights) for weights in drawn],
                {key: _sides([of(t) for t in ts], key) for key, ts in varied.items()},
                unit=nominal.units[name],
                kind=kind,
            )
        )
    write_hepdata(found, output, comment=comment, overwrite=overwrite)
    return {m.column: len(m.values) for m in found}


def _poisson(table: Table, seed: int) -> list[NDArray[np.float64]]:
    """Weights (N,) of replicas of the events."""
    own = np.ones(len(table)) if table.weights is None else table.weights
    return [own * poisson_weights(seed, k, table.event_ids) for k in range(_REPLICAS)]


def _moved(table: Table) -> Table:
    """The (first) unfolded columns under the names of the observables, with the weights of that draw;
    weighted events as they are."""
    names, draws = _unfolded(table)
    if not names:
        return table
    new = {name: unfolded_column(name, 0, draws) for name in names}
    for column in new.values():
        table.column(column)
    return replace(
        table,
        columns={name: table.columns[column] for name, column in new.items()},
        units={name: table.units[column] for name, column in new.items()},
        defined={n: table.defined[c] for n, c in new.items() if c in table.defined},
        weights=table.column(weight_column(0)) if draws > 1 else table.weights,
    )


def _unfolded(table: Table) -> tuple[list[str], int]:
    """The observables that were unfolded event by event, and how many draws there are of each."""
    names = str(table.meta.get(UNFOLDED_KEY, ""))
    return [n for n in names.split(",") if n], int(table.meta.get(DRAWS_KEY, 1))


def _posteriors(
    truth: Table, unfolded: Mapping[str, Table], names: Sequence[str], seed: int
) -> dict[str, Any]:
    """Calibration of those with several draws for each event, where the truth has the same events."""
    out: dict[str, dict[str, Any]] = {}
    rows = {tuple(i): k for k, i in enumerate(truth.event_ids.tolist())}
    for who, table in unfolded.items():
        draws = _unfolded(table)[1]
        at = np.array([rows.get(tuple(i), -1) for i in table.event_ids.tolist()])
        if draws < 2 or not (at >= 0).any():
            continue
        own = table[at >= 0]
        found = {
            name: np.stack(
                [own.column(unfolded_column(name, k, draws)) for k in range(draws)], axis=1
            )
            for name in names
        }
        out |= evaluate_posteriors(truth[at[at >= 0]], {who: found}, seed=seed)
    return out


def _edges(text: str | None, name: str, table: Table) -> NDArray[np.float64]:
    if text is None:
        return default_edges(table, name)
    try:
        if ":" in text:
            low, high, count = text.split(":")
            return np.linspace(float(low), float(high), int(count) + 1)
        return np.array([float(edge) for edge in text.split(",")])
    except ValueError as error:
        raise ConfigError(
            f"bins of {name!r}: {text!r} is neither edges (0,5,10) nor low:high:number (0:60:30)"
        ) from error


def _sides(spectra: list[NDArray[np.float64]], name: str) -> Any:
    if len(spectra) not in (1, 2):
        raise ConfigError(f"variation {name!r} has {len(spectra)} files; one, or two: up and down")
    return spectra[0] if len(spectra) == 1 else (spectra[0], spectra[1])
