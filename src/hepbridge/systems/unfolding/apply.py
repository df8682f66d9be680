"""Using a model of an unfolding: on measured events, and on simulated ones."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.rng import stream_key
from hepbridge.data.tables import Table
from hepbridge.systems.unfolding.bootstrap import poisson_weights
from hepbridge.systems.unfolding.candidates import Candidates
from hepbridge.systems.unfolding.data import Data
from hepbridge.systems.unfolding.model_file import UnfoldingModel
from hepbridge.systems.unfolding.response import passing
from hepbridge.training import fit
from hepbridge.training.seeds import initial_weights
from hepbridge.weighters.contrast import Contrast
from hepbridge.weighters.density_ratio import DensityRatio

__all__ = [
    "DRAWS_KEY",
    "ITERATED_KEY",
    "UNFOLDED_KEY",
    "posterior",
    "reweight",
    "unfold",
    "unfolded_column",
    "weight_column",
]

log = logging.getLogger(__name__)

_FEW = 3.0  # draws that count: with fewer the iterated spectrum has too little to choose from

_ADDED = re.compile(r"unfolded_.+|(draw_weight|replica)_\d+")  # columns that are added here

# in the provenance of a table: what was added to it, and how
UNFOLDED_KEY, DRAWS_KEY, ITERATED_KEY = "unfolded", "draws", "iterations"


def unfolded_column(name: str, draw: int, draws: int) -> str:
    """The column that holds a draw of an observable."""
    return f"unfolded_{name}" + (f"_{draw}" if draws > 1 else "")


def weight_column(draw: int) -> str:
    """The column of the weights that go with a draw, if there are several."""
    return f"draw_weight_{draw}"


def unfold(
    model: UnfoldingModel,
    table: Table,
    *,
    seed: int,
    samples: int = 1,
    background: Table | None = None,
    replicas: int = 0,
) -> Table:
    r"""A table of measured events with what they may have been.

    Only the events that pass at detector level are in it, with all their columns. New columns:
    ``unfolded_NAME`` for each observable (``unfolded_NAME_k`` for ``samples`` > 1, k = 0, 1, …), and
    ``replica_k``, Poisson(1) numbers that multiply the weights (`bootstrap`). A draw has the weight

    .. math:: w_k = d \cdot \pi(y) \cdot s(y) \,/\, \varepsilon(x_k)

    with the weights d of the data, purity and efficiency of the response (`Acceptance`), and s the share
    of the events at y that are no background. With one draw it is the weight of the event; of several,
    each has its own in ``draw_weight_k``, and the event has their mean. For a model that was trained on a
    bootstrap replica of data, d are multiplied by the Poisson numbers of that replica.

    Raises ConfigError for a model that answers with weights, DataError for unsuitable tables, also
    for those that have such columns already.
    """
    _check_columns(table)
    data = Data.from_table(table, model.observables)
    if (replica := model.summary.get("data", {}).get("replica")) is not None:
        data = data.replica(*replica)
        log.info(
            "the model is of bootstrap replica %d: so are the weights of these events", replica[0]
        )
    drawn = posterior(model, data, seed=seed, samples=samples)
    assert model.acceptance is not None  # it generates
    weights = data.weights * model.acceptance.pure(model.seen.features(data.seen)).numpy()
    if background is not None:
        weights = weights * _signal(
            model, data, Data.from_table(background, model.observables), seed
        )
    each = np.stack(
        [weights / model.acceptance.efficient(model.true.features(x)).numpy() for x in drawn]
    )
    kept = table[data.rows]
    columns, units, defined = dict(kept.columns), dict(kept.units), dict(kept.defined)
    for k, draw in enumerate(drawn):
        for column, name in enumerate(model.observables.particle):
            new = unfolded_column(name, k, samples)
            columns[new], units[new] = draw[:, column], model.observables.units[name]
            if np.isnan(draw[:, column]).any():
                defined[new] = ~np.isnan(draw[:, column])
        if samples > 1:
            columns[weight_column(k)], units[weight_column(k)] = each[k], "1"
    _add_replicas(columns, units, data.event_ids, replicas, seed)
    meta = {**kept.meta, UNFOLDED_KEY: ",".join(model.observables.particle), DRAWS_KEY: samples}
    meta[ITERATED_KEY] = model.recipe.iterations
    return replace(
        kept, columns=columns, units=units, defined=defined, weights=each.mean(axis=0), meta=meta
    )


def posterior(model: UnfoldingModel, data: Data, *, seed: int, samples: int) -> NDArray[np.float64]:
    """``samples`` truths (samples, N, columns) of N measured events, under the iterated prior if
    there is one."""
    if model.unfolder is None:
        raise ConfigError(
            "this model answers with weights of simulated events; give it the simulation "
            "(--level particle), not the data"
        )
    data.support(model.seen, model.observables)
    count = samples
    if model.spectrum is not None:
        count = max(model.recipe.candidates, 2 * samples)
    candidates = Candidates(model.unfolder, data.seen, data.event_ids, count, seed)
    if model.spectrum is not None:
        left = candidates.effective(model.spectrum)
        tell = log.warning if left < _FEW else log.info
        tell("of %d draws of an event %.1f still count under the iterated spectrum", count, left)
    return candidates.choose(model.spectrum, samples)


def reweight(model: UnfoldingModel, table: Table, *, seed: int, replicas: int = 0) -> Table:
    r"""Simulated events at particle level with the weights of the unfolded spectrum.

    Only those that pass at particle level; their weights become :math:`w\,\nu(x)\, N`, with N the
    unfolded events for each simulated one: of the response itself, they add up to the data,
    corrected for what the detector misses and makes up. Columns ``replica_k`` are Poisson numbers
    of simulated events: the statistics of the simulation, not of the data.

    Raises ConfigError for a model without a spectrum, DataError for unsuitable tables, also for
    those that have such columns already.
    """
    if model.spectrum is None:
        raise ConfigError(
            "this model draws truths of measured events and has no spectrum to reweight with; "
            "train it with --data and iterations"
        )
    _check_columns(table)
    kept = table[passing(table)]
    if not len(kept):
        raise DataError("none of the events of the table has the flag 'pass'")
    true = model.observables.true(kept, "the simulation")
    model.observables.check_like(true, model.true, "the simulation", true=True)
    own = np.ones(len(kept)) if kept.weights is None else kept.weights
    weights = own * model.spectrum.weights(true) * float(model.spectrum.total)
    columns, units = dict(kept.columns), dict(kept.units)
    _add_replicas(columns, units, kept.event_ids, replicas, seed)
    return replace(kept, columns=columns, units=units, weights=weights)


def _check_columns(table: Table) -> None:
    """Raises DataError for an output of this file: its weights and columns would be mistaken."""
    if found := [name for name in table.columns if _ADDED.fullmatch(name)]:
        raise DataError(
            f"the events have columns that unfolding adds: {', '.join(found)}; give the table as it was "
            "before hepbridge unfold apply, or rename these columns if they are something else"
        )


def _add_replicas(
    columns: dict[str, Any], units: dict[str, str], ids: NDArray[np.uint64], count: int, seed: int
) -> None:
    for k in range(count):
        columns[f"replica_{k}"], units[f"replica_{k}"] = poisson_weights(seed, k, ids), "1"


def _signal(model: UnfoldingModel, data: Data, background: Data, seed: int) -> NDArray[np.float64]:
    """The share (N,) of the events at each y that is left without the background."""
    less = data.less(background)
    x = model.seen.features(less.seen)
    above = torch.from_numpy(less.weights)
    below = torch.from_numpy(np.where(less.rows >= 0, less.weights, 0.0).clip(min=0.0))
    with initial_weights(int(stream_key(seed, "unfolding", "background")[0])):
        ratio = DensityRatio(x.shape[1], **model.recipe.classifier)
    settings = model.recipe.classifier_training
    fit(ratio.phases(Contrast(x, above, below), seed), settings, seed=seed, title="background")
    with torch.no_grad():
        share = ratio.weights(x[: len(data)]).double().numpy()
    found: NDArray[np.float64] = share * less.weights.sum() / data.weights.sum()
    log.info("the background takes %.3g of the data", 1.0 - less.weights.sum() / data.weights.sum())
    return found
