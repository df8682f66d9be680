"""OmniFold: unfolding by reweighting simulated events until they look like the data."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.protocols import Conditions
from hepbridge.core.rng import stream_key
from hepbridge.systems.unfolding.classifier_training import ClassifierTraining
from hepbridge.systems.unfolding.omnifold_inputs import Floats, Mask, Simulation, matrix, vector
from hepbridge.training.history import History
from hepbridge.training.loop import fit
from hepbridge.training.seeds import initial_weights
from hepbridge.training.settings import TrainingSettings
from hepbridge.transports.options import known_options
from hepbridge.weighters.contrast import Contrast
from hepbridge.weighters.density_ratio import DensityRatio
from hepbridge.weighters.diagnostics import WeightSummary, summarise, weighted_auc

__all__ = ["Iteration", "OmniFold", "OmniFoldSettings", "ParticleWeights", "Step", "omnifold"]

_LEAST_FAKES = 100  # of fewer, a classifier cannot say where they lie: the purity is a constant


@dataclass(frozen=True)
class OmniFoldSettings:
    """How OmniFold is run.

    ``iterations`` of both steps; ``second_step`` False: one classifier between data and simulation
    at detector level, whose weights the pairs keep (needs ``iterations=1`` and no misses).
    ``warm_start``: the classifier of step 2 goes on from that of the iteration before, whose answer
    it resembles, for ``warm_steps`` steps. (That of step 1 always begins at "ratio 1", the answer
    at the end.) ``classifier``: options of `DensityRatio`; ``training`` of all classifiers.
    """

    iterations: int = 5
    second_step: bool = True
    warm_start: bool = True
    warm_steps: int = 500
    classifier: dict[str, Any] = field(default_factory=dict)
    training: TrainingSettings = field(default_factory=ClassifierTraining)

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.warm_steps < 1:
            raise ConfigError(
                f"OmniFold needs iterations ≥ 1 and warm_steps ≥ 1, got {self.iterations} and "
                f"{self.warm_steps}"
            )
        if not self.second_step and self.iterations != 1:
            raise ConfigError(
                f"OmniFold without its second step has one iteration, not {self.iterations}"
            )
        known_options("the classifier of OmniFold", DensityRatio, self.classifier)


class ParticleWeights(nn.Module):
    """The result as a function: :math:`\\nu(x)`, total times the ratio of densities.

    It multiplies the weights of other simulated events of the same generator, pairs and misses
    alike, which then are distributed and counted as the unfolded data per simulated pair.
    """

    def __init__(self, ratio: DensityRatio, total: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.total: Tensor
        self.register_buffer("total", torch.tensor(total, dtype=torch.float64))

    def weights(self, x: Tensor, conditions: Conditions | None = None) -> Tensor:
        """The weights (N,), float64, at particle level x (N, d)."""
        weights: Tensor = self.ratio.weights(x, conditions).double() * self.total
        return weights


@dataclass(frozen=True)
class Step:
    """What happened in the training of one classifier.

    ``summary`` of its weights over the denominator; ``auc`` of its logit between numerator and
    denominator, and ``auc_after`` with the denominator reweighted (1/2 if nothing is left).
    """

    history: History
    seconds: float
    log_mean: float
    summary: WeightSummary
    auc: float
    auc_after: float


@dataclass(frozen=True)
class Iteration:
    """``pull`` (N,): :math:`w\\,\\omega_n`, zero beside the pairs; ``push`` (N,): :math:`\\nu_n`."""

    pull: Floats
    push: Floats
    detector: Step
    particle: Step | None


@dataclass(frozen=True)
class OmniFold:
    """An unfolding.

    Attributes:
        weights: (N,) of the simulated events, zero for those that are not in the particle-level
            phase space. Their sum is the number of events that the data hold there, corrected for
            fakes and efficiency; histograms of anything with these weights are the result.
        weighter: :math:`\\nu(x)` for other events; None without the second step.
        purity: (M,) part of the data at each event that is no fake.
        total: data corrected for fakes, not for efficiency: :math:`\\sum d\\,\\mathrm{purity}`.
        iterations: weights and trainings of each iteration.
        fakes: the training of the purity; None for fewer than 100 fakes, with a constant purity.
    """

    weights: Floats
    weighter: ParticleWeights | None
    purity: Floats
    total: float
    iterations: list[Iteration]
    fakes: Step | None


def omnifold(
    particle: Tensor | NDArray[Any],
    detector: Tensor | NDArray[Any],
    data: Tensor | NDArray[Any],
    *,
    seed: int,
    pairs: Mask | None = None,
    misses: Mask | None = None,
    fakes: Mask | None = None,
    weights: ArrayLike | None = None,
    data_weights: ArrayLike | None = None,
    settings: OmniFoldSettings | None = None,
    device: str = "cpu",
) -> OmniFold:
    r"""Unfold ``data`` with N simulated events (Andreassen et al., arXiv:1911.09107).

    With the simulation's own weights :math:`w`, data weights :math:`d`, :math:`\nu_0 = 1`:

    .. math::
        \text{fakes:}  \quad & d' = d\,\pi(y), \qquad
            \pi = \frac{w_{pairs}(y)}{w_{pairs}(y) + w_{fakes}(y)} \\
        \text{step 1:} \quad & \omega_n = \nu_{n-1}(x)\,\frac{d'(y)}{(w\nu_{n-1})_{pairs}(y)} \\
        \text{step 2:} \quad & \nu_n(x) = \frac{(w\,\omega_n)_{pairs}(x)}{w_{pairs}(x)}
            = \mathrm{E}[\omega_n \mid x,\ \text{pair}]

    where each fraction is a classifier and the ratio of totals. :math:`w\omega_n` adds up to the
    total of :math:`d'`. Step 2 is learned from pairs and then holds for misses too: a miss says
    nothing of the data, so its weight is the mean over the pairs at its x, as in steps "1b" of
    arXiv:2105.04448; a further classifier for it would learn the same function. (Leaving misses
    at their old weight instead has the same fixed point, but takes :math:`1/\epsilon` times the
    iterations.) This is the expectation-maximisation of the likelihood: D'Agostini's iteration with
    efficiencies, unbinned. The purity is that of the simulation at each y: "step 2b" of
    arXiv:2105.04448, in which fakes are reweighted like the pairs at their y, amounts to the same.
    (To subtract fakes in absolute numbers instead, append them to the data with negative weights.)

    Args:
        particle, detector: (N, d) and (N, d') in model space; rows outside the masks are not read.
        data: (M, d') in the same space as ``detector``.
        pairs, misses, fakes: (N,) bool, default: all pairs. Misses are in the particle-level phase
            space without a partner at detector level, fakes the other way round; an event may be
            both, if its two jets do not belong together.
        weights: (N,) of the generator, not negative, default 1.
        data_weights: (M,), default 1; negative for a subtracted background.
        device: where the classifiers are trained.

    Raises:
        DataError: shapes that do not fit, NaN or infinity in rows that are used, no pairs, totals
            that are not positive.
        ConfigError: misses without the second step, options that a classifier does not have.
    """
    settings = settings or OmniFoldSettings()
    simulation = Simulation.of(particle, detector, pairs, misses, fakes, weights)
    y = matrix("data", data)
    if y.shape[1] != simulation.detector.shape[1]:
        raise DataError(
            f"the data have {y.shape[1]} columns, the simulation has {simulation.detector.shape[1]}"
        )
    if not settings.second_step and simulation.misses.any():
        raise ConfigError(
            f"OmniFold without its second step has no weights for the {simulation.misses.sum()} "
            "misses; use the second step, or leave the misses out"
        )
    d = vector("data_weights", data_weights, len(y))
    return _Unfolding(simulation, y, d, settings, seed, device).run()


class _Unfolding:
    def __init__(
        self,
        simulation: Simulation,
        data: Tensor,
        data_weights: Floats,
        settings: OmniFoldSettings,
        seed: int,
        device: str,
    ) -> None:
        self.simulation, self.data, self.data_weights = simulation, data, data_weights
        self.settings, self.seed, self.device = settings, seed, device
        pairs = torch.from_numpy(simulation.pairs)
        self.x, self.y = simulation.particle[pairs], simulation.detector[pairs]
        self.w = simulation.weights[simulation.pairs]

    def run(self) -> OmniFold:
        simulation, settings = self.simulation, self.settings
        purity, fakes = self._purity()
        data_weights = self.data_weights * purity
        total = float(data_weights.sum())
        nu = np.ones(len(self.w))
        iterations: list[Iteration] = []
        ratio, weighter = None, None
        for n in range(1, settings.iterations + 1):
            first, detector = self._fit(
                Contrast.between(self.data, self.y, _double(data_weights), _double(self.w * nu)),
                f"step 1 of iteration {n}",
            )
            pull = self.w * nu * _evaluate(first, self.y)
            pull *= total / pull.sum()
            push, particle = np.zeros(len(simulation.weights)), None
            if settings.second_step:
                contrast = Contrast(self.x, _double(pull), _double(self.w))
                ratio, particle = self._fit(contrast, f"step 2 of iteration {n}", ratio)
                weighter = ParticleWeights(ratio, total / float(self.w.sum()))
                here = simulation.pairs | simulation.misses
                push[here] = _evaluate(weighter, simulation.particle[torch.from_numpy(here)])
                nu = push[simulation.pairs]
            else:
                push[simulation.pairs] = np.divide(
                    pull, self.w, out=np.zeros_like(pull), where=self.w > 0
                )
            whole = np.zeros(len(simulation.weights))
            whole[simulation.pairs] = pull
            iterations.append(Iteration(whole, push, detector, particle))
        return OmniFold(simulation.weights * push, weighter, purity, total, iterations, fakes)

    def _purity(self) -> tuple[Floats, Step | None]:
        """The part of the simulation at each event of the data that is no fake, (M,)."""
        rows = self.simulation.fakes & (self.simulation.weights > 0)
        w = self.simulation.weights[rows]
        if len(w) < _LEAST_FAKES:
            return np.full(len(self.data), self.w.sum() / (self.w.sum() + w.sum())), None
        fakes = self.simulation.detector[torch.from_numpy(rows)]
        ratio, step = self._fit(
            Contrast.between(fakes, self.y, _double(w), _double(self.w)), "fakes"
        )
        odds = _evaluate(ratio, self.data) * w.sum() / self.w.sum()
        return 1 / (1 + odds), step

    def _fit(
        self, contrast: Contrast, title: str, before: DensityRatio | None = None
    ) -> tuple[DensityRatio, Step]:
        """Train a classifier, from the one of the iteration before if there is one."""
        settings, start = self.settings, time.perf_counter()
        seed = int(stream_key(self.seed, "omnifold", title)[0])
        if before is not None and settings.warm_start:
            ratio = copy.deepcopy(before)
            ratio.train_steps = settings.warm_steps
        else:
            with initial_weights(seed):
                ratio = DensityRatio(contrast.x.shape[1], **settings.classifier)
        history = fit(
            ratio.phases(contrast, self.seed),  # always the same rows are held out
            settings.training,
            seed=seed,
            device=self.device,
            title=title,
        )
        return ratio.cpu(), _step(ratio, contrast, history, time.perf_counter() - start)


@torch.no_grad()
def _step(ratio: DensityRatio, contrast: Contrast, history: History, seconds: float) -> Step:
    above, below = contrast.numerator != 0, contrast.denominator != 0
    score = ratio.logits(contrast.x).numpy()
    a, b = contrast.numerator[above].numpy(), contrast.denominator[below].numpy()
    w = ratio.weights(contrast.x[below]).double().numpy()
    clipped = abs(score[below.numpy()]) >= ratio.bound
    num, den = score[above.numpy()], score[below.numpy()]
    return Step(
        history,
        seconds,
        float(ratio.log_mean),
        summarise(w, b, clipped),
        weighted_auc(num, den, a, b),
        weighted_auc(num, den, a, b * w),
    )


@torch.no_grad()
def _evaluate(weighter: DensityRatio | ParticleWeights, x: Tensor) -> Floats:
    weights: Floats = weighter.weights(x, {}).double().numpy()
    return weights


def _double(values: Floats) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64))
