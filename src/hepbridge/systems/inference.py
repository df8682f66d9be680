"""Applying a model: fixed tiles of rows, noise by event id, checks of the validity domain."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hepbridge.core.errors import ConfigError, DomainError, ModelFileError
from hepbridge.core.rng import event_normal
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.model_file import Model

__all__ = [
    "TILE",
    "UNITS_APART",
    "check_domain",
    "check_units",
    "outside_domain",
    "refine",
    "refine_cells",
    "wrong_geometry",
]

log = logging.getLogger(__name__)

TILE = 256  # rows that are always computed together; the last tile of a sample is padded
UNITS_APART = 100  # two simulations of one detector never differ by this factor; MeV and GeV do
_MARGIN = 0.01  # a random training sample never quite reaches the ends of its range


def refine(
    model: Model,
    showers: Showers,
    *,
    seed: int = 0,
    member: int = 0,
    batch: int = 16 * TILE,
    device: str = "cpu",
    strict: bool = False,
) -> Showers:
    """Full-simulation-like showers of fast showers, row by row.

    The result depends on the model, the rows and the seed: not on ``batch``, which only bounds the
    memory. Showers outside the trained energy range are refined with a warning and flagged in the
    column ``outside_domain``.

    Args:
        seed: of the noise, which is keyed by event id.
        member: which member of an ensemble.
        batch: rows per pass, rounded up to whole tiles of 256.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        strict: refuse showers outside the trained range instead.

    Raises:
        ModelFileError: the model is for another geometry or particle.
        DomainError: with ``strict``, if a shower lies outside the trained energies.
        ConfigError: there is no such member or device.
    """
    check_domain(model, showers)
    outside = outside_domain(model, showers, strict=strict)
    cells = refine_cells(
        model,
        showers.cells,
        showers.incident_energy,
        showers.event_ids,
        seed=seed,
        member=member,
        batch=batch,
        device=device,
    )
    out = showers.with_cells(cells, refined_by=model.recipe.system, refined_seed=seed)
    check_units(showers, out)
    if outside.any():
        out.columns["outside_domain"] = outside
    return out


def refine_cells(
    model: Model,
    cells: NDArray[np.float32],
    incident_energy: NDArray[np.float64],
    event_ids: NDArray[np.uint64],
    *,
    seed: int = 0,
    member: int = 0,
    batch: int = 16 * TILE,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Refined cells (N, n_cells) of arrays that were checked before."""
    from hepbridge.training.devices import choose_device

    if not 0 <= member < len(model.members):
        raise ConfigError(
            f"the model has {len(model.members)} member(s); there is no member {member}"
        )
    where = choose_device(device)
    refiner = model.members[member].to(where).eval()
    out = np.empty_like(cells)
    step = max(1, -(-batch // TILE)) * TILE
    with torch.inference_mode(), _one_thread(where):
        for start in range(0, len(cells), step):
            rows = slice(start, start + step)
            noise = event_normal(seed, f"refine-{member}", event_ids[rows], refiner.noise_dim)
            for tile in range(start, min(start + step, len(cells)), TILE):
                some = slice(tile, min(tile + TILE, len(cells)))
                local = slice(tile - start, some.stop - start)
                x, e, z = (
                    _padded(a, where)
                    for a in (cells[some], incident_energy[some], noise[local].astype(np.float32))
                )
                y = refiner.refine(x, {"incident_energy": e}, z)
                out[some] = y[: some.stop - tile].to("cpu", torch.float32).numpy()
    return out


def check_domain(model: Model, showers: Showers) -> None:
    """Raise ModelFileError if the showers are of another detector or another particle."""
    if showers.geometry.digest() != model.geometry.digest():
        raise wrong_geometry(model, showers.geometry)
    particle = showers.meta.get("particle")
    if particle and model.domain.particle not in ("unknown", particle):
        raise ModelFileError(
            f"the model was trained for particle {model.domain.particle!r}, but the showers are of "
            f"{particle!r}; use a model for that particle"
        )


def check_units(fast: Showers, refined: Showers) -> None:
    """Warn if fast showers hold so little or so much energy that their unit must be wrong."""
    if not len(fast):
        return
    before, after = (float((s.e_sum / s.incident_energy).mean()) for s in (fast, refined))
    if max(before, after) > UNITS_APART * min(before, after):
        log.warning(
            "the cells of the fast showers hold %.3g of the incident energy, those of the refined "
            "ones %.3g: is the file in GeV? Energies are MeV",
            before,
            after,
        )


def wrong_geometry(model: Model, geometry: Geometry) -> ModelFileError:
    """The error for showers of another detector than the model's."""
    return ModelFileError(
        f"the model was trained for geometry {model.geometry.name!r} {model.geometry.shape}, but "
        f"the showers are of {geometry.name!r} {geometry.shape}; use a model for that geometry"
    )


def outside_domain(
    model: Model, showers: Showers, *, strict: bool = False, warn: bool = True
) -> NDArray[np.bool_]:
    """Mask (N,) of showers more than 1 % outside the trained energies.

    Logs a warning if there are any (unless not ``warn``); raises DomainError if ``strict``.
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
        if strict:
            raise DomainError(f"{message}; train a model that covers them, or drop --strict")
        if warn:
            log.warning("%s; they are refined and flagged in the column 'outside_domain'", message)
    return outside


def _padded(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """A tile as float32, filled up by repeating its last row, so that all products have one shape."""
    if len(array) < TILE:
        array = np.concatenate([array, np.repeat(array[-1:], TILE - len(array), axis=0)])
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(device)


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Run with one thread on a CPU: how a product is split among threads may change its last bit."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
