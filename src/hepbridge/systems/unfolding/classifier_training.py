"""How the classifiers of weights are trained."""

from __future__ import annotations

from hepbridge.training.settings import Count, Fraction, TrainingSettings

__all__ = ["ClassifierTraining"]


class ClassifierTraining(TrainingSettings):
    """Settings of the loop with other defaults: a classifier that goes on learns the fluctuations of its
    sample, so it is watched closely and stopped early, with an average over its last fifty steps."""

    weight_decay: float = 1e-3
    ema_decay: Fraction | None = 0.98
    validate_every: Count = 100
    patience: Count | None = 5
