"""Consistency distillation: a diffusion that jumps to the end of its path in one evaluation."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.transports.contexts import joined
from hepbridge.transports.couplings import draw_pairs
from hepbridge.transports.options import known_options, whole_numbers
from hepbridge.transports.samplers.noise_levels import karras

__all__ = ["TEACHERS", "Consistency"]

TEACHERS = ("edm", "diffusion")
_MOST_LEVELS = 1000


class Consistency(nn.Module):
    r"""A student that goes to the end of its teacher's path from anywhere on it.

    The teacher is a diffusion with a denoiser :math:`D_\phi(x, \sigma, c)` for
    :math:`x = x_1 + \sigma\epsilon`, whose deterministic path is :math:`dx / d\sigma = (x - D_\phi) /
    \sigma`. The student is of the same kind, starts as a copy of it, and its denoiser is used for one
    straight step down to the lowest level :math:`\sigma_{min}`:

    .. math:: f_\theta(x, \sigma, c) = \frac{\sigma_{min}}{\sigma}\, x
              + \Bigl(1 - \frac{\sigma_{min}}{\sigma}\Bigr) D_\theta(x, \sigma, c), \qquad
              f_\theta(x, \sigma_{min}, c) = x .

    It learns that neighbours on one path have the same end. For a level :math:`\sigma_{n+1}` of
    Karras et al., and one step of Heun's method with the teacher from there to :math:`\sigma_n`,

    .. math:: \mathcal{L} = \mathbb{E}\, \bigl| f_\theta(x_1 + \sigma_{n+1} \epsilon, \sigma_{n+1}, c)
              - f_{\bar\theta}(\hat x_n, \sigma_n, c) \bigr|^2, \qquad
              \bar\theta \leftarrow \mu \bar\theta + (1 - \mu)\, \theta .

    (With the denoiser of Karras et al., :math:`D = c_{skip} x + c_{out} F`, this is the
    parametrisation of the paper but for terms of order :math:`\sigma_{min}`.) With k =
    ``evaluations`` the levels are cut into k stretches, and the student goes to the end of the
    stretch that it is in, with :math:`\sigma_{min}` replaced by the lowest level of that stretch: a
    function of the start alone, where the sampler of the paper needs new noise after every evaluation.

    Args:
        dim: coordinates of x.
        condition_dims: name -> columns, all standardised.
        teacher, teacher_options: a diffusion (one of `TEACHERS`) with a sampler without noise, and
            its options. The student has the same network.
        evaluations: at application, ``nfe``; at most levels - 1.
        levels: of noise, from 80 to 0.002.
        average: :math:`\mu`, 0 for the student itself as it is.
        batch_size, train_steps, learning_rate: of the student's phase.

    Raises ConfigError for options that are not allowed.

    Source: Song et al., arXiv:2303.01469 (algorithm 2); as in CaloClouds II, Buhmann et al.,
    arXiv:2309.05704 (levels, mu, start from the teacher); stretches: Heek et al., arXiv:2403.06807.
    """

    claims = Claims(joint=True)
    source_free: bool

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        teacher: str = "edm",
        teacher_options: dict[str, Any] | None = None,
        evaluations: int = 1,
        levels: int = 18,
        average: float = 0.95,
        batch_size: int = 256,
        train_steps: int = 6000,
        learning_rate: float = 5e-4,
    ) -> None:
        super().__init__()
        whole_numbers("consistency", {"batch_size": batch_size, "train_steps": train_steps})
        whole_numbers("consistency", {"levels": levels}, least=2, most=_MOST_LEVELS)
        whole_numbers("consistency", {"evaluations": evaluations}, most=levels - 1)
        if not 0.0 <= average < 1.0:
            raise ConfigError(f"consistency: average must be from 0 to below 1, got {average}")
        if teacher not in TEACHERS:
            allowed = ", ".join(TEACHERS)
            raise ConfigError(f"consistency: unknown teacher {teacher!r}; allowed: {allowed}")
        self.dim, self.noise_dim, self.condition_dims = dim, dim, dict(condition_dims)
        self.evaluations, self.average = evaluations, average
        self.batch_size, self.train_steps = batch_size, train_steps
        self.learning_rate = learning_rate
        self._recipe = (teacher, dict(teacher_options or {}))
        self.student = self._diffusion()
        if self.student.noise_dim != dim:
            raise ConfigError(
                "consistency: the teacher draws from one noise number for each of the "
                f"{dim} coordinates, not {self.student.noise_dim}: choose a sampler without noise"
            )
        self.source_free = self.student.source_free  # whether it draws from its noise alone
        self.claims = replace(self.student.claims)
        self._sigmas = karras(levels)[:-1]
        # places of the levels where a stretch ends and the next begins
        self._cuts = [round(k * (levels - 1) / evaluations) for k in range(evaluations + 1)]
        self._teacher: list[Any] = []  # in a list, so that it is no part of the student's state
        self._adopted = False  # whether the teacher has been trained before
        self._ready = True  # False while the teacher is in training

    @property
    def nfe(self) -> int:
        return self.evaluations

    @property
    def planned_steps(self) -> int:
        teacher = 0 if self._adopted else int(self.student.planned_steps)
        return teacher + self.train_steps

    def end(
        self, model: Any, x: Tensor, sigma: Tensor, floor: Tensor, source: Tensor, c: Tensor | None
    ) -> Tensor:
        """f (N, d) of x (N, d) at levels sigma with the lowest level floor, both (N, 1) or (1, 1)."""
        share = floor / sigma
        return share * x + (1.0 - share) * model.denoised(x, sigma, source, c)

    # -- training -----------------------------------------------------------------------------

    def _diffusion(self) -> Any:
        from hepbridge.transports import TRANSPORTS

        name, options = self._recipe
        known_options(f"consistency: teacher_options for {name!r}:", TRANSPORTS[name], options)
        return TRANSPORTS[name](self.dim, self.condition_dims, **options)

    def adopt(self, teacher: nn.Module) -> None:
        """Learn from a diffusion that has been trained already.

        Raises ConfigError unless it is of the kind and the size of this student.
        """
        same = type(teacher) is type(self.student)
        if not same or _shapes(teacher) != _shapes(self.student):
            raise ConfigError(
                f"consistency: a student of {type(self.student).__name__} starts from the weights of "
                f"its teacher, and this {type(teacher).__name__} has others; give the options that "
                "the teacher was trained with as teacher_options"
            )
        self._teacher[:] = [copy.deepcopy(teacher)]
        self._adopted = True

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """The phases of the teacher, then that of the student."""
        if pairs.dim != self.dim:
            raise ConfigError(f"consistency for {self.dim} coordinates got {pairs.dim}")
        if not self._teacher:
            self._teacher.append(self._diffusion())
        (teacher,) = self._teacher
        self._ready = self._adopted
        for phase in () if self._adopted else teacher.phases(pairs, seed):
            yield replace(phase, name=f"teacher/{phase.name}")
        self.student.load_state_dict(teacher.state_dict())
        pupil = _Pupil(self.student)
        rows = np.arange(len(pairs))
        sigmas = torch.tensor(self._sigmas)
        floors = torch.cat(
            [sigmas[b].expand(b - a) for a, b in itertools.pairwise(self._cuts)]
        )  # of the stretch that begins at a level or above it

        def prepare(rng: np.random.Generator) -> None:
            teacher.to(next(pupil.parameters()).device).eval()

        def batch(step: int, rng: np.random.Generator) -> dict[str, Any]:
            named, source, x1 = draw_pairs(pairs, rows, 1, self.batch_size, rng, None)
            n = torch.from_numpy(rng.integers(0, len(floors), (len(x1), 1)))
            noise = torch.from_numpy(rng.standard_normal(x1.shape, dtype=np.float32))
            return {
                "x": x1 + sigmas[n] * noise,
                "sigma": sigmas[n],
                "then": sigmas[n + 1],
                "floor": floors[n],
                "source": source,
                "c": self._context(named),
                "step": torch.tensor(step),
            }

        def loss(module: Any, data: dict[str, Any]) -> Tensor:
            module.follow(data["step"], self.average)
            x, sigma, then, floor, source, c = (
                data[name] for name in ("x", "sigma", "then", "floor", "source", "c")
            )
            with torch.no_grad():
                slope = (x - teacher.denoised(x, sigma, source, c)) / sigma
                ahead = x + (then - sigma) * slope
                after = (ahead - teacher.denoised(ahead, then, source, c)) / then
                ahead = x + (then - sigma) * 0.5 * (slope + after)
                target = self.end(module.average, ahead, then, floor, source, c)
            return (self.end(module.student, x, sigma, floor, source, c) - target).square().mean()

        self._ready = True
        yield Phase("student", pupil, batch, loss, self.train_steps, self.learning_rate, prepare)
        self._teacher.clear()

    def _context(self, conditions: Conditions) -> Tensor | None:
        return joined(conditions, self.condition_dims)

    # -- application --------------------------------------------------------------------------

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Draws from p(target | source x, conditions), as the teacher does, from the same noise.

        x, noise and result (N, dim); the teacher's draws while that is being trained.
        """
        if not self._ready:
            drawn: Tensor = self._teacher[0].apply(x, conditions, noise)
            return drawn
        c = self._context(conditions)
        levels = [noise.new_full((1, 1), self._sigmas[cut]) for cut in self._cuts]
        y = levels[0] * noise
        for sigma, floor in itertools.pairwise(levels):
            y = self.end(self.student, y, sigma, floor, x, c)
        return y


class _Pupil(nn.Module):
    """A student, and the running average of its weights in buffers, so that a checkpoint has both."""

    step: Tensor

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.average = copy.deepcopy(student)
        for part in self.average.modules():
            for name, weights in list(part.named_parameters(recurse=False)):
                delattr(part, name)
                part.register_buffer(name, weights.detach())
        self.register_buffer("step", torch.tensor(0))

    @torch.no_grad()
    def follow(self, step: Tensor, keep: float) -> None:
        """Take the weights into the average, once a step, however many batches that has."""
        share = torch.where(step > self.step, 1.0 - keep, 0.0)
        averages = dict(self.average.named_buffers())
        for name, weights in self.student.named_parameters():
            averages[name].lerp_(weights, share.to(weights))
        self.step.copy_(step)


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}
