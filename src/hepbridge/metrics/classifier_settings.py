"""How much work a classifier test is."""

from __future__ import annotations

from dataclasses import dataclass, field

from hepbridge.core.errors import ConfigError

__all__ = ["CHALLENGE", "QUICK", "ClassifierSettings", "MLPSettings"]


@dataclass(frozen=True)
class MLPSettings:
    """The perceptron: ``layers`` hidden layers of ``width``, trained for ``epochs``.

    ``batch`` showers of both classes per update of Adam with ``learning_rate``; ``validation``:
    the part of the training showers on which the epoch is chosen. `CHALLENGE` has the
    CaloChallenge's values. The defaults are a narrower network that learns faster: 4,000 showers
    per class cannot feed 8 million weights, and its cost is a thousandth.
    """

    width: int = 128
    layers: int = 3
    epochs: int = 20
    batch: int = 256
    learning_rate: float = 5e-4
    validation: float = 0.125

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.epochs, self.batch) < 1:
            raise ConfigError(f"an MLP needs width, layers, epochs and batch ≥ 1; got {self}")
        if not self.learning_rate > 0:
            raise ConfigError(f"the learning rate of an MLP is positive, not {self.learning_rate}")
        if not 0 < self.validation <= 0.5:
            raise ConfigError(
                "the part of the training showers on which an MLP's epoch is chosen lies between "
                f"0 and 0.5, not at {self.validation}"
            )


CHALLENGE = MLPSettings(
    width=2048, layers=3, epochs=50, batch=1000, learning_rate=2e-4, validation=0.25
)


@dataclass(frozen=True)
class ClassifierSettings:
    """How much work a classifier test is.

    ``seeds`` cross-validations in ``folds`` folds; ``curve``: fractions of the training set for
    the learning curve (one seed each, the whole set is always there); ``trees`` boosting rounds;
    ``mlp``: see `MLPSettings`. `QUICK` is for a first look: seconds instead of minutes.
    """

    seeds: int = 5
    folds: int = 5
    curve: tuple[float, ...] = (0.25, 0.5)
    trees: int = 100
    mlp: MLPSettings = field(default_factory=MLPSettings)

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.folds < 2 or self.trees < 1:
            raise ConfigError(
                f"a classifier test needs seeds ≥ 1, folds ≥ 2, trees ≥ 1; got {self}"
            )
        if any(not 0 < f < 1 for f in self.curve):
            raise ConfigError(
                f"learning-curve fractions must lie between 0 and 1, got {self.curve}"
            )


QUICK = ClassifierSettings(seeds=1, folds=3, curve=(), trees=50, mlp=MLPSettings(epochs=8))
