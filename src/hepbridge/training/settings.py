"""How to train: everything that is not the business of a method."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["TrainingSettings"]

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]


class TrainingSettings(BaseModel):
    """Settings of the training loop. Batch size, steps and learning rate belong to the method.

    Counts are in optimizer steps; ``warmup`` is a fraction of the steps of each phase;
    ``patience`` counts validations without improvement (None: never stop early, keep the last
    weights); ``ema_decay`` None: no averaging; ``threads`` None: as many as torch chooses.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: Literal["adamw", "adam"] = "adamw"
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    clip_norm: Annotated[float, Field(gt=0.0)] | None = 1.0
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: Fraction = 0.02
    ema_decay: Fraction | None = 0.999
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    validate_every: Count = 500
    patience: Count | None = None
    log_every: Count = 50
    checkpoint_every: Count = 1000
    tensorboard: bool = False
    threads: Count | None = None

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """The learning rate of a phase's step (counted from 0) as a fraction of its peak.

        Linear warm-up over ``w = ceil(warmup * steps)`` steps, then 1 or
        ``(1 + cos(pi (step - w) / (steps - w))) / 2`` (Loshchilov and Hutter, 2017).
        """
        rise = math.ceil(self.warmup * steps)
        if step < rise:
            return (step + 1) / (rise + 1)
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / (steps - rise)))

    def decisive(self) -> dict[str, object]:
        """The settings that change the trained weights (not where and how often it is logged)."""
        return self.model_dump(
            mode="json", exclude={"log_every", "checkpoint_every", "tensorboard", "threads"}
        )
