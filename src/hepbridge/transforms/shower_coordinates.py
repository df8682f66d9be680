"""Showers as model coordinates: logarithms of cell and summed energies in units of the incident one."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["from_coordinates", "log_energy", "to_coordinates"]


def to_coordinates(cells: Tensor, incident_energy: Tensor) -> Tensor:
    r"""Coordinates (N, n_cells + 1) of showers.

    .. math:: y_i = \ln(E_i / E_\mathrm{inc}), \qquad y_{n} = \ln\bigl(\textstyle\sum_i E_i / E_\mathrm{inc}\bigr)

    with :math:`-\infty` for an empty cell. The sum is redundant on purpose: it is the coordinate
    that is known best and must be right most.

    Args:
        cells: (N, n_cells), not negative.
        incident_energy: (N,), in the unit of the cells.
    """
    ratio = cells / incident_energy[:, None]
    return torch.log(torch.cat([ratio, ratio.sum(dim=1, keepdim=True)], dim=1))


def from_coordinates(y: Tensor, incident_energy: Tensor) -> Tensor:
    """Cells (N, n_cells) of coordinates (N, n_cells + 1), scaled so that they add up to the sum."""
    values = torch.exp(y)
    shape, total = values[:, :-1], values[:, -1] * incident_energy
    return shape * (total / shape.sum(dim=1).clamp_min(torch.finfo(y.dtype).tiny))[:, None]


def log_energy(incident_energy: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The standardised logarithm (N, 1) of the incident energy, the condition that networks see."""
    return ((torch.log(incident_energy) - mean) / std)[:, None].to(torch.float32)
