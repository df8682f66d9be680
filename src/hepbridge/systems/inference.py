"""Applying a model: tiles of rows, noise by event id, checks of the validity domain."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hepbridge.core.errors import ConfigError, DataError, DomainError, ModelFileError
from hepbridge.core.rng import event_normal
from hepbridge.data.geometry import Geometry
from hepbridge.data.response import check_units
from hepbridge.data.showers import Showers, require_showers
from hepbridge.systems.model_file import Model
from hepbridge.systems.refiner import Refiner, varying
from hepbridge.systems.tiles import TILE, Tiles, tiles_of

__all__ = [
    "TILE",
    "check_domain",
    "outside_domain",
    "refine",
    "refine_cells",
    "wrong_geometry",
]

log = logging.getLogger(__name__)

_MARGIN = 0.01  # a random training sample never quite reaches the ends of its range
_ABOUT = 3  # within this factor of the range, other units are a likely reason


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
        DomainError: with ``strict``, if a shower lies outside the trained range.
        ConfigError: there is no such member or device.
    """
    require_showers(showers, "showers")
    check_domain(model, showers)
    check_units(showers, "the fast showers")
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
    named = _needed(model, conditions or {}) | {"incident_energy": incident_energy}
    where = choose_device(device)
    refiner = _placed(model.members[member], where)
    threads = torch.get_num_threads()
    out = np.empty_like(cells)
    step = max(1, -(-batch // TILE)) * TILE
    try:
        if where.type == "cpu" and threads != 1:
            # how a product is split among threads may change its last bit
            torch.set_num_threads(1)
        with torch.inference_mode():
            domain = model.domain
            spans = {name: domain.conditions.get(name, (0.0, 0.0)) for name in _names(model)}
            tiles = tiles_of(refiner, where, (domain.energy_min, domain.energy_max), spans)
            for start in range(0, len(cells), step):
                rows = slice(start, start + step)
                noise = event_normal(seed, f"refine-{member}", event_ids[rows], refiner.noise_dim)
                some = {name: values[rows] for name, values in named.items()}
                out[rows] = _refine_rows(refiner, tiles, where, cells[rows], some, noise)
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
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
        x, z = (_padded(a[some], size).to(device) for a in (cells, noise))
        c = {name: _padded(a[some], size).to(device) for name, a in conditions.items()}
        y = refiner.refine(x, c, z)
        out[some] = y[:count].to("cpu", torch.float32).numpy()
    return out


def check_domain(model: Model, showers: Showers) -> None:
    """Raise ModelFileError if the showers are of another detector or another particle.

    Raises DataError if they lack a condition that the model needs. Warns of conditions that vary and
    that the model knows nothing of.
    """
    if showers.geometry.digest() != model.geometry.digest():
        raise wrong_geometry(model, showers.geometry)
    particle = showers.meta.get("particle")
    if particle and model.domain.particle not in ("unknown", particle):
        raise ModelFileError(
            f"the model was trained for particle {model.domain.particle!r}, but the showers are of "
            f"{particle!r}; use a model for that particle"
        )
    _needed(model, showers.conditions)
    known = ("incident_energy", *_names(model))
    if unknown := sorted(name for name in varying(showers) if name not in known):
        log.warning(
            "the showers vary in %s, of which the model knows nothing: they are refined as if all "
            "were like those it was trained on",
            ", ".join(unknown),
        )


def _names(model: Model) -> list[str]:
    return model.members[0].config.named_conditions()


def _needed(
    model: Model, conditions: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """The further conditions that the model works with. Raises DataError if one is missing."""
    missing = [name for name in _names(model) if name not in conditions]
    if missing:
        raise DataError(
            f"the model needs the condition{'s' if len(missing) > 1 else ''} {', '.join(missing)} of "
            f"every shower, but these showers have only {', '.join(conditions) or 'none'}; add a "
            "column for each (0 for what is 0 in all showers), or use a model without them"
        )
    return {name: conditions[name] for name in _names(model)}


def wrong_geometry(model: Model, geometry: Geometry) -> ModelFileError:
    """The error for showers of another detector than the model's."""
    return ModelFileError(
        f"the model was trained for geometry {model.geometry.name!r} {model.geometry.shape}, but "
        f"the showers are of {geometry.name!r} {geometry.shape}; use a model for that geometry"
    )


def outside_domain(
    model: Model, showers: Showers, *, strict: bool = False, warn: bool = True
) -> NDArray[np.bool_]:
    """Mask (N,) of showers more than 1 % outside the trained energies or other conditions.

    Of other conditions it is 1 % of their range; azimuths are compared on the circle. Logs a warning
    if there are any (unless not ``warn``); raises DomainError if ``strict``.
    """
    low, high = model.domain.energy_min, model.domain.energy_max
    energy = showers.incident_energy
    outside = (energy < low * (1 - _MARGIN)) | (energy > high * (1 + _MARGIN))
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        message = (
            f"{int(outside.sum())} of {len(showers)} showers have incident energies outside the "
            f"trained range {low / 1000:g} to {high / 1000:g} GeV (first: row {row}, "
            f"{energy[row] / 1000:g} GeV)"
        )
        if outside.all():
            message += _other_unit(energy, low, high)
        _say(message, strict=strict, warn=warn)
    for name, span in model.domain.conditions.items():
        values = showers.conditions[name]
        beyond = _beyond(name, values, span)
        if beyond.any():
            row = int(np.flatnonzero(beyond)[0])
            message = (
                f"{int(beyond.sum())} of {len(showers)} showers have {name} outside the trained "
                f"range {span[0]:.4g} to {span[1]:.4g} (first: row {row}, {values[row]:.4g})"
            )
            _say(message, strict=strict, warn=warn)
        outside |= beyond
    return outside


def _say(message: str, *, strict: bool, warn: bool) -> None:
    if strict:
        raise DomainError(
            f"{message}; train a model that covers them, or drop --strict (strict=True in Python)"
        )
    if warn:
        log.warning("%s; they are refined and flagged in the column 'outside_domain'", message)


def _beyond(name: str, values: NDArray[np.float64], span: tuple[float, float]) -> NDArray[np.bool_]:
    """Mask (N,) of values outside a range; an azimuth may be written with any number of turns."""
    middle, half = (span[0] + span[1]) / 2, (span[1] - span[0]) / 2
    apart = values - middle
    if name == "phi_rad":
        apart = (apart + np.pi) % (2 * np.pi) - np.pi
    # at least rounding: a condition that was constant in training has no range
    allowed = half * (1 + 2 * _MARGIN) + 1e-6 * max(abs(span[0]), abs(span[1]), 1e-6)
    return np.asarray(np.abs(apart) > allowed)


def _other_unit(energy: NDArray[np.float64], low: float, high: float) -> str:
    """Advice for energies that lie in or near the range if their unit is another one."""
    for factor, unit in ((1e3, "GeV"), (1e-3, "MeV")):
        seen = energy * factor
        if low / _ABOUT <= seen.min() and seen.max() <= high * _ABOUT:
            return (
                f"; they would fit if the file was in {unit}: if it is, say so in its HDF5 "
                f"attribute 'units' ({unit}), or load it with unit={unit!r}"
            )
    return ""


def _padded(array: NDArray[Any], size: int) -> Tensor:
    """Rows as float32, filled up to ``size`` by repeating the last one."""
    out = np.empty((size, *array.shape[1:]), dtype=np.float32)
    out[: len(array)] = array
    out[len(array) :] = array[-1]
    return torch.from_numpy(out)


def _placed(refiner: Refiner, device: torch.device) -> Refiner:
    """The refiner on its device, in evaluation mode; walks through its modules only if it must."""
    tensor = next(refiner.buffers(), next(refiner.parameters(), None))
    if refiner.training or (tensor is not None and tensor.device != device):
        refiner.to(device).eval()
    return refiner
