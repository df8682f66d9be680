"""From a response, and data where they are needed, to a model of an unfolding."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from hepbridge import __version__
from hepbridge.core.errors import ConfigError
from hepbridge.core.jobs import Request
from hepbridge.core.rng import stream_key
from hepbridge.systems.training_output import beside, provenance, wanted
from hepbridge.systems.unfolding.data import Data
from hepbridge.systems.unfolding.model_file import UnfoldingModel, load_unfolding
from hepbridge.systems.unfolding.omnifold import OmniFold, OmniFoldSettings, omnifold
from hepbridge.systems.unfolding.recipe import UnfoldingRecipe, load_unfolding_recipe
from hepbridge.systems.unfolding.response import Response
from hepbridge.training import fit
from hepbridge.training.seeds import initial_weights

__all__ = ["train_unfolding"]

log = logging.getLogger(__name__)

_SECOND = "acceptance.checkpoint"  # of efficiency and purity, trained after the transport


def train_unfolding(
    response: Response,
    data: Data | None = None,
    *,
    recipe: str | UnfoldingRecipe = "sbunfold",
    config: Path | None = None,
    overrides: list[str] | None = None,
    start: UnfoldingModel | None = None,
    output: Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> UnfoldingModel:
    """Train an unfolding.

    Methods that draw events learn from the response alone; ``data`` are needed to iterate their
    prior. Methods that reweight are always trained on data.

    A model to ``start`` from is not trained again: only its prior is iterated, with other data.

    With ``output`` the model is written to a file, and an interrupted training of a transport can be
    resumed from ``<output>.checkpoint`` and ``<output>.acceptance.checkpoint``.

    Raises:
        DataError: data and response do not fit, or weights have no meaning. ConfigError: the recipe
        is not valid, or needs data. OutputError: the output exists or cannot be written.
        TrainingInterrupted: on SIGINT or SIGTERM.
    """
    chosen = load_unfolding_recipe(recipe, config, overrides) if isinstance(recipe, str) else recipe
    _check(chosen, data)
    request = _request(chosen, response, data, seed, start)
    if output is not None:
        output = Path(output)
        if not wanted(output, request, _stored, resume=resume, overwrite=overwrite):
            log.info("%s is complete already (same request); nothing to do", output)
            return load_unfolding(output)
    with initial_weights(int(stream_key(seed, "unfolding", "weights")[0])):
        model = UnfoldingModel.empty(
            chosen,
            response.observables,
            masked=_masked(response) if start is None else start.masked,
            spectrum=chosen.iterations > 0,
        )
    if start is None:
        model.true.fit(response.true[response.passes_particle], response.observables.particle)
        model.seen.fit(response.seen[response.passes_detector], response.observables.detector)
    else:
        _take_over(model, start)
    model.summary = {"response": response.describe()}
    if data is not None:
        support = data.support(model.seen, response.observables)
        model.summary["data"] = {"events": len(data), "sum": float(data.weights.sum()), **support}
        if data.replica_of is not None:
            model.summary["data"]["replica"] = list(data.replica_of)
    if chosen.kind == "generate" and start is None:
        _generate(model, response, request, output, device, seed, resume)
    if chosen.iterations:
        assert data is not None  # asked before
        _spectrum(model, response, data, device, seed)
    for part in model.parts().values():
        part.to("cpu").eval().requires_grad_(False)
    model.provenance = provenance(request)
    if output is not None:
        model.save(output, overwrite=overwrite)
        for ending in ("checkpoint", _SECOND):
            beside(output, ending).unlink(missing_ok=True)
    return model


def _generate(
    model: UnfoldingModel,
    response: Response,
    request: Request,
    output: Path | None,
    device: str,
    seed: int,
    resume: bool,
) -> None:
    """Transport and acceptance, from the response."""
    recipe, unfolder = model.recipe, model.unfolder
    assert unfolder is not None and model.acceptance is not None
    history = fit(
        recipe.training.replanned(
            unfolder.phases(response, seed), unfolder.transport.planned_steps
        ),
        recipe.training.settings(),
        seed=seed,
        device=device,
        checkpoint=None if output is None else beside(output, "checkpoint"),
        resume=resume,
        title="unfolding",
        fingerprint=request.digest(),
    )
    model.summary["training_seconds"] = round(history.seconds, 1)
    unfolder.transport.to("cpu").eval()
    if recipe.match_marginals:
        unfolder.finish(response, seed)
    acceptance = model.acceptance.phases(response, model.true, model.seen, seed)
    fit(
        acceptance,
        recipe.classifier_training,
        seed=seed,
        checkpoint=None if output is None else beside(output, _SECOND),
        resume=resume,
        title="acceptance",
        fingerprint=request.digest(),
    )


def _spectrum(
    model: UnfoldingModel, response: Response, data: Data, device: str, seed: int
) -> None:
    """The spectrum at particle level that the data have: OmniFold between the response and them."""
    recipe = model.recipe
    used = response.passes_particle | response.passes_detector
    simulated = response[used]
    result = omnifold(
        model.true.features(simulated.true),
        model.seen.features(simulated.seen),
        model.seen.features(data.seen),
        seed=seed,
        pairs=simulated.pairs,
        misses=simulated.misses,
        fakes=simulated.fakes,
        weights=simulated.weights,
        data_weights=data.weights,
        settings=OmniFoldSettings(
            iterations=recipe.iterations,
            classifier=recipe.classifier,
            training=recipe.classifier_training,
        ),
        device=device,
    )
    model.summary["iterations"] = _steps(result)
    assert model.spectrum is not None and result.weighter is not None  # asked before
    model.spectrum.ratio.load_state_dict(result.weighter.ratio.state_dict())
    model.spectrum.total.fill_(float(result.weighter.total))


def _steps(result: OmniFold) -> list[dict[str, Any]]:
    out = []
    for k, iteration in enumerate(result.iterations):
        record: dict[str, Any] = {"iteration": k + 1}
        for name, step in (("detector", iteration.detector), ("particle", iteration.particle)):
            if step is not None:
                record |= {
                    f"{name}_auc": step.auc,
                    f"{name}_auc_after": step.auc_after,
                    f"{name}_effective_fraction": step.summary.effective_fraction,
                    f"{name}_clipped": step.summary.clipped,
                }
        out.append(record)
    return out


def _take_over(model: UnfoldingModel, start: UnfoldingModel) -> None:
    """All that was learned from a response. Raises ConfigError if the model is of another kind."""
    mine, theirs = model.recipe, start.recipe
    if (mine.transport, mine.options, mine.acceptance) != (
        theirs.transport,
        theirs.options,
        theirs.acceptance,
    ):
        raise ConfigError(
            f"the model to start from has transport {theirs.transport!r} with other options than the "
            f"recipe's {mine.transport!r}; name the recipe that it was trained with"
        )
    if model.observables != start.observables:
        raise ConfigError(
            f"the model to start from unfolds {', '.join(start.observables.particle)}; the response was "
            f"read with {', '.join(model.observables.particle)}"
        )
    for name, part in start.parts().items():
        if name != "spectrum":
            model.parts()[name].load_state_dict(part.state_dict())


def _check(recipe: UnfoldingRecipe, data: Data | None) -> None:
    if recipe.kind == "generate" and not recipe.transport:
        raise ConfigError("a recipe that generates events needs a transport")
    if recipe.kind == "reweight" and not (recipe.iterations and data is not None):
        raise ConfigError(
            "reweighting is trained on data: name them (--data), with at least one iteration"
        )
    if recipe.kind == "generate" and recipe.iterations and data is None:
        raise ConfigError(
            f"{recipe.iterations} iterations need the data that are to be unfolded (--data)"
        )


def _masked(response: Response) -> tuple[int, int]:
    """Columns with undefined values among what passes, at both levels."""
    true = np.isnan(response.true[response.passes_particle]).any(axis=0)
    seen = np.isnan(response.seen[response.passes_detector]).any(axis=0)
    return int(true.sum()), int(seen.sum())


def _request(
    recipe: UnfoldingRecipe,
    response: Response,
    data: Data | None,
    seed: int,
    start: UnfoldingModel | None,
) -> Request:
    return Request(
        {
            "command": "unfold train",
            "recipe": recipe.model_dump(mode="json"),
            "observables": response.observables.to_dict(),
            "response": _digest(response.true, response.seen, response.weights, response.pairs),
            "data": None if data is None else _digest(data.seen, data.weights),
            "seed": seed,
            "start": None if start is None else start.provenance.get("request"),
            "hepbridge": __version__,
        }
    )


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _stored(path: Path) -> dict[str, Any]:
    return load_unfolding(path).provenance
