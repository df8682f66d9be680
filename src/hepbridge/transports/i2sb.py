"""Stochastic bridges between pairs (I2SB)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.networks.mlp import ResidualMLP
from hepbridge.transports.couplings import draw_pairs, order_rows
from hepbridge.transports.multistep import follow
from hepbridge.transports.options import positive_weights, some_carried, whole_numbers

__all__ = ["I2SB"]

_MOST_STEPS = 1000
_SAMPLERS = ("heun", "posterior", "implicit", "ode")
_SCHEDULES = ("symmetric", "constant")


class I2SB(nn.Module):
    r"""Brownian bridges between the two ends of a pair, and the diffusion that follows them.

    With the clock :math:`a(t) = \int_0^t \beta / \sigma^2`, :math:`\sigma^2 = \int_0^1 \beta`, a
    source :math:`x_0` and its target :math:`x_1` are joined by

    .. math:: x_t = (1 - a)\, x_0 + a\, x_1 + \sigma \sqrt{a (1 - a)}\, z, \qquad
              \mathcal{L} = \mathbb{E}\,\Bigl| f_\theta(x_t, t, c)
                            - \frac{x_1 - x_t}{\sigma \sqrt{1 - a}} \Bigr|^2,

    so that :math:`\hat x_1 = x_t + \sigma \sqrt{1 - a} f_\theta` estimates
    :math:`\mathbb{E}[x_1 | x_t, c]`. From a source the process
    :math:`dx = (\hat x_1 - x) / (1 - a)\, da + \sigma\, dw_a` is followed over ``steps`` equal steps
    of t, the last one without noise, straight to :math:`\hat x_1`:

    - ``posterior``: the sampler of the paper, :math:`x_{t'} = x_t + r\,(\hat x_1 - x_t) + \sigma
      \sqrt{r (1 - a')}\, z`, :math:`r = (a' - a) / (1 - a)`. First order: the output is too narrow,
      by 10 % of its standard deviation in 20 steps and by 2 % in 100.
    - ``heun``: the drift is the mean of those at both ends of a step (two evaluations): of second
      order but for the last step, and within 1 % in 20 steps.
    - ``implicit``: the diffusion bridge implicit model. One draw z of normal noise per coordinate,
      then no more: :math:`x_{t'} = (1 - a')\, x_0 + a' \hat x_1 + \sigma \sqrt{a' (1 - a')}\,
      \hat z` with the :math:`\hat z` that :math:`x_t` and :math:`\hat x_1` imply, and z in the first
      step; with a correction to second order (`multistep.follow`). The output is a function of
      source and z, so it can be distilled (`Distilled`). It needs ``condition_on_source``, and is
      within 1.5 % in ten steps.
    - ``ode``: the paper's OT-ODE. No noise in training nor in sampling; Heun steps. The map is
      deterministic and, with assigned pairs, optimal.

    (The paper names the ends the other way round; this is its label, eq. 12, and with
    ``schedule="symmetric"`` its noise: :math:`\sqrt\beta` rises linearly in t up to the middle and
    falls again, from :math:`\sqrt{\beta_{min}}` towards :math:`\sqrt{\beta_{max}}`, which a rise
    over the whole of [0, 1] would reach. ``"constant"``: :math:`\beta = \beta_{max}`.)

    Pairs that belong together are used as they are; others are assigned as in `FlowMatching`. The
    process reproduces the distribution of the targets. Only with ``condition_on_source``, where the
    network also sees :math:`x_0`, does it reproduce the distribution of the target *given* the
    source (arXiv:2311.06978): keep it for unfolding. It is not possible with ``ode``: the start and
    a point of a straight path give the end away, and what is learned is the mean of the targets.

    The last ``carried`` coordinates are kept exactly as they are and steer the others, as in
    `FlowMatching`; their difference enters the assignment cost with weight ``carried_weight``.

    Args:
        dim: coordinates of x, the carried ones included.
        condition_dims: name -> columns, all standardised.
        condition_on_source: whether the network sees the source; by default yes, unless ``ode``.
        sampler: ``"heun"``, ``"posterior"``, ``"implicit"`` or ``"ode"``.
        steps: at application; ``nfe = steps`` for ``posterior`` and ``implicit``, else
            ``2 * steps - 1``.
        schedule, beta_min, beta_max: of the noise. Its width :math:`\sigma` should not be far below
            the spread of the targets of one source, or more steps are needed.
        weights: (dim - carried) weights of the coordinates in the loss, default 1.
        window, windows: rows in a window, windows in a batch.
        train_steps, learning_rate: of the only phase.
        width, depth: of the residual network, which sees the source and the conditions through
            ``embedding`` columns.

    Raises ConfigError for options that are not allowed.

    Source: Liu et al., arXiv:2302.05872; for unfolding Diefenbacher et al., arXiv:2308.12351 (there
    ``condition_on_source=False, sampler="posterior", steps=999, beta_max=0.1``); ``implicit``: Zheng
    et al., arXiv:2405.15885.
    """

    claims = Claims(joint=True, coupling=True, posterior=True)

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        condition_on_source: bool | None = None,
        sampler: str = "heun",
        steps: int = 20,
        schedule: str = "symmetric",
        beta_min: float = 0.01,
        beta_max: float = 1.0,
        carried: int = 0,
        carried_weight: float = 30.0,
        weights: Sequence[float] | None = None,
        window: int = 128,
        windows: int = 2,
        train_steps: int = 4000,
        learning_rate: float = 1e-3,
        width: int = 512,
        depth: int = 4,
        embedding: int = 32,
    ) -> None:
        super().__init__()
        counts = {"window": window, "windows": windows, "train_steps": train_steps}
        counts |= {"width": width, "depth": depth, "embedding": embedding}
        whole_numbers("i2sb", counts)
        whole_numbers("i2sb", {"steps": steps}, least=2, most=_MOST_STEPS)
        for name, text, known in (
            ("sampler", sampler, _SAMPLERS),
            ("schedule", schedule, _SCHEDULES),
        ):
            if text not in known:
                raise ConfigError(f"i2sb: unknown {name} {text!r}; allowed: {', '.join(known)}")
        if not 0 < beta_min <= beta_max:
            raise ConfigError(
                f"i2sb: beta_min and beta_max must be 0 < beta_min <= beta_max, "
                f"got {beta_min} and {beta_max}"
            )
        some_carried("i2sb", carried, dim)
        if condition_on_source and sampler == "ode":
            raise ConfigError(
                "i2sb: with sampler 'ode' the network must not see the source, because it would "
                "learn the mean of the targets; set condition_on_source: false, or choose the "
                "sampler heun or posterior"
            )
        if condition_on_source is False and sampler == "implicit":
            raise ConfigError(
                "i2sb: with sampler 'implicit' the network must see the source, because the step "
                "needs the mean of its own targets; leave condition_on_source out, or choose the "
                "sampler heun or posterior"
            )
        self.moving = dim - carried
        weights = positive_weights("i2sb", weights, self.moving)
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights), persistent=False)
        self.dim, self.carried, self.carried_weight = dim, carried, carried_weight
        self.condition_dims = dict(condition_dims)
        self.sampler, self.steps = sampler, steps
        self.noisy = sampler != "ode"
        self.condition_on_source = (
            self.noisy if condition_on_source is None else condition_on_source
        )
        self.claims = replace(
            I2SB.claims,
            posterior=self.condition_on_source,
            optimal=not self.noisy,
            deterministic=not self.noisy,
        )
        draws = {"heun": steps - 1, "posterior": steps - 1, "implicit": 1, "ode": 0}
        self.noise_dim = draws[sampler] * self.moving
        self.schedule, self.beta_min, self.beta_max = schedule, beta_min, beta_max
        self.sigma = (2.0 * float(self._accumulated(torch.tensor(0.5, dtype=torch.float64)))) ** 0.5
        self.window, self.windows = window, windows
        self.train_steps, self.learning_rate = train_steps, learning_rate
        self.network = ResidualMLP(
            self.moving,
            self.moving,
            carried + sum(condition_dims.values()) + self.moving * self.condition_on_source,
            width,
            depth,
            max_frequency=4.0,
            embedding=embedding,
        )

    @property
    def nfe(self) -> int:
        return self.steps if self.sampler in ("posterior", "implicit") else 2 * self.steps - 1

    @property
    def planned_steps(self) -> int:
        return self.train_steps

    # -- the clock ----------------------------------------------------------------------------

    def clock(self, t: Tensor) -> Tensor:
        """a(t): the share of the noise variance that has been added by time t, both in [0, 1]."""
        early = self._accumulated(torch.minimum(t, 1.0 - t)) / self.sigma**2
        return torch.where(t < 0.5, early, 1.0 - early)

    def grid(self) -> tuple[list[float], list[float]]:
        """The times before, between and after the steps of `apply`, and the clock at each."""
        times = torch.linspace(0.0, 1.0, self.steps + 1, dtype=torch.float64)
        return times.tolist(), self.clock(times).tolist()

    def _accumulated(self, t: Tensor) -> Tensor:
        """The variance added by a time t <= 1/2."""
        if self.schedule == "constant":
            return self.beta_max * t
        low, rise = self.beta_min**0.5, self.beta_max**0.5 - self.beta_min**0.5
        return t * (low**2 + low * rise * t + rise**2 * t**2 / 3.0)

    # -- training -----------------------------------------------------------------------------

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """One phase of regression on bridges between pairs drawn anew for every batch."""
        if pairs.dim != self.dim:
            raise ConfigError(f"i2sb for {self.dim} coordinates got {pairs.dim}")
        order = order_rows(pairs, seed)
        scale = torch.ones(self.dim)
        scale[self.moving :] = self.carried_weight**0.5

        def batch(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
            named, x0, x1 = draw_pairs(pairs, order, self.window, self.windows, rng, scale)
            context = self._context(named, x0[:, : self.moving], x1[:, self.moving :])
            x0, x1 = x0[:, : self.moving], x1[:, : self.moving]
            t = torch.from_numpy(rng.random((len(x0), 1), dtype=np.float32))
            rest = self.clock(1.0 - t)
            x, label = torch.lerp(x1, x0, rest), rest.sqrt() / self.sigma * (x1 - x0)
            if self.noisy:
                z = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
                x = x + self.sigma * (rest * (1.0 - rest)).sqrt() * z
                label = label - (1.0 - rest).sqrt() * z
            return {"x": x, "t": t, "c": context, "label": label}

        def loss(module: nn.Module, data: dict[str, Tensor]) -> Tensor:
            error = (module(data["x"], data["t"], data["c"]) - data["label"]).square().mean(dim=0)
            weights = self.weights.to(error.device)
            return (error * weights).sum() / weights.sum()

        yield Phase("bridge", self.network, batch, loss, self.train_steps, self.learning_rate)

    def _context(self, conditions: Conditions, source: Tensor, carried: Tensor) -> Tensor:
        """What the network is conditioned on (N, k): named conditions, carried part, source."""
        named = [conditions[name] for name in self.condition_dims]
        return torch.cat([*named, carried, *([source] if self.condition_on_source else [])], dim=1)

    # -- application --------------------------------------------------------------------------

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Source to target: x (N, dim), noise (N, noise_dim), result (N, dim)."""
        y, kept = x[:, : self.moving], x[:, self.moving :]
        context = self._context(conditions, y, kept)
        if self.sampler == "implicit":
            return torch.cat([self._implicit(y, noise, context), kept], dim=1)
        draws = noise.reshape(len(x), -1, self.moving) if self.noisy else None
        times, shares = self.grid()
        for k in range(self.steps - 1):
            a, then = shares[k], shares[k + 1]
            h = then - a
            velocity = self._velocity(y, times[k], a, context)
            kick: Tensor | float = 0.0
            if draws is not None:
                shrink = (1.0 - then) / (1.0 - a) if self.sampler == "posterior" else 1.0
                kick = self.sigma * (h * shrink) ** 0.5 * draws[:, k]
            if self.sampler != "posterior":
                ahead = y + h * velocity + kick
                later = self._velocity(ahead, times[k + 1], then, context)
                velocity = 0.5 * (velocity + later)
            y = y + h * velocity + kick
        last = shares[-2]
        y = y + (1.0 - last) * self._velocity(y, times[-2], last, context)
        return torch.cat([y, kept], dim=1)

    def _implicit(self, source: Tensor, z: Tensor, context: Tensor) -> Tensor:
        """With a = sin^2 theta the bridge is x = (1 - a) x0 + sin(theta) w; w starts as noise."""
        times, shares = self.grid()
        angles = [math.asin(a**0.5) for a in shares]

        def end(w: Tensor, k: int) -> Tensor:
            x = (1.0 - shares[k]) * source + shares[k] ** 0.5 * w
            return x + (1.0 - shares[k]) * self._velocity(x, times[k], shares[k], context)

        return follow(self.sigma * z, angles, end, order=2)

    def _velocity(self, x: Tensor, t: float, a: float, context: Tensor) -> Tensor:
        """The drift dx/da = (x1 - x) / (1 - a) with the network's estimate of x1."""
        out: Tensor = self.network(x, torch.full((1,), t, dtype=x.dtype, device=x.device), context)
        return self.sigma / (1.0 - a) ** 0.5 * out
