"""A spectrum at particle level, as weights of simulated events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hepbridge.core.protocols import Phase
from hepbridge.transforms.event_frame import EventFrame
from hepbridge.weighters.contrast import Contrast
from hepbridge.weighters.density_ratio import DensityRatio

__all__ = ["Spectrum"]


class Spectrum(nn.Module):
    r"""The ratio :math:`\nu(x) = p(x) / p_0(x)` of a spectrum to that of the simulation.

    A function of the particle level alone: it belongs to any events of the same generator, not only
    to those that it was learned from. ``total`` is the number of unfolded events for each simulated
    one: with :math:`\nu` times the total, the weights of simulated events add up to the data.

    Args:
        frame: of the particle level; no part of the module's state.
        masked: its columns with undefined values.
        options: of the `DensityRatio`.
    """

    def __init__(self, frame: EventFrame, masked: int, options: dict[str, Any]) -> None:
        super().__init__()
        self._frame = [frame]  # in a list, so that the state holds it once
        self.ratio = DensityRatio(frame.columns + masked, **options)
        self.total: Tensor
        self.register_buffer("total", torch.ones((), dtype=torch.float64))

    def phases(self, contrast: Contrast, seed: int) -> Iterator[Phase]:
        """What to learn from `EventFrame.features` of the particle level under two weights."""
        yield from self.ratio.phases(contrast, seed)

    def weights(self, true: NDArray[np.float64]) -> NDArray[np.float64]:
        """ν (N,) of events (N, columns) at particle level."""
        with torch.no_grad():
            found = self.ratio.weights(self._frame[0].features(true))
        return found.double().cpu().numpy()
