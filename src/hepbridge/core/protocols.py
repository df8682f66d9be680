"""The capabilities that a method may have, and what it hands to the training loop.

What to learn (a `Phase`) and how to learn (`hepbridge.training`) are separate: methods yield
phases and never import the training loop; the loop knows nothing of methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["Claims", "Conditions", "Density", "Pairs", "Phase", "Transport", "Weighter"]

Conditions = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class Claims:
    """What a transport promises; the conformance suite tests every promise against a closed form."""

    marginals: bool = True  # each one-dimensional target marginal is matched
    joint: bool = False  # the joint target distribution is matched
    coupling: bool = False  # rows stay recognisable: output correlates with input
    posterior: bool = False  # of pairs that belong together, output rows follow p(target | source)
    optimal: bool = False  # the coupling is the quadratic optimal transport one
    entropic: bool = False  # the coupling is a Schrödinger bridge's (needs ``epsilon``)
    invertible: bool = False  # has ``inverse``
    deterministic: bool = False  # output is a function of input and conditions alone


@dataclass
class Pairs:
    """Training samples in model space: row i of source and target share the conditions of row i.

    ``source``, ``target``: (N, d) float32; ``conditions``: name -> (N, k) float32, standardised;
    ``coupled``: True if row i of source *belongs to* row i of target (unfolding), False if the
    rows share only their conditions (refinement). ``order`` names the condition along which
    neighbours are exchangeable (the incident energy). ``symmetries`` (g, d) are index
    permutations under which source and target distributions are both invariant, at every
    condition; those in ``moves``, name -> (g, k, k) matrices, are vectors and move along with them.
    ``from_noise``: the source is standard normal noise, of which ``source`` holds one draw; whoever
    can draws it anew for each batch.
    """

    source: torch.Tensor
    target: torch.Tensor
    conditions: dict[str, torch.Tensor] = field(default_factory=dict)
    coupled: bool = False
    order: str | None = None
    symmetries: torch.Tensor | None = None
    moves: dict[str, torch.Tensor] = field(default_factory=dict)
    from_noise: bool = False

    def __len__(self) -> int:
        return len(self.source)

    @property
    def dim(self) -> int:
        return int(self.source.shape[1])

    def condition_dims(self) -> dict[str, int]:
        return {name: int(value.shape[1]) for name, value in self.conditions.items()}

    def rows(self, index: Any) -> Pairs:
        """The given rows (a slice, mask or index tensor)."""
        return Pairs(
            self.source[index],
            self.target[index],
            {name: value[index] for name, value in self.conditions.items()},
            self.coupled,
            self.order,
            self.symmetries,
            self.moves,
            self.from_noise,
        )


@dataclass
class Phase:
    """One stretch of training: which module, on which batches, with which loss, for how long.

    ``batch(step, rng)`` must be a pure function of its arguments: the loop hands a generator keyed
    by (seed, phase, step, seat), which is why an interrupted run resumes to the same weights.
    ``prepare(rng)`` runs when the phase is entered (also on resume, with an identical generator):
    it may build caches from *other* modules, never from the one this phase trains.
    ``validate(module)`` returns a held-out number (lower is better) used for early stopping.
    """

    name: str
    module: torch.nn.Module
    batch: Callable[[int, np.random.Generator], Any]
    loss: Callable[[torch.nn.Module, Any], torch.Tensor]
    steps: int
    learning_rate: float = 1e-3
    prepare: Callable[[np.random.Generator], None] | None = None
    validate: Callable[[torch.nn.Module], float] | None = None


@runtime_checkable
class Transport(Protocol):
    """Moves events: a torch module with a configuration that rebuilds it.

    ``apply(x, conditions, noise)`` maps (N, d) to (N, d); ``noise`` is (N, noise_dim) standard
    normal numbers; ``nfe`` network evaluations are spent per event.
    """

    claims: Claims
    noise_dim: int

    @property
    def nfe(self) -> int: ...

    @property
    def planned_steps(self) -> int:
        """Optimiser steps of all phases together, which ``training.steps`` of a recipe replaces."""
        ...

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]: ...

    def apply(
        self, x: torch.Tensor, conditions: Conditions, noise: torch.Tensor
    ) -> torch.Tensor: ...


@runtime_checkable
class Density(Protocol):
    """Knows its own density."""

    def sample(self, conditions: Conditions, noise: torch.Tensor) -> torch.Tensor: ...

    def log_prob(self, x: torch.Tensor, conditions: Conditions) -> torch.Tensor: ...


@runtime_checkable
class Weighter(Protocol):
    """Answers with weights (N,) instead of moved events."""

    def weights(self, x: torch.Tensor, conditions: Conditions) -> torch.Tensor: ...
