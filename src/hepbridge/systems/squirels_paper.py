"""SQuIRELS as published: two diffusion Schrödinger bridges, energy sum first, then the shower."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs, Phase
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.refiner import Refiner, SystemConfig
from hepbridge.transports.dsb import DSB

__all__ = ["BridgeConfig", "SquirelsPaper", "SquirelsPaperConfig", "watched"]

_FAST, _FULL = 0, 1  # rows of the statistics
_EMPTY = 1e-12  # below this sum of fractions a refined shower has no shape left


class BridgeConfig(SystemConfig):
    """One bridge; see `hepbridge.transports.dsb.DSB` for what each means. Defaults: the paper."""

    time_steps: int = 20
    gamma: float = 0.001
    gamma_min: float | None = None
    schedule: Literal["flat", "triangular"] = "flat"
    reference: Literal["ou", "brownian"] = "ou"
    normalised: bool = False
    iterations: int
    steps_first: int
    steps: int
    batch_size: int
    learning_rate: float = 1e-5
    cache_size: int | None = None
    cache_refresh: int = 1
    network_options: dict[str, Any] = Field(default_factory=dict)


class SquirelsPaperConfig(SystemConfig):
    """What to build; the defaults are the architecture and the schedule of the paper.

    Attributes:
        energy: the bridge of the energy sum (SQuIRELS-E).
        shower: the bridge of the normalised shower (SQuIRELS).
        paper_compat: faults of the reference code to put back, to see what each does. ``B1``: when
            refining, the shower bridge gets the refined sum where it expects the fast one, and in
            place of the refined sum the standardised ratio of the fast sum to the incident energy.
            ``B2``, ``B3``, ``B4``, ``B6``: see `DSB`. ``B7``: negative cells are set to zero after
            the shower has been scaled to its energy sum. (``B5`` is a setting of the training:
            ``ema_decay: null``.)
    """

    energy: BridgeConfig = BridgeConfig(
        iterations=13,
        steps_first=12_000,
        steps=6_000,
        batch_size=16_384,
        network_options={"zero_init": False},
    )
    shower: BridgeConfig = BridgeConfig(
        iterations=14,
        steps_first=24_000,
        steps=12_000,
        batch_size=8_192,
        network_options={"zero_init": False, "bias": False},
    )
    paper_compat: list[Literal["B1", "B2", "B3", "B4", "B6", "B7"]] = Field(default_factory=list)


class SquirelsPaper(Refiner):
    r"""Fast showers to full-simulation showers with two bridges (`DSB`), as in the SQuIRELS paper.

    1. energy: :math:`r = \sum_i x_i / E`, standardised; one-dimensional bridge given E;
    2. shower: fractions :math:`f_i = x_i / \sum_j x_j`, each cell standardised; bridge of all cells
       given E, ``e_fast`` and ``e_full``. ``e_full`` is the sum of the Geant4 shower of the pair in
       training and the answer of step 1 in refinement;
    3. back with the statistics of the full side; negative fractions are set to zero *before* the
       shower is scaled to its energy sum, so that the sum is that of step 1.

    Energy sums as conditions are standardised in MeV, side by side, and the incident energy is
    standardised too (the reference code divides it by 10 GeV, an affine map of the same number).
    All statistics come from the training samples and are part of the model.

    Differences from the reference code: its known faults are repaired unless ``paper_compat`` puts
    them back; the optimizer starts afresh in every phase; nothing is trained after the last useful
    (fast to full) half of an iteration. Showers without any energy are left as they are.

    Source: Diefenbacher et al., arXiv:2308.12339.
    """

    Config = SquirelsPaperConfig
    config: SquirelsPaperConfig

    ratio_mean: Tensor
    ratio_std: Tensor
    sum_mean: Tensor
    sum_std: Tensor
    fraction_mean: Tensor
    fraction_std: Tensor
    incident_mean: Tensor
    incident_std: Tensor

    def __init__(self, config: SquirelsPaperConfig, geometry: Geometry) -> None:
        super().__init__(config, geometry)
        if len(geometry.shape) != 2:
            raise ConfigError(
                f"squirels_paper works on a two-dimensional grid of cells; geometry "
                f"{geometry.name!r} has shape {geometry.shape}"
            )
        n = geometry.n_cells
        faults: list[str] = [b for b in config.paper_compat if b not in ("B1", "B7")]
        self.energy = _bridge(config.energy, "mlp", 1, ["incident_energy"], faults)
        shape = {"shape": list(geometry.shape)}
        names = ["incident_energy", "e_fast", "e_full"]
        self.shower = _bridge(config.shower, "conv", n, names, faults, shape)
        self.noise_dim = self.energy.noise_dim + self.shower.noise_dim
        self.nfe = self.energy.nfe + self.shower.nfe
        for name, size in (("ratio", (2,)), ("sum", (2,)), ("fraction", (2, n)), ("incident", ())):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))

    @property
    def planned_steps(self) -> int:
        return self.energy.planned_steps + self.shower.planned_steps

    def fit(self, fast: Showers, full: Showers, seed: int) -> None:
        """Means and standard deviations of either side; a cell that never varies gets 1."""
        self._learn("incident", (), fast.incident_energy)
        for side, showers in enumerate((fast, full)):
            sums = showers.e_sum
            self._learn("ratio", side, sums / showers.incident_energy)
            self._learn("sum", side, sums)
            self._learn("fraction", side, showers.cells / sums[:, None])

    def phases(self, fast: Showers, full: Showers, seed: int) -> Iterator[Phase]:
        """All phases of the energy bridge, ``energy-ipf-…``, then those of the shower bridge."""
        incident = self._incident(_tensor(fast.incident_energy))
        ratios, sums, fractions = [], [], []
        for side, showers in enumerate((fast, full)):
            total = showers.e_sum
            ratios.append(self._standard("ratio", side, total / showers.incident_energy))
            sums.append(self._standard("sum", side, total))
            fractions.append(self._standard("fraction", side, showers.cells / total[:, None]))
        conditions = {"incident_energy": incident}
        energy = Pairs(_column(ratios[0]), _column(ratios[1]), conditions, order="incident_energy")
        yield from _named("energy", self.energy.phases(energy, seed))
        conditions = conditions | {"e_fast": _column(sums[0]), "e_full": _column(sums[1])}
        shower = Pairs(fractions[0], fractions[1], conditions, order="incident_energy")
        yield from _named("shower", self.shower.phases(shower, seed))

    def refine(self, cells: Tensor, conditions: dict[str, Tensor], noise: Tensor) -> Tensor:
        faults = self.config.paper_compat
        energy = conditions["incident_energy"].to(cells.dtype)
        e_fast = cells.sum(1)
        present = e_fast > 0
        incident = self._incident(energy)
        first, second = noise[:, : self.energy.noise_dim], noise[:, self.energy.noise_dim :]

        z = (e_fast / energy - self.ratio_mean[_FAST]) / self.ratio_std[_FAST]
        refined = self.energy.apply(_column(z), {"incident_energy": incident}, first)[:, 0]
        ratio = self.ratio_mean[_FULL] + self.ratio_std[_FULL] * refined
        e_full = energy * ratio.clamp_min(0.0)

        e_fast_z = (e_fast - self.sum_mean[_FAST]) / self.sum_std[_FAST]
        e_full_z = (e_full - self.sum_mean[_FULL]) / self.sum_std[_FULL]
        if "B1" in faults:
            e_fast_z, e_full_z = e_full_z, z
        named = {
            "incident_energy": incident,
            "e_fast": _column(e_fast_z),
            "e_full": _column(e_full_z),
        }
        fractions = cells / torch.where(present, e_fast, 1.0)[:, None]
        x = (fractions - self.fraction_mean[_FAST]) / self.fraction_std[_FAST]
        y = self.shower.apply(x, named, second)
        fractions = self.fraction_mean[_FULL] + self.fraction_std[_FULL] * y
        if "B7" not in faults:
            fractions = fractions.clamp_min(0.0)
        total = fractions.sum(1, keepdim=True)
        # the mean shower stands in where the bridge has left nothing to scale
        fractions = torch.where(total > _EMPTY, fractions / total, self.fraction_mean[_FULL])
        result = (fractions * e_full[:, None]).clamp_min(0.0)
        return torch.where(present[:, None], result, cells)

    def _learn(self, name: str, row: Any, values: np.ndarray) -> None:
        std = values.std(axis=0, dtype=np.float64)
        mean = values.mean(axis=0, dtype=np.float64)
        getattr(self, f"{name}_mean")[row] = _tensor(np.asarray(mean))
        varies = std > 1e-6 * np.abs(mean)  # rounding alone does not count
        getattr(self, f"{name}_std")[row] = _tensor(np.where(varies, std, 1.0))

    def _standard(self, name: str, side: int, values: np.ndarray) -> Tensor:
        mean = getattr(self, f"{name}_mean")[side].cpu().numpy()
        std = getattr(self, f"{name}_std")[side].cpu().numpy()
        return _tensor((values - mean) / std)

    def _incident(self, energy: Tensor) -> Tensor:
        mean, std = self.incident_mean.to(energy.device), self.incident_std.to(energy.device)
        return _column((energy - mean) / std)


def watched(phases: Iterable[Phase], look: Callable[[str], None]) -> Iterator[Phase]:
    """The same phases; ``look(name)`` is called when each has been trained.

    For convergence curves: evaluate the refiner on held-out showers after every IPF iteration.
    Right only for a training that runs without interruption, since the phases that a resumed
    training skips find the weights of the interruption.
    """
    for phase in phases:
        yield phase
        look(phase.name)


def _bridge(
    config: BridgeConfig,
    network: str,
    dim: int,
    conditions: list[str],
    faults: list[str],
    options: dict[str, Any] | None = None,
) -> DSB:
    keywords = config.model_dump()
    keywords["network_options"] = {**keywords["network_options"], **(options or {})}
    try:
        return DSB(
            dim, dict.fromkeys(conditions, 1), network=network, paper_compat=faults, **keywords
        )
    except TypeError as error:
        raise ConfigError(f"network_options of the {network} network: {error}") from error


def _named(prefix: str, phases: Iterable[Phase]) -> Iterator[Phase]:
    for phase in phases:
        phase.name = f"{prefix}-{phase.name}"
        yield phase


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def _column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1)
