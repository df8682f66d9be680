"""What a training must remember to continue as if nothing had happened, and where it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Phase
from hepbridge.training.checkpoint import read_checkpoint, write_checkpoint
from hepbridge.training.history import History

__all__ = ["State", "Store"]

_ADVICE = "restore the configuration, or delete the file to start from the beginning"


@dataclass
class State:
    """The part of a checkpoint that is not tensors."""

    finished: int = 0  # phases
    entered: list[list[Any]] = field(default_factory=list)  # [name, steps] of phases
    step: int = 0  # steps finished in the running phase
    window: list[float] = field(default_factory=list)  # losses since the last record
    best: float | None = None  # best held-out number of the running phase, the step of it,
    best_step: int = 0
    stale: int = 0  # and the number of validations since
    history: History = field(default_factory=History)

    def enter(self, phase: Phase) -> None:
        """Begin a phase. Raises ConfigError if its name was used before."""
        if any(phase.name == name for name, _ in self.entered):
            raise ConfigError(
                f"two phases are called {phase.name!r}: their random numbers are keyed by the "
                "name, which must therefore be unique"
            )
        self.entered.append([phase.name, phase.steps])
        self.step, self.window = 0, []
        self.best, self.best_step, self.stale = None, 0, 0


class Store:
    """The checkpoint file of a training, its identity, and the modules whose weights it holds.

    Modules are numbered in the order in which the phases first name them.
    """

    def __init__(self, path: Path | None, identity: dict[str, Any]) -> None:
        self.path = path
        self.identity = identity
        self.modules: list[torch.nn.Module] = []
        self.tensors: dict[str, Tensor] = {}  # of the checkpoint that was read
        self.numbers: dict[str, Any] = {}

    def read(self) -> State:
        """The saved state. Raises ConfigError if the file belongs to another training.

        The number of processes may change, but the identity keeps the first one.
        """
        assert self.path is not None
        self.tensors, content = read_checkpoint(self.path)
        self.identity["processes"] = content["identity"]["processes"]
        for name, now in _flat(self.identity).items():
            then = _flat(content["identity"]).get(name)
            if then != now:
                raise ConfigError(
                    f"{self.path} belongs to another training: its {name} is {then!r}, now it is "
                    f"{now!r}; {_ADVICE}"
                )
        self.numbers = content["numbers"]
        return State(**{**content["state"], "history": History(**content["state"]["history"])})

    def check(self, state: State, index: int, phase: Phase) -> None:
        """Raise ConfigError if the saved training had another phase at this place."""
        name, steps = state.entered[index]
        if (name, steps) != (phase.name, phase.steps):
            raise ConfigError(
                f"{self.path} belongs to another training: its phase {index} is {name!r} of "
                f"{steps} steps, now it is {phase.name!r} of {phase.steps} steps; {_ADVICE}"
            )

    def add(self, module: torch.nn.Module) -> None:
        if not any(module is known for known in self.modules):
            self.modules.append(module)

    def restore(self) -> None:
        """Give the modules known so far the weights that were read."""
        for index, module in enumerate(self.modules):
            prefix = f"module/{index}/"
            weights = {
                key.removeprefix(prefix): value
                for key, value in self.tensors.items()
                if key.startswith(prefix)
            }
            try:
                module.load_state_dict(weights)
            except RuntimeError as error:
                raise ConfigError(
                    f"{self.path} belongs to another network ({error}); {_ADVICE}"
                ) from error

    def write(
        self, state: State, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
    ) -> None:
        """Replace the file by the present state; tensors and numbers are the optimizer's."""
        if self.path is None:
            return
        everything = dict(tensors)
        for index, module in enumerate(self.modules):
            weights = module.state_dict()
            everything.update({f"module/{index}/{key}": value for key, value in weights.items()})
        content = {"identity": self.identity, "state": asdict(state), "numbers": dict(numbers)}
        write_checkpoint(self.path, everything, content)


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """One level of names: ``settings.betas`` for the entries of a nested dictionary."""
    flat = {}
    for name, value in identity.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": entry for key, entry in value.items()})
        else:
            flat[name] = value
    return flat
