"""Distillation: a student that does in one, two or four evaluations what its teacher does in many."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.transports.build_network import build_network
from hepbridge.transports.contexts import joined
from hepbridge.transports.couplings import (
    draw_pairs,
    order_rows,
    random_images,
    symmetrise_together,
)
from hepbridge.transports.discrepancies import sliced_energy_distance
from hepbridge.transports.options import positive_weights, some_carried, whole_numbers

__all__ = ["Distilled"]

_ROWS = 2048  # moved by the teacher at once


class Distilled(nn.Module):
    r"""A student :math:`S` trained towards the ends of a teacher :math:`T`.

    .. math:: S = s_k \circ \dots \circ s_1, \qquad s_j(x) = x + f_\theta(x, t_j, c), \qquad
              \mathcal{L} = \mathbb{E}\,\bigl| S(x_0, c) - T(x_0, c) \bigr|^2

    with k = ``evaluations``. The teacher couples each source row to one target row without noise,
    so the regression has no irreducible error: what remains is the error of the network. (One Euler
    step of the teacher itself would be the mean velocity at the start, which is not its end.) Only
    the student is kept; the teacher is forgotten after the training.

    A teacher that draws its output from one normal number per moving coordinate (`SplineFlow`,
    `Diffusion`, `I2SB` with ``sampler="implicit"``) is a function as well, :math:`T(x_0, z, c)`. Its
    student sees z and the source in every evaluation, :math:`s_j(x) = x + f_\theta(x, x_0, z, t_j,
    c)`, starts at the source as any student does, and draws from the distribution of its teacher. If
    the teacher draws from its noise alone (``source_free``), the student starts at z and sees no source.

    With ``tune_steps`` a second phase corrects what the teacher got wrong, without pairs:

    .. math:: \mathcal{L} = \mathcal{E}_\theta\bigl(\{(S(x_0), c)\}, \{(x_1, c)\}\bigr)
              + \lambda\, \mathbb{E}\,\bigl| S(x_0) - S_0(x_0) \bigr|^2

    with the unbiased sliced energy distance of windows of neighbours in the ordering condition, along
    ``directions`` drawn anew for every batch, and the untuned student :math:`S_0` as an anchor. All
    coordinates enter the loss: an observable that is one of them is then no independent judge. With
    noise and pairs that belong together the source enters it on both sides, so that p(target |
    source) is compared.

    Args:
        dim: coordinates of x.
        condition_dims: name -> columns, all standardised.
        teacher, teacher_options: a registered transport and its options, deterministic or with one
            noise number per moving coordinate.
        evaluations: of the student's network.
        carried: last coordinates that the teacher, too, leaves as they are.
        weights: (dim - carried) weights of the coordinates in the loss, default 1.
        images: how often each source row is moved by the teacher, each time under a random symmetry
            and with new noise.
        batch_size, train_steps, learning_rate: of the student's phase.
        width, depth: of the network.
        network, network_options: a name of `NETWORKS`, and options of its own.
        tune_steps, tune_rate, anchor: of the second phase, lambda the last; 0 steps for none.
        window, directions: rows of source and of target in a window, directions of a batch.

    Source: Luhman & Luhman, arXiv:2101.02388 (distillation); Székely & Rizzo (2013) (energy distance).
    """

    claims = Claims(joint=True, coupling=True, deterministic=True)

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        teacher: str = "flow_matching",
        teacher_options: dict[str, Any] | None = None,
        evaluations: int = 1,
        carried: int = 0,
        weights: Sequence[float] | None = None,
        images: int = 2,
        batch_size: int = 256,
        train_steps: int = 6000,
        learning_rate: float = 1e-3,
        width: int = 256,
        depth: int = 4,
        network: str = "mlp",
        network_options: dict[str, Any] | None = None,
        tune_steps: int = 0,
        tune_rate: float = 1e-4,
        anchor: float = 0.1,
        window: int = 128,
        directions: int = 128,
    ) -> None:
        super().__init__()
        from hepbridge.transports import TRANSPORTS

        if teacher == "distilled":
            raise ConfigError("distilled: the teacher must not be a student itself")
        some_carried("distilled", carried, dim)
        counts = {
            "evaluations": evaluations,
            "images": images,
            "batch_size": batch_size,
            "train_steps": train_steps,
            "width": width,
            "depth": depth,
            "window": window,
            "directions": directions,
        }
        whole_numbers("distilled", counts)
        self.dim, self.carried, self.evaluations = dim, carried, evaluations
        self.condition_dims = dict(condition_dims)
        moving = dim - carried
        weights = positive_weights("distilled", weights, moving)
        self.weights = torch.tensor(weights)
        self.images, self.batch_size = images, batch_size
        self.train_steps, self.learning_rate = train_steps, learning_rate
        whole_numbers("distilled", {"tune_steps": tune_steps}, least=0)
        self.tune_steps, self.tune_rate, self.anchor = tune_steps, tune_rate, anchor
        self.window, self.directions = window, directions
        self._recipe = (teacher, dict(teacher_options or {}))
        self._teacher: list[Any] = []  # in a list, so that it is no part of the student's state
        self.noise_dim = 0
        self.source_free = False  # whether the teacher draws from its noise alone
        if not TRANSPORTS[teacher].claims.deterministic:  # the class says: with any options
            self._see_noise(self._taught())
            self._teacher.clear()
        self.network = build_network(
            "distilled",
            network,
            network_options,
            dim + (dim + moving if self.noise_dim and not self.source_free else 0),
            moving,
            sum(condition_dims.values()),
            width,
            depth,
            time=evaluations > 1,
            embedding=32,
        )
        self._adopted = False  # whether the teacher has been trained before
        self._student = True  # False while the teacher is in training

    @property
    def nfe(self) -> int:
        return self.evaluations

    @property
    def planned_steps(self) -> int:
        teacher = 0 if self._adopted else int(self._taught().planned_steps)
        return teacher + self.train_steps + self.tune_steps

    # -- training -----------------------------------------------------------------------------

    def _taught(self) -> Any:
        """The teacher, built when it is first needed: a stored student never needs it."""
        from hepbridge.transports import TRANSPORTS

        if not self._teacher:
            name, options = self._recipe
            try:
                self._teacher.append(TRANSPORTS[name](self.dim, self.condition_dims, **options))
            except TypeError as error:
                raise ConfigError(f"distilled: teacher_options for {name!r}: {error}") from error
        return self._teacher[0]

    def _see_noise(self, teacher: Any) -> None:
        """Take over the noise and the claims of a teacher that is not deterministic by its class."""
        name, moving = self._recipe[0], self.dim - self.carried
        if teacher.noise_dim not in (0, moving):
            hint = "; set its sampler: implicit" if name == "i2sb" else ""
            raise ConfigError(
                "distilled: the teacher must be deterministic, or take one noise number for each of "
                f"the {moving} moving coordinates; {name!r} takes {teacher.noise_dim}{hint}"
            )
        self.noise_dim = teacher.noise_dim
        self.source_free = getattr(teacher, "source_free", False)
        self.claims = replace(
            teacher.claims,
            optimal=False,
            entropic=False,
            invertible=False,
            deterministic=not self.noise_dim,
        )

    def adopt(self, teacher: nn.Module) -> None:
        """Learn from a transport that has been trained already.

        Raises ConfigError if it takes other noise than the one that the student was made for.
        """
        if teacher.noise_dim != self.noise_dim:
            raise ConfigError(
                f"distilled: a student with {self.noise_dim} noise numbers cannot learn from a "
                f"teacher with {teacher.noise_dim}"
            )
        if getattr(teacher, "source_free", False) != self.source_free:
            raise ConfigError(
                "distilled: either student or teacher sees the source, the other does not; give the "
                "same condition_on_source in teacher_options"
            )
        self._teacher[:] = [copy.deepcopy(teacher)]
        self._adopted = True

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """The phases of the teacher, then that of the student."""
        if pairs.dim != self.dim:
            raise ConfigError(f"distilled transport for {self.dim} coordinates got {pairs.dim}")
        teacher = self._taught()
        self._student = self._adopted
        for phase in () if self._adopted else teacher.phases(pairs, seed):
            yield replace(phase, name=f"teacher/{phase.name}")
        lessons: list[Tensor] = []
        shown = pairs.rows(np.tile(np.arange(len(pairs)), self.images))
        conditions = dict(shown.conditions)

        def prepare(rng: np.random.Generator) -> None:
            source = shown.source
            if pairs.from_noise:
                source = torch.from_numpy(rng.standard_normal(source.shape, dtype=np.float32))
            (source,), moved = random_images(shown, (source,), rng)
            conditions.update(moved)
            z = torch.zeros_like(source)  # as wide as the source, so that it can be moved along
            drawn = rng.standard_normal((len(source), self.noise_dim), dtype=np.float32)
            z[:, : self.noise_dim] = torch.from_numpy(drawn)
            end = self._move(teacher, source, conditions, z[:, : self.noise_dim])
            lessons[:] = [source, end, z]

        def batch(step: int, rng: np.random.Generator) -> dict[str, Any]:
            some = torch.from_numpy(rng.integers(0, len(shown), self.batch_size))
            x0, x1, z = (lesson[some] for lesson in lessons)
            c: Conditions = {name: value[some] for name, value in conditions.items()}
            if pairs.symmetries is not None:
                # the same for all: what holds for one image holds for every image
                part = replace(pairs, source=x0, target=x1, conditions=dict(c))
                (x0, x1, z), c = symmetrise_together(part, (x0, x1, z), rng)
            return {"x0": x0, "x1": x1, "z": z[:, : self.noise_dim], "c": self._context(c)}

        def loss(module: nn.Module, data: dict[str, Any]) -> Tensor:
            moving = self.dim - self.carried
            out = self._forward(module, data["x0"], data["c"], data["z"])
            error = (out - data["x1"])[:, :moving].square().mean(dim=0)
            weights = self.weights.to(error.device)
            return (error * weights).sum() / weights.sum()

        self._student = True
        yield Phase(
            "student", self.network, batch, loss, self.train_steps, self.learning_rate, prepare
        )
        self._teacher.clear()
        if self.tune_steps:
            yield self._tuning(pairs, seed)

    def _tuning(self, pairs: Pairs, seed: int) -> Phase:
        order = order_rows(pairs, seed)
        half = min(self.window, len(pairs) // 2)
        first: list[nn.Module] = []

        def prepare(rng: np.random.Generator) -> None:
            first[:] = [copy.deepcopy(self.network).requires_grad_(False)]

        def batch(step: int, rng: np.random.Generator) -> dict[str, Any]:
            # other rows for source than for target: rows that share a condition are not independent
            conditions, x0, x1 = draw_pairs(pairs, order, 2 * half, 1, rng, None)
            c = self._context(conditions)
            c = x0.new_zeros(len(x0), 0) if c is None else c
            seen = torch.cat([c, x0], dim=1) if self.noise_dim and pairs.coupled else c
            width = self.dim + seen.shape[1]
            lines = rng.standard_normal((self.directions, width), dtype=np.float32)
            theta = nn.functional.normalize(torch.from_numpy(lines), dim=1)
            z = torch.from_numpy(rng.standard_normal((half, self.noise_dim), dtype=np.float32))
            return {
                "x0": x0[:half],
                "c": c[:half],
                "x1": x1[half:],
                "theta": theta,
                "z": z,
                "seen": seen[:half],
                "seen1": seen[half:],
            }

        def loss(module: nn.Module, data: dict[str, Any]) -> Tensor:
            c = data["c"] if data["c"].shape[1] else None
            out = self._forward(module, data["x0"], c, data["z"])
            before = self._forward(first[0], data["x0"], c, data["z"])
            apart = sliced_energy_distance(
                torch.cat([out, data["seen"]], dim=1),
                torch.cat([data["x1"], data["seen1"]], dim=1),
                data["theta"],
            )
            return apart + self.anchor * (out - before).square().mean()

        return Phase("tune", self.network, batch, loss, self.tune_steps, self.tune_rate, prepare)

    @torch.no_grad()
    def _move(self, teacher: Any, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        where = next(teacher.parameters(), x).device
        out = []
        for start in range(0, len(x), _ROWS):
            rows = slice(start, start + _ROWS)
            part = {name: value[rows].to(where) for name, value in conditions.items()}
            out.append(teacher.apply(x[rows].to(where), part, noise[rows].to(where)).to(x))
        return torch.cat(out)

    # -- application --------------------------------------------------------------------------

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor | None = None) -> Tensor:
        """The image (N, dim) of ``x`` (N, dim), the teacher's while that is being trained.

        ``noise`` (N, noise_dim) may be left out if the teacher is deterministic.
        """
        if noise is None:
            noise = x.new_zeros(len(x), 0)
        if not self._student:
            out: Tensor = self._teacher[0].apply(x, conditions, noise)
            return out
        return self._forward(self.network, x, self._context(conditions), noise)

    def _context(self, conditions: Conditions) -> Tensor | None:
        return joined(conditions, self.condition_dims)

    def _forward(self, network: nn.Module, x: Tensor, c: Tensor | None, z: Tensor) -> Tensor:
        moving = self.dim - self.carried
        always = [x, z] if self.noise_dim and not self.source_free else []
        x = z if self.source_free else x
        for j in range(self.evaluations):
            t = x.new_full((1,), j / self.evaluations) if self.evaluations > 1 else None
            step = network(torch.cat([x, *always], dim=1) if always else x, t, c)
            x = (
                torch.cat([x[:, :moving] + step, x[:, moving:]], dim=1)
                if self.carried
                else x + step
            )
        return x
