"""Probability density distillation: a flow that draws in one pass, from one that knows densities."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import zuko
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Conditions, Pairs, Phase
from hepbridge.transports.couplings import draw_pairs
from hepbridge.transports.options import known_options
from hepbridge.transports.spline_flow import SplineFlow, _log_prob

__all__ = ["InverseFlow"]


class InverseFlow(SplineFlow):
    r"""An inverse autoregressive flow (the student) that learns the inverse of a masked one (teacher).

    The teacher, an autoregressive `SplineFlow`, takes data to noise, :math:`h_0 = x`,
    :math:`h_{k+1} = f_k(h_k; c)`, :math:`h_K = z`. It does so in one pass, but draws in one pass for
    each coordinate, since the splines of a coordinate depend on *data* before it. The student,

    .. math:: S = s_0 \circ \dots \circ s_{K-1}, \qquad s_k \approx f_k^{-1},

    is made of the same maps backwards, in the same orders of the coordinates, with splines that depend
    on the *noise* before a coordinate: it draws in one pass. Such a student that equals the teacher
    exists, as the data before a coordinate are a function of the noise before it. The loss goes both
    ways, each one pass of either,

    .. math:: \mathcal{L} = \sum_k \Bigl( (1 - b)\, \mathbb{E}_z
              \bigl| h^T_{k+1}(S(z)) - h^S_{k+1}(z) \bigr|^2 / d
              + b\, \mathbb{E}_x \bigl| h^S_k(h_K(x)) - h^T_k(x) \bigr|^2 / d \Bigr),

    with what is between the maps of teacher (T) and student (S): from noise to data and back to noise,
    and from data to noise and back to data. The teacher never draws. With ``guided=False`` only noise
    against noise and data against data are compared. Maps whose networks are as large as those of the
    teacher start from its weights, which are right where the maps before them do little.

    The density of a draw is known in the same pass (`sample_and_log_prob`); that of other data takes
    ``dim`` passes (`log_prob`). The student is as wrong as its teacher, and a little more: the mean of
    its own minus the teacher's log-density over its draws is their Kullback-Leibler divergence.

    Args:
        dim: coordinates of x.
        condition_dims: name -> columns, all standardised.
        teacher_options: of `SplineFlow` with ``kind: autoregressive``. The maps of the student are
            the same, and without ``condition_on_source`` it does not see the source either.
        width, depth: of the student's networks, default those of the teacher.
        blend: b, from 0 to 1.
        guided: compare what is between the maps, too.
        batch_size, train_steps, learning_rate: of the student's phase.

    Raises ConfigError for options that are not allowed, also those of the teacher.

    Source: van den Oord et al., arXiv:1711.10433 (probability density distillation); Krause & Shih,
    arXiv:2110.11377 (CaloFlow II: the loss); Kingma et al., arXiv:1606.04934 (inverse
    autoregressive flows).
    """

    teacher: ClassVar[str] = "spline_flow"  # the registered transport that is distilled

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        teacher_options: dict[str, Any] | None = None,
        width: int | None = None,
        depth: int | None = None,
        blend: float = 0.5,
        guided: bool = True,
        batch_size: int = 256,
        train_steps: int = 3000,
        learning_rate: float = 1e-3,
    ) -> None:
        taught = dict(teacher_options or {})
        known_options("inverse_flow: the teacher spline_flow", SplineFlow, taught)
        own: dict[str, Any] = {"width": width, "depth": depth}
        own = {name: value for name, value in own.items() if value is not None}
        own |= {"batch_size": batch_size, "train_steps": train_steps}
        own |= {"learning_rate": learning_rate, "dropout": 0.0}
        super().__init__(dim, condition_dims, **(taught | own))
        if self.structure["kind"] != "autoregressive":
            raise ConfigError(
                f"inverse_flow: a teacher of kind {self.structure['kind']!r} draws in few passes "
                "itself; set teacher_options.kind: autoregressive, or use spline_flow"
            )
        if not 0.0 <= blend <= 1.0:
            raise ConfigError(f"inverse_flow: blend must be from 0 to 1, got {blend!r}")
        self.network = _backwards(self.network)
        self.nfe = len(self.network.transforms)
        self.blend, self.guided = blend, guided
        self._teacher_options = taught
        # in a list, so that it is no part of the student's state
        self._teacher: list[SplineFlow] = []
        self._adopted = False  # whether the teacher has been trained before
        self._student = True  # False while the teacher is in training

    @property
    def planned_steps(self) -> int:
        teacher = 0 if self._adopted else self._taught().planned_steps
        return teacher + self.train_steps

    # -- training -----------------------------------------------------------------------------

    def _taught(self) -> SplineFlow:
        """The teacher, built when it is first needed: a stored student never needs it."""
        if not self._teacher:
            self._teacher.append(SplineFlow(self.dim, self.condition_dims, **self._teacher_options))
        return self._teacher[0]

    def adopt(self, teacher: nn.Module) -> None:
        """Learn from a transport that has been trained already.

        Raises ConfigError if it is no `SplineFlow` with the maps that the student was made for.
        """
        if not isinstance(teacher, SplineFlow) or isinstance(teacher, InverseFlow):
            raise ConfigError(
                f"inverse_flow learns from a spline_flow, not from {type(teacher).__name__}"
            )
        here = self.structure | {"dim": self.dim, "condition_dims": self.condition_dims}
        there = teacher.structure | {"dim": teacher.dim, "condition_dims": teacher.condition_dims}
        differ = [name for name in here if here[name] != there[name]]
        if differ:
            raise ConfigError(
                "inverse_flow: the student has other maps than its teacher: "
                + "; ".join(f"{n} {here[n]!r}, the teacher {there[n]!r}" for n in differ)
                + ". Set teacher_options to those of the teacher"
            )
        self._teacher[:] = [copy.deepcopy(teacher)]
        self._adopted = True

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """The phase of the teacher, then that of the student."""
        teacher = self._taught()
        self._student = self._adopted
        for phase in () if self._adopted else teacher.phases(pairs, seed):
            yield replace(phase, name=f"teacher/{phase.name}")
        if pairs.dim != self.dim:
            raise ConfigError(f"inverse_flow for {self.dim} coordinates got {pairs.dim}")
        teacher.eval().requires_grad_(False)
        for mine, its in zip(
            self.network.transforms, teacher.network.transforms[::-1], strict=True
        ):
            state = its.state_dict()
            if _shapes(state) == _shapes(mine.state_dict()):
                mine.load_state_dict(state)
        rows = np.arange(len(pairs))

        def prepare(rng: np.random.Generator) -> None:
            teacher.to(next(self.network.parameters()).device)

        def batch(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
            named, y, x = draw_pairs(pairs, rows, 1, self.batch_size, rng, None)
            z = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
            return {"x": x, "z": z, "c": self._context({**named, "source": y}, x)}

        def loss(module: nn.Module, data: dict[str, Tensor]) -> Tensor:
            return self._apart(teacher.network, module, data["x"], data["z"], data["c"])

        self._student = True
        yield Phase(
            "student", self.network, batch, loss, self.train_steps, self.learning_rate, prepare
        )
        self._teacher.clear()
        self._adopted = False

    def _apart(
        self, teacher: nn.Module, student: nn.Module, x: Tensor, z: Tensor, c: Tensor
    ) -> Tensor:
        """The loss, for data x and noise z (n, dim) under the same contexts c."""
        with torch.no_grad():
            down = _between(teacher, x, c)  # data to noise
        up = _between(student, torch.cat([down[-1], z]), torch.cat([c, c]))
        of_data, of_noise = zip(*(h.split(len(x)) for h in up), strict=True)
        back = _between(teacher, of_noise[-1], c)
        data = _errors(of_data, down[::-1])
        noise = _errors(back, of_noise[::-1])
        if not self.guided:
            data, noise = data[-1:], noise[-1:]
        return self.blend * data.sum() + (1.0 - self.blend) * noise.sum()

    # -- application --------------------------------------------------------------------------

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Draws from p(target | source x, conditions): x, noise and result (N, dim).

        x is ignored if the flow does not see the source. The teacher's while that is being trained.
        """
        if not self._student:
            return self._teacher[0].apply(x, conditions, noise)
        return super().apply(x, conditions, noise)

    def sample(self, conditions: Conditions, noise: Tensor) -> Tensor:
        """Draws (N, dim) given the conditions, one of them the ``source`` (N, dim) if it is seen."""
        return _between(self.network, noise, self._context(conditions, noise))[-1]

    def sample_and_log_prob(self, conditions: Conditions, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draws (N, dim) as `sample`, and ln p (N,) of each, in one pass."""
        x, log_det = self.network(self._context(conditions, noise)).call_and_ladj(noise)
        normal = -0.5 * noise.square().sum(dim=1) - 0.5 * self.dim * math.log(2.0 * math.pi)
        return x, normal - log_det

    def log_prob(self, x: Tensor, conditions: Conditions) -> Tensor:
        """ln p(x | conditions) (N,), in ``dim`` passes."""
        return _log_prob(self.network.inv, x, self._context(conditions, x))


def _between(network: nn.Module, start: Tensor, context: Tensor) -> list[Tensor]:
    """What is before, between and after the maps of a network."""
    out = [start]
    for one in network.transforms:
        out.append(one(context)(out[-1]))
    return out


def _errors(found: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Mean squares of what is behind each map; the start is given."""
    gaps = zip(found[1:], truth[1:], strict=True)
    return torch.stack([(a - b).square().mean() for a, b in gaps])


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def _backwards(maps: zuko.lazy.LazyComposedTransform) -> zuko.lazy.LazyComposedTransform:
    """The same maps in reverse, each the other way round: of what it gets, it sees what is before."""
    for one in maps.transforms:
        one.univariate = partial(_inverse, one.univariate)
    return zuko.lazy.LazyComposedTransform(*reversed(maps.transforms))


def _inverse(univariate: Callable[..., Transform], *parameters: Tensor) -> Transform:
    return _Inverse(univariate(*parameters))


class _Inverse(Transform):
    """torch's own refers to the map and the map to it, so that the tensors of both live on."""

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = +1

    def __init__(self, base: Transform) -> None:
        super().__init__()
        self.base = base

    def _call(self, x: Tensor) -> Tensor:
        return self.base._inverse(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.base._call(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self.base.log_abs_det_jacobian(y, x)
