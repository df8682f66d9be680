"""Showers from noise, in one step or in two: the layer energies, then the cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Conditions, Phase
from hepbridge.core.rng import event_normal
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.conditioning import ENERGY, chosen
from hepbridge.systems.generation.noise_stage import NoiseStage, StageConfig, teacher_of
from hepbridge.systems.refiner import SystemConfig
from hepbridge.transforms.logit_frame import LogitFrame
from hepbridge.transforms.named_conditions import VECTORS, NamedConditions
from hepbridge.transforms.quantile_frame import QuantileFrame
from hepbridge.transforms.shower_coordinates import log_energy

__all__ = ["Generator", "GeneratorConfig"]

LAYERS = "layers"  # the condition that holds the layer energies, for the cells
_ROWS = 2048  # drawn at once, after the training


class GeneratorConfig(SystemConfig):
    """What to build.

    Attributes:
        layers: draws the layer energies; null: there is one step only.
        cells: draws the cells given the layer energies, or all together without ``layers``. Null: no
            network, every coordinate by itself; then ``layers`` is null, too.
        frame: ``quantile`` (`QuantileFrame`) or ``logit`` (`LogitFrame`), with its arguments in
            ``frame_options``.
        match_marginals: after the training, correct the marginals of the cells (``quantile`` only).
        reference: layer of `LayerSums`; ``auto``: the one that most showers hit, of those the one
            with the most energy.
        symmetry: use the symmetry that the geometry declares; ``auto`` verifies it on the data.
        conditions: further conditions of the showers that are used; ``auto``: all that vary.
    """

    layers: StageConfig | None = None
    cells: StageConfig | None = None
    frame: Literal["quantile", "logit"] = "quantile"
    frame_options: dict[str, Any] = Field(default_factory=dict)
    match_marginals: bool = False
    reference: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    symmetry: Literal["auto", "declared", "none"] = "auto"
    conditions: list[str] | Literal["auto"] = Field(default_factory=list)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.layers is not None and self.cells is None:
            raise ValueError("layers without cells: nothing would draw the cells")
        if self.frame == "logit" and self.match_marginals:
            raise ValueError("match_marginals needs frame quantile, which has tables to correct")
        return self

    def transports(self) -> list[tuple[str, str | None]]:
        """The transport of each step, and the teacher that it learns from, if it distils one."""
        steps = [stage for stage in (self.layers, self.cells) if stage is not None]
        return [(stage.transport, teacher_of(stage.transport, stage.options)) for stage in steps]

    def named_conditions(self) -> list[str]:
        return [] if self.conditions == "auto" else self.conditions

    def resolved(self, full: Showers) -> Self:
        """With all that is ``auto`` decided. Raises DataError if the showers lack a condition."""
        from hepbridge.data.symmetry import verify

        update: dict[str, Any] = {"conditions": chosen(self.conditions, full, full)}
        if self.symmetry == "auto":
            moved = any(
                name in parts for parts in VECTORS.values() for name in update["conditions"]
            )
            holds = full.geometry.symmetry != "none" and not moved and verify(full).holds
            update["symmetry"] = "declared" if holds else "none"
        if self.reference == "auto":
            sums = full.geometry.layer_sums(full.cells)
            hit = (sums > 0).mean(axis=0)
            most = np.where(hit == hit.max(), sums.mean(axis=0), -1.0)
            update["reference"] = int(np.argmax(most))
        return self.model_copy(update=update)


class Generator(nn.Module):
    r"""Noise to showers of given incident energies.

    .. math:: z_E = G_1(\epsilon_1;\, E_\mathrm{inc}, c), \qquad
              z_I = G_2(\epsilon_2;\, E_\mathrm{inc}, c, z_E), \qquad
              x = \Phi^{-1}(z_E, z_I;\, E_\mathrm{inc})

    with transports :math:`G` (`NoiseStage`) and a frame :math:`\Phi` of layer energies and cells, which
    brings the cells to their layer energies exactly. Two flows in that order are CaloFlow's and
    CaloDREAM's factorisation; with a single transport for both it is that of CaloINN.

    Parameters and buffers are the whole state; their shapes follow from configuration and geometry.

    Source: arXiv:2106.05285 (CaloFlow), arXiv:2312.09290 (CaloINN), arXiv:2405.09629 (CaloDREAM).
    """

    def __init__(self, config: GeneratorConfig, geometry: Geometry) -> None:
        super().__init__()
        if "auto" in (config.symmetry, config.reference, config.conditions):
            raise ConfigError("symmetry, reference and conditions must be resolved on data first")
        self.config, self.geometry = config, geometry
        sizes = [layer.cells.n_cells for layer in geometry.planes()]
        self.n_layers, self.n_cells = len(sizes), geometry.n_cells
        self._images = geometry.permutations() if config.symmetry == "declared" else None
        groups = np.arange(self.n_cells)
        if self._images is not None:
            groups = np.unique(self._images.min(axis=0), return_inverse=True)[1].reshape(-1)
        self.frame = _frame(config, sizes, groups.tolist())
        self.named = NamedConditions(config.named_conditions())
        dims = {ENERGY: 1, **self.named.dims}
        self.layers = self.cells = None
        if config.layers is not None:
            self.layers = NoiseStage(self.n_layers, dims, config.layers, {})
            dims = {**dims, LAYERS: self.n_layers}
        if config.cells is not None:
            dim = self.n_cells + (0 if self.layers else self.n_layers)
            # given layer energies, a coupling of noise to targets would know them
            defaults = {"condition_weight": float("inf")} if self.layers else {}
            self.cells = NoiseStage(dim, dims, config.cells, defaults)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(1.0, dtype=torch.float64))

    @property
    def noise_dim(self) -> int:
        """Standard normal numbers per shower."""
        if self.cells is None:
            return self.n_layers + self.n_cells
        return self.cells.noise_dim + (self.layers.noise_dim if self.layers else 0)

    @property
    def nfe(self) -> int:
        """Network evaluations per shower, of both steps."""
        return sum(stage.nfe for stage in (self.layers, self.cells) if stage is not None)

    @property
    def planned_steps(self) -> int:
        return sum(stage.planned_steps for stage in (self.layers, self.cells) if stage is not None)

    # -- learning -----------------------------------------------------------------------------

    def fit(self, full: Showers, seed: int) -> None:
        """Learn the frame and how conditions are standardised."""
        log_e = np.log(full.incident_energy)
        self.mean.fill_(float(log_e.mean()))
        self.std.fill_(max(float(log_e.std()), 1e-3))
        if self.named.names:
            self.named.fit(full.conditions, np.eye(2)[None])
        cells, energy, c = self._tensors(full)
        self.frame.fit(cells, energy, c[ENERGY].reshape(-1), self._spread(full, seed))

    def learn_from(self, teacher: Generator) -> None:
        """Take over the frame of a trained generator, and its stages as teachers, instead of `fit`."""
        self.take_frame(teacher)
        for mine, theirs in ((self.layers, teacher.layers), (self.cells, teacher.cells)):
            if mine is not None and theirs is not None:
                mine.learn_from(theirs)

    def take_frame(self, other: Generator) -> None:
        """Take over the frame of another generator, as it is before any correction, instead of `fit`."""
        state = other.frame.state_dict()
        kept = {k: v for k, v in state.items() if not k.startswith("matched.")}
        self.frame.load_state_dict(kept, strict=False)
        if isinstance(self.frame, QuantileFrame):
            self.frame.start_matching()
        self.named.load_state_dict(other.named.state_dict())
        self.mean.copy_(other.mean)
        self.std.copy_(other.std)

    def phases(self, full: Showers, seed: int) -> Iterator[Phase]:
        """The trainings of the two steps, independent of each other."""
        if self.cells is None:
            return
        layers, cells, c = self._normal(full, seed)
        images = None if self._images is None else torch.from_numpy(self._images)
        if self.layers is not None:
            yield from self.layers.phases("layers", layers, c, seed, order=ENERGY)
            c = {**c, LAYERS: layers}
        else:
            cells = torch.cat([layers, cells], dim=1)
            if images is not None:
                first = torch.arange(self.n_layers).expand(len(images), -1)
                images = torch.cat([first, images + self.n_layers], dim=1)
        yield from self.cells.phases("cells", cells, c, seed, order=ENERGY, symmetries=images)

    def finish(self, full: Showers, seed: int) -> None:
        """Correct the marginals of the cells, if that is wanted, once the networks are trained."""
        if not self.config.match_marginals or self.cells is None:
            return
        layers, _, c = self._normal(full, seed)
        made = []
        with torch.inference_mode():
            for start in range(0, len(full), _ROWS):
                rows = slice(start, start + _ROWS)
                noise = event_normal(seed, "finish", full.event_ids[rows], self.noise_dim)
                some = {name: value[rows] for name, value in c.items()}
                known = layers[rows] if self.layers else None
                made.append(self._draw(some, torch.from_numpy(noise).float(), known)[1])
        assert isinstance(self.frame, QuantileFrame)
        self.frame.finish(torch.cat(made), c[ENERGY].reshape(-1))

    def _normal(self, full: Showers, seed: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Layers and cells in the frame, and the conditions."""
        cells, energy, c = self._tensors(full)
        spread = torch.from_numpy(self._spread(full, seed)).float()
        return *self.frame(cells, energy, c[ENERGY].reshape(-1), spread), c

    def _spread(self, full: Showers, seed: int) -> NDArray[np.float64]:
        return event_normal(seed, "dequantise", full.event_ids, self.n_layers + self.n_cells)

    def _tensors(self, full: Showers) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        values = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in full.conditions.items()}
        energy = values[ENERGY]
        return torch.from_numpy(full.cells), energy.float(), self.conditions(values)

    # -- application --------------------------------------------------------------------------

    def conditions(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the transports are conditioned on, of conditions (N,): columns (N, k) by name."""
        energy = values[ENERGY].double()
        own = {ENERGY: log_energy(energy, self.mean, self.std)}
        return own | self.named(values) if self.named.names else own

    def generate(self, conditions: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Cells (N, n_cells), MeV.

        Args:
            conditions: ``incident_energy`` (N,), MeV, and those of `SystemConfig.named_conditions`.
            noise: (N, noise_dim) standard normal.
        """
        c = self.conditions(conditions)
        layers, cells = self._draw(c, noise, None)
        energy = conditions[ENERGY].to(cells.dtype)
        out: Tensor = self.frame.inverse(layers, cells, energy, c[ENERGY].reshape(-1))
        return out

    def _draw(self, c: Conditions, noise: Tensor, layers: Tensor | None) -> tuple[Tensor, Tensor]:
        """Layers and cells in the frame; ``layers`` are drawn unless given."""
        n = self.n_layers
        if self.cells is None:
            return noise[:, :n], noise[:, n:]
        if self.layers is None:
            both = self.cells.draw(c, noise)
            return both[:, :n], both[:, n:]
        width = self.layers.noise_dim
        if layers is None:
            layers = self.layers.draw(c, noise[:, :width])
        return layers, self.cells.draw({**c, LAYERS: layers}, noise[:, width:])


def _frame(
    config: GeneratorConfig, sizes: list[int], groups: list[int]
) -> QuantileFrame | LogitFrame:
    reference = config.reference
    assert reference != "auto"
    if reference >= len(sizes):
        raise ConfigError(f"model.reference {reference}: there are only {len(sizes)} layers")
    try:
        if config.frame == "logit":
            return LogitFrame(sizes, groups, **config.frame_options)
        return QuantileFrame(
            sizes,
            groups,
            reference=reference,
            match=config.match_marginals and config.cells is not None,
            **config.frame_options,
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.frame_options for frame {config.frame!r}: {error}") from error
