"""The one training loop: it runs `hepbridge.core.protocols.Phase`s and knows no method."""

from __future__ import annotations

from hepbridge.training.devices import choose_device
from hepbridge.training.history import History
from hepbridge.training.loop import fit
from hepbridge.training.settings import TrainingSettings
from hepbridge.training.team import leads

__all__ = ["History", "TrainingSettings", "choose_device", "fit", "leads"]
