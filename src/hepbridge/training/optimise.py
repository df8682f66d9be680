"""One optimizer step: loss, gradients, clipping, update, average."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from hepbridge.core.errors import ConfigError, HepbridgeError
from hepbridge.core.protocols import Phase
from hepbridge.training.devices import rows, split
from hepbridge.training.ema import WeightAverage
from hepbridge.training.seeds import seed_torch
from hepbridge.training.settings import TrainingSettings
from hepbridge.training.team import Team

__all__ = ["Optimisation"]

_log = logging.getLogger(__name__)


class Optimisation:
    """Optimizer, gradient scaler, weight average and best weights of one phase."""

    def __init__(self, phase: Phase, settings: TrainingSettings, team: Team) -> None:
        self.phase = phase
        self.settings = settings
        self.team = team
        self.parameters: list[Tensor] = [p for p in phase.module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ConfigError(f"phase {phase.name!r} trains a module without trainable parameters")
        kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = kind(
            self.parameters,
            lr=phase.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=team.device.type in ("cpu", "cuda"),
        )
        half = settings.precision == "fp16"
        if half and team.device.type != "cuda":
            raise ConfigError(
                f"precision fp16 needs a CUDA GPU, not {team.device.type}: choose bf16 or float32"
            )
        self.scaler = torch.amp.GradScaler("cuda", enabled=half)
        decay = settings.ema_decay
        self.average = None if decay is None else WeightAverage(self.parameters, decay)
        self.best: list[Tensor] | None = None
        self.pieces = 1  # into how many pieces a batch is cut to fit into the memory

    def learning_rate(self, step: int) -> float:
        factor = self.settings.learning_rate_factor(step, self.phase.steps)
        return self.phase.learning_rate * factor

    def step(self, step: int, batches: Iterable[tuple[Any, int]]) -> Tensor:
        """Update the weights with the batches of this process, each with a seed for torch.

        Returns the sum of their losses (detached, on the device).
        """
        loss = self._sum(batches)
        self.team.average_gradients(self.parameters)
        if self.settings.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update()
        return loss

    def _sum(self, batches: Iterable[tuple[Any, int]]) -> Tensor:
        """Gradients and loss, added up over the batches."""
        loss: Tensor | None = None
        for batch, seed in batches:
            before = [p.grad for p in self.parameters]
            if loss is None:
                loss = self._gradients(batch, seed)
                continue
            loss = loss + self._gradients(batch, seed)
            for p, gradient in zip(self.parameters, before, strict=True):
                if gradient is not None:
                    p.grad = gradient if p.grad is None else gradient + p.grad
        if loss is None:  # more processes than seats
            self._forget_gradients()
            return torch.zeros((), device=self.team.device)
        return loss

    def _gradients(self, batch: Any, seed: int) -> Tensor:
        """Gradients of the mean loss; if the memory does not suffice, of ever smaller pieces."""
        while True:
            try:
                return self._accumulate(batch, seed)
            except torch.cuda.OutOfMemoryError as error:
                if self.pieces >= rows(batch):
                    raise HepbridgeError(
                        f"phase {self.phase.name!r} does not fit into the memory of "
                        f"{self.team.device} even with one row at a time; choose a smaller "
                        "network or another device"
                    ) from error
            # outside the except block, where the failed attempt's tensors are free
            self._forget_gradients()
            if self.team.device.type == "cuda":
                torch.cuda.empty_cache()
            self.pieces *= 2
            _log.warning(
                "out of memory in phase %r: every batch is now processed in %d pieces and their "
                "gradients are averaged (a loss that compares rows with each other changes)",
                self.phase.name,
                self.pieces,
            )

    def _accumulate(self, batch: Any, seed: int) -> Tensor:
        seed_torch(seed, self.team.device)
        self._forget_gradients()
        if self.pieces == 1:
            with self._autocast():
                loss = self.phase.loss(self.phase.module, batch)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        total = torch.zeros((), device=self.team.device)
        for piece, share in split(batch, self.pieces):
            with self._autocast():
                loss = self.phase.loss(self.phase.module, piece) * share
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _forget_gradients(self) -> None:
        for p in self.parameters:
            p.grad = None

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.settings.precision == "float32":
            return nullcontext()
        dtype = torch.bfloat16 if self.settings.precision == "bf16" else torch.float16
        return torch.autocast(self.team.device.type, dtype=dtype)

    def evaluated(self) -> AbstractContextManager[None]:
        """Inside the block the module has the weights it would end with now."""
        return nullcontext() if self.average is None else self.average.applied()

    def keep_best(self) -> None:
        """Remember the current (averaged) weights."""
        weights = self.parameters if self.average is None else self.average.average
        self.best = [w.detach().clone() for w in weights]

    @torch.no_grad()
    def finish(self) -> None:
        """Give the module its final weights: the best ones if kept, else the average."""
        if self.best is not None:
            torch._foreach_copy_(self.parameters, self.best)
        elif self.average is not None:
            self.average.store()
        self._forget_gradients()

    @torch.no_grad()
    def finite(self) -> bool:
        """Whether all weights are numbers."""
        norms = torch.stack([n.float() for n in torch._foreach_norm(self.parameters)])
        return bool(norms.isfinite().all())

    def tensors(self) -> dict[str, Tensor]:
        """Everything that `load` needs, apart from the module's weights and `numbers`."""
        found = {}
        for index, slots in self.optimizer.state_dict()["state"].items():
            found.update({f"optimizer/{index}/{name}": value for name, value in slots.items()})
        if self.average is not None:
            found.update({f"average/{i}": w for i, w in enumerate(self.average.average)})
        found.update({f"best/{i}": w for i, w in enumerate(self.best or [])})
        return found

    def numbers(self) -> dict[str, Any]:
        return {
            "updates": 0 if self.average is None else self.average.updates,
            "pieces": self.pieces,
            "scaler": self.scaler.state_dict(),
        }

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Continue where `tensors` and `numbers` were taken."""
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                slots.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        if self.average is not None:
            self.average.updates = numbers["updates"]
            for i, w in enumerate(self.average.average):
                w.copy_(tensors[f"average/{i}"])
        if "best/0" in tensors:
            self.best = [
                tensors[f"best/{i}"].to(self.team.device) for i in range(len(self.parameters))
            ]
        self.pieces = numbers["pieces"]
        self.scaler.load_state_dict(numbers["scaler"])
