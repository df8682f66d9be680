"""Applying a model: tiles of rows, noise by event id."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError
from hepbridge.core.rng import event_normal
from hepbridge.data.response import check_units
from hepbridge.data.showers import Showers, require_showers
from hepbridge.systems.checks import (
    LOOK,
    check_domain,
    check_response,
    names_of,
    needed_conditions,
    outside_domain,
)
from hepbridge.systems.model_file import Model
from hepbridge.systems.refiner import Refiner
from hepbridge.systems.tiles import TILE, Tiles, one_thread, padded, tiles_of

__all__ = ["TILE", "refine", "refine_cells"]

log = logging.getLogger(__name__)


def refine(
    model: Model,
    showers: Showers,
    *,
    seed: int = 0,
    member: int = 0,
    batch: int = 64 * TILE,
    device: str = "cpu",
    strict: bool = False,
) -> Showers:
    """Full-simulation-like showers of fast showers, row by row.

    The result depends on the model, the rows and the seed: not on ``batch``, which only bounds the
    memory. Showers outside the trained range of incident energies, or of another condition that the
    model works with, are refined with a warning and flagged in the column ``outside_domain``.

    Args:
        seed: of the noise, which is keyed by event id.
        member: which member of an ensemble.
        batch: rows whose noise is drawn at once, rounded up to whole tiles of 256.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        strict: refuse showers outside the trained range instead.

    Raises:
        DataError: the showers are no `Showers`, or their cells and incident energies differ so much
            that one must be in another unit; or a condition that the model needs is missing.
        ModelFileError: the model is for another geometry or particle.
        DomainError: with ``strict``, if a shower lies outside the trained range, or as
            `check_response` says.
        ConfigError: there is no such member or device.
    """
    require_showers(showers, "showers")
    check_domain(model, showers)
    check_units(showers, "the fast showers")
    check_response(model, showers[:LOOK], "the fast showers", strict=strict)
    outside = outside_domain(model, showers, strict=strict)
    cells = refine_cells(
        model,
        showers.cells,
        showers.incident_energy,
        showers.event_ids,
        conditions=showers.conditions,
        seed=seed,
        member=member,
        batch=batch,
        device=device,
    )
    out = showers.with_cells(cells, refined_by=model.recipe.system, refined_seed=seed)
    if outside.any():
        out.columns["outside_domain"] = outside
    return out


def refine_cells(
    model: Model,
    cells: NDArray[np.float32],
    incident_energy: NDArray[np.float64],
    event_ids: NDArray[np.uint64],
    *,
    conditions: Mapping[str, NDArray[np.float64]] | None = None,
    seed: int = 0,
    member: int = 0,
    batch: int = 64 * TILE,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Refined cells (N, n_cells) of arrays that were checked before; see `refine`.

    ``conditions``, name -> (N,), are the further ones; those that the model does not know are not
    used, and those that it needs must be there (DataError).

    A single shower costs little more than its share of the arithmetic: it is not padded to a full
    tile where a smaller one gives the same bits (`Tiles`). The first call tries that out.
    """
    from hepbridge.training.devices import choose_device

    if not 0 <= member < len(model.members):
        raise ConfigError(
            f"the model has {len(model.members)} member(s); there is no member {member}"
        )
    named = needed_conditions(model, conditions or {}) | {"incident_energy": incident_energy}
    where = choose_device(device)
    refiner = _placed(model.members[member], where)
    out = np.empty_like(cells)
    step = max(1, -(-batch // TILE)) * TILE
    with one_thread(where), torch.inference_mode():
        domain = model.domain
        spans = {name: domain.conditions.get(name, (0.0, 0.0)) for name in names_of(model)}
        tiles = tiles_of(refiner, where, (domain.energy_min, domain.energy_max), spans)
        for start in range(0, len(cells), step):
            rows = slice(start, start + step)
            noise = event_normal(seed, f"refine-{member}", event_ids[rows], refiner.noise_dim)
            some = {name: values[rows] for name, values in named.items()}
            out[rows] = _refine_rows(refiner, tiles, where, cells[rows], some, noise)
    return out


def _refine_rows(
    refiner: Refiner,
    tiles: Tiles,
    device: torch.device,
    cells: NDArray[np.float32],
    conditions: dict[str, NDArray[np.float64]],
    noise: NDArray[np.float64],
) -> NDArray[np.float32]:
    """The rows tile by tile, in the order of their energies if places are known to be equal."""
    n = len(cells)
    out = np.empty((n, cells.shape[1]), dtype=np.float32)
    order = None
    if n > TILE and tiles.safe(TILE):
        order = np.argsort(
            conditions["incident_energy"], kind="stable"
        )  # close conditions share tables
    for start in range(0, n, TILE):
        some: Any = slice(start, min(start + TILE, n))
        count = some.stop - start
        size = TILE if count == TILE else tiles.place(count)
        if order is not None:
            some = order[some]
        x, z = (padded(a[some], size).to(device) for a in (cells, noise))
        c = {name: padded(a[some], size).to(device) for name, a in conditions.items()}
        y = refiner.refine(x, c, z)
        out[some] = y[:count].to("cpu", torch.float32).numpy()
    return out


def _placed(refiner: Refiner, device: torch.device) -> Refiner:
    """The refiner on its device, in evaluation mode; walks through its modules only if it must."""
    tensor = next(refiner.buffers(), next(refiner.parameters(), None))
    if refiner.training or (tensor is not None and tensor.device != device):
        refiner.to(device).eval()
    return refiner
