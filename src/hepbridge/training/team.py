"""Several processes that train one model together (``torchrun``), or one process alone.

Gradients are averaged with one explicit all-reduce after the backward pass rather than by
`DistributedDataParallel`, because a phase's loss may call any method of its module, not only
``forward``. Every step has as many batches as the training had processes when it began, its *seats*
(the seat is part of the key of the random numbers), so the effective batch is the method's batch
size times the seats. A training that goes on with other processes deals the seats out anew: it
draws the same batches, and its sums are the same up to rounding.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.training.devices import choose_device

__all__ = ["Team", "leads"]

_log = logging.getLogger(__name__)


def leads() -> bool:
    """Is this the process that writes files: the only one, or rank 0 under torchrun?"""
    return int(os.environ.get("RANK", "0")) == 0


class Team:
    """The processes of this training, this one's ``rank`` among ``size``, and its ``device``.

    ``seats`` is the number of batches of a step: that of the processes, unless `sit` says another.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self.seats = size

    @classmethod
    def gather(cls, device: str | torch.device) -> Team:
        """The team that the environment describes (RANK, WORLD_SIZE, LOCAL_RANK of torchrun).

        gloo on CPU, nccl on GPUs, one GPU per process. The process group lives as long as the
        process: torchrun's meeting point does not allow a second one.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        chosen = choose_device(device)
        if size == 1:
            return cls(0, 1, chosen)
        if chosen.type == "mps":
            raise ConfigError("several processes cannot share an MPS device; choose the device cpu")
        if chosen.type == "cuda":
            chosen = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
            torch.cuda.set_device(chosen)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
            atexit.register(dist.destroy_process_group)
        return cls(dist.get_rank(), dist.get_world_size(), chosen)

    def sit(self, seats: int) -> None:
        """Take over a training that began with so many processes."""
        if seats != self.size:
            _log.warning(
                "the training began with %d process(es) and goes on with %d; its batches are the "
                "same, dealt out anew%s",
                seats,
                self.size,
                f" ({self.size - seats} have nothing to do)" if seats < self.size else "",
            )
        self.seats = seats

    @property
    def mine(self) -> range:
        """The seats of this process."""
        return range(self.rank, self.seats, self.size)

    @property
    def leads(self) -> bool:
        """True for the one process that validates, logs and writes."""
        return self.rank == 0

    @torch.no_grad()
    def share(self, module: torch.nn.Module) -> None:
        """Give every process the leader's weights and buffers."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)

    @torch.no_grad()
    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace every gradient, a sum over the seats of this process, by the mean over all seats.

        One that is absent in some processes counts as zero there; one that is absent in all stays so,
        as it does in one process: the optimizer leaves its parameter alone.
        """
        if self.seats == self.size == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        present = gradients[0].new_tensor([p.grad is not None for p in parameters])
        flat = torch.cat([*(g.reshape(-1) for g in gradients), present])
        if self.size > 1:
            dist.all_reduce(flat)
        *means, present = torch.split(flat, [*(g.numel() for g in gradients), len(gradients)])
        for p, mean, seen in zip(parameters, means, present.tolist(), strict=True):
            p.grad = (mean / self.seats).view_as(p) if seen else None

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the seats of a tensor of sums over the seats of each process."""
        if self.size > 1:
            dist.all_reduce(values)
        return values / self.seats

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        if self.size == 1:
            return flag
        return bool(self.mean(torch.tensor([float(flag)], device=self.device)).item() > 0)

    def told(self, value: float) -> float:
        """The leader's value, in every process."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(told, src=0)
        return float(told.item())
