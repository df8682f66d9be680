"""Unfolding event by event: a transport that draws from p(particle level | detector level)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.protocols import Pairs, Phase
from hepbridge.core.rng import event_normal, event_uniform, stream
from hepbridge.systems.unfolding.observables import Observables
from hepbridge.systems.unfolding.response import Response
from hepbridge.transforms.event_frame import EventFrame
from hepbridge.transforms.quantile_match import QuantileMatch
from hepbridge.transports import TRANSPORTS
from hepbridge.transports.options import known_options

__all__ = ["Unfolder"]

FURTHER = "further"  # the condition that holds columns which only the detector has
_ROWS = 8192  # moved at once
_DRAWS = 2  # of each pair, to correct the marginals


class Unfolder(nn.Module):
    r"""A transport between two frames: what was seen in, one possible truth out.

    .. math:: x \sim p_\theta(x \mid y), \qquad x = \Phi_x^{-1}\, Q\, T_\theta(\Phi_y\, y, z)

    with the `EventFrame` :math:`\Phi` of each level, a transport T that was trained on pairs of
    events, (x, y), of the response, and maps Q that correct its marginals (`QuantileMatch`, if `finish`
    is called). As :math:`p_\theta(x | y) \propto p(y | x)\, p(x)`, what comes out
    still knows the spectrum p(x) of the response, which iterations replace (`Candidates`).

    Args:
        observables: the columns of both levels.
        transport: a registered transport; ``options`` are its arguments.

    Raises ConfigError for an unknown transport or an option that it does not have.
    """

    def __init__(self, observables: Observables, transport: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.observables = observables
        dim = len(observables.particle)
        known_options(f"transport {transport!r}", TRANSPORTS[transport], options)
        more = {FURTHER: len(observables.further)} if observables.further else {}
        self.true = EventFrame(dim)
        self.seen = EventFrame(len(observables.detector))
        self.match = QuantileMatch(dim)
        try:
            self.transport: Any = TRANSPORTS[transport](dim, more, **options)
        except (TypeError, ValueError, RuntimeError, MemoryError) as error:
            raise ConfigError(f"options of transport {transport!r}: {error}") from error

    def fit(self, response: Response) -> None:
        """Learn both frames: from the pairs, and from all that passes at detector level."""
        names = self.observables
        self.true.fit(response.true[response.passes_particle], names.particle)
        self.seen.fit(response.seen[response.passes_detector], names.detector)

    def phases(self, response: Response, seed: int) -> Iterator[Phase]:
        """What to learn, from the pairs of the response. Weights draw the pairs.

        Raises DataError for negative weights.
        """
        chosen = _pairs(response, seed)
        rng = stream(seed, "unfolding", "frames")
        source, more = self._source(chosen.seen, rng.random((len(chosen), self.seen.columns + 1)))
        target = self.true(chosen.true, rng.random((len(chosen), self.true.columns + 1)))
        yield from self.transport.phases(Pairs(source, target, more, coupled=True), seed)

    def finish(self, response: Response, seed: int) -> None:
        """Correct the marginals (`QuantileMatch`): draws for the pairs of the response against their truth."""
        chosen = _pairs(response, seed)
        made = torch.cat(
            [
                z
                for draw in range(_DRAWS)
                for _, z in self._moved(chosen.seen, chosen.event_ids, f"finish/{draw}", seed)
            ]
        )
        rng = stream(seed, "unfolding", "finish")
        target = self.true(chosen.true, rng.random((len(chosen), self.true.columns + 1)))
        self.match.fit(made.numpy(), target.numpy())

    def sample(
        self, seen: NDArray[np.float64], event_ids: NDArray[np.uint64], *, seed: int, draw: int = 0
    ) -> NDArray[np.float64]:
        """One possible truth (N, columns) for what was seen (N, columns).

        Draw number ``draw`` of each event: a function of the seed, that number and the event's id.
        """
        out = np.empty((len(seen), self.true.columns))
        for rows, z in self._moved(seen, event_ids, str(draw), seed):
            out[rows] = self.true.inverse(self.match(z))
        return out

    def _moved(
        self, seen: NDArray[np.float64], event_ids: NDArray[np.uint64], purpose: str, seed: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """What the transport makes of some rows after the others, in the frame of the particle level."""
        for start in range(0, len(seen), _ROWS):
            rows = slice(start, start + _ROWS)
            ids = event_ids[rows]
            uniform = event_uniform(seed, f"unfold/frame/{purpose}", ids, self.seen.columns + 1)
            noise = event_normal(seed, f"unfold/{purpose}", ids, self.transport.noise_dim)
            source, more = self._source(seen[rows], uniform)
            with torch.inference_mode():
                yield (
                    rows,
                    self.transport.apply(source, more, torch.from_numpy(noise.astype(np.float32))),
                )

    def _source(
        self, seen: NDArray[np.float64], uniform: NDArray[np.float64]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.seen(seen, uniform)
        own = len(self.observables.particle)
        return z[:, :own], {FURTHER: z[:, own:]} if self.observables.further else {}


def _pairs(response: Response, seed: int) -> Response:
    """The pairs, as many as there are, drawn in proportion to their weights if those differ."""
    chosen = response[response.pairs]
    weights = chosen.weights
    if weights.min() < 0:
        raise DataError(
            f"{int((weights < 0).sum())} pairs of the response have negative weights, with which "
            "events cannot be drawn; use a response with weights >= 0"
        )
    if np.ptp(weights) > 0:
        return chosen[_drawn(weights, stream(seed, "unfolding", "weights"))]
    return chosen


def _drawn(weights: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """As many rows as there are weights, drawn in proportion to them (systematic resampling)."""
    n = len(weights)
    places = (np.arange(n) + rng.random()) / n * weights.sum()
    drawn = np.searchsorted(np.cumsum(weights), places).clip(max=n - 1)
    return rng.permutation(drawn)
