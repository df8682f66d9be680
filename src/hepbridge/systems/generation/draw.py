"""Applying a generator: tiles of rows, noise by event id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.rng import event_normal
from hepbridge.data.conditions import check_values, checked_ids, given_conditions
from hepbridge.data.showers import Showers, row_ids
from hepbridge.systems.checks import outside_spans
from hepbridge.systems.generation.granted import check_conditions
from hepbridge.systems.generation.model_file import GeneratorModel
from hepbridge.systems.tiles import TILE, one_thread, padded

__all__ = ["draw_cells", "generate", "outside"]

_ROWS = 16 * TILE  # whose noise is drawn at once


def generate(
    model: GeneratorModel,
    conditions: Mapping[str, NDArray[np.float64]],
    event_ids: NDArray[np.uint64] | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    strict: bool = False,
) -> Showers:
    """Showers (N) of incident energies and further conditions (N,), drawn from noise.

    A shower depends on the model, the seed, its conditions and its event id alone. Those outside the
    trained range are generated with a warning and flagged in the column ``outside_domain``.

    Args:
        conditions: ``incident_energy`` (MeV) and those that the model works with; more are kept, if
            they are as in the training, or its files say nothing of them.
        event_ids: (N, 2), keys of the noise; default: the rows of a data set that is named by its
            conditions, so that other conditions have other noise.
        strict: refuse conditions outside the trained range instead.

    Raises:
        DataError: conditions or event ids are not what they should be, or one that the model needs is
            missing. DomainError: as ``strict`` says.
        ConfigError: there is no such device, or the model knows nothing of a condition that was
            another one in its training. ModelFileError: the same of the particle.
    """
    where = "the generator"
    conditions = given_conditions(conditions, where)
    _needed(model, conditions)
    check_values(conditions, where)
    if event_ids is None:
        event_ids = _rows_of(conditions)
    event_ids = checked_ids(event_ids, len(conditions["incident_energy"]), where)
    check_conditions(model, conditions)
    beyond = outside(model, conditions, strict=strict)
    cells = draw_cells(model, conditions, event_ids, seed=seed, device=device)
    further = {k: v for k, v in conditions.items() if k != "incident_energy"}
    return Showers.from_arrays(
        cells,
        conditions["incident_energy"],
        geometry=model.geometry,
        conditions=dict(further),
        columns={"outside_domain": beyond} if beyond.any() else {},
        event_ids=event_ids,
        meta={"generated_by": model.method, "particle": model.domain.particle},
        where=where,
        allow_empty_showers=True,
    )


def draw_cells(
    model: GeneratorModel,
    conditions: Mapping[str, NDArray[np.float64]],
    event_ids: NDArray[np.uint64],
    *,
    seed: int = 0,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Cells (N, n_cells), MeV; see `generate`.

    Rows are computed in tiles of 256 with one thread, the last one filled up, so that their number
    changes no bit of any of them.
    """
    from hepbridge.training.devices import choose_device

    generator, where = model.generator, choose_device(device)
    generator.to(where).eval()
    named = {name: np.asarray(v, np.float64) for name, v in _needed(model, conditions).items()}
    n = len(event_ids)
    out = np.empty((n, generator.n_cells), dtype=np.float32)
    with one_thread(where), torch.inference_mode():
        for first in range(0, n, _ROWS):
            noise = event_normal(
                seed, "generate", event_ids[first : first + _ROWS], generator.noise_dim
            )
            for start in range(0, len(noise), TILE):
                z = noise[start : start + TILE]
                rows = slice(first + start, first + start + len(z))
                c = {k: padded(v[rows], TILE, np.float64).to(where) for k, v in named.items()}
                made = generator.generate(c, padded(z, TILE).to(where))[: len(z)]
                out[rows] = made.to("cpu", torch.float32).numpy()
    return out


def outside(
    model: GeneratorModel,
    conditions: Mapping[str, NDArray[np.float64]],
    *,
    strict: bool = False,
    warn: bool = True,
) -> NDArray[np.bool_]:
    """Mask (N,) of rows outside the trained ranges (`outside_spans`), with a warning if there are any
    (unless not ``warn``).

    Raises DomainError instead if ``strict``, DataError if a condition is missing.
    """
    needed = _needed(model, conditions)
    return outside_spans(model.domain, needed, "generated", strict=strict, warn=warn)


def _rows_of(conditions: Mapping[str, NDArray[np.float64]]) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(conditions):
        digest.update(f"{name}\n".encode() + conditions[name].astype("<f8").tobytes())
    uid = int.from_bytes(digest.digest(), "little")
    return row_ids(uid, 0, len(conditions["incident_energy"]))


def _needed(
    model: GeneratorModel, conditions: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    names = ["incident_energy", *model.recipe.model.named_conditions()]
    missing = [name for name in names if name not in conditions]
    if missing:
        raise DataError(
            f"the model needs the condition{'s' if len(missing) > 1 else ''} {', '.join(missing)} of "
            f"every shower; given are {', '.join(conditions) or 'none'}"
        )
    return {name: conditions[name] for name in names}
