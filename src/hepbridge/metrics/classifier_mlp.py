"""A multilayer perceptron as the classifier of a classifier test, after the CaloChallenge's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.rng import stream
from hepbridge.metrics.classifier_inputs import Features, low_level_logit
from hepbridge.metrics.classifier_settings import ClassifierSettings, MLPSettings
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.kinds import high_level_of

if TYPE_CHECKING:
    import torch

__all__ = ["MLP"]

_CLIP = 10.0  # standard deviations; beyond, a value says no more than that it is extreme
_TAIL = 1e-3  # of the training showers, on either side, that do not count for mean and scale
_MIN_BATCHES = 16  # per epoch: on few showers, large batches would be too few updates


class MLP:
    r"""The network of the CaloChallenge: hidden layers with LeakyReLU and one logit.

    .. math:: f(x) = W_L\,\sigma(\dots\sigma(W_1 z + b_1)\dots) + b_L, \qquad
              z = \mathrm{clip}\big((x - \mu)/s, \pm 10\big)

    trained by Adam on the (weighted) binary cross-entropy; μ and s are mean and standard deviation
    of the training showers, their outermost 0.1 % cut back to the rest. A part of the training
    showers, whole groups of equal incident energy, is held out, and the network of the epoch with
    the highest AUC on it is kept: the showers under test choose nothing.

    As the challenge (arXiv:2410.21611, ``evaluate.py``): three hidden layers, LeakyReLU, Adam, no
    dropout, the epoch chosen on a split of its own. Otherwise: width, epochs, batch and learning
    rate (`MLPSettings`; `CHALLENGE` restores them); inputs standardised, and cells also as logits
    (`low_level_logit`); the epoch chosen by AUC, which moves in finer steps than the accuracy on a
    small split; float32 instead of float64; no isotonic calibration, which keeps the order of the
    showers and so their AUC.

    The same seed gives the same network: one thread, and no global random numbers.
    """

    inputs: ClassVar[Mapping[str, Callable[[Any], Features]]] = {
        "low": low_level_logit,
        "high": high_level_of,
    }

    def __init__(self, settings: ClassifierSettings, seed: int) -> None:
        self.settings: MLPSettings = settings.mlp
        self.seed = seed

    def fit(
        self,
        x: Features,
        label: NDArray[np.bool_],
        weights: Floats | None,
        groups: NDArray[np.int64],
    ) -> None:
        """Train on rows (N, features); rows of one group are on one side of the inner split."""
        import torch
        from sklearn.metrics import roc_auc_score
        from torch.nn.functional import binary_cross_entropy_with_logits

        rng = stream(self.seed, "classifier mlp")
        inner, held = self._split(groups, rng)
        bulk = _bulk(x[inner])
        self.mean, spread = bulk.mean(axis=0), bulk.std(axis=0)
        self.spread = np.where(spread > 0, spread, 1.0)
        w = np.ones(len(x)) if weights is None else weights
        z, y = self._standardised(x), torch.from_numpy(label.astype(np.float32))
        weight = torch.from_numpy(w.astype(np.float32))
        batches = max(_MIN_BATCHES, len(inner) // self.settings.batch)
        with _one_thread():
            self.network = self._network(x.shape[1])
            adam = torch.optim.Adam(
                self.network.parameters(), lr=self.settings.learning_rate, fused=True
            )
            best, kept = -1.0, self.network.state_dict()
            for _ in range(self.settings.epochs):
                for rows in np.array_split(rng.permutation(inner), min(batches, len(inner))):
                    k = torch.from_numpy(rows)
                    logit = self.network(z[k])[:, 0]
                    adam.zero_grad()
                    loss = binary_cross_entropy_with_logits(logit, y[k], weight[k])
                    torch.autograd.backward([loss])
                    adam.step()
                with torch.no_grad():
                    score = self.network(z[torch.from_numpy(held)])[:, 0].numpy()
                auc = roc_auc_score(label[held], score, sample_weight=w[held])
                if auc > best:
                    best = auc
                    kept = {name: v.clone() for name, v in self.network.state_dict().items()}
            self.network.load_state_dict(kept)

    def score(self, x: Features) -> Floats:
        """The logit of the candidate's class, (N,)."""
        import torch

        with _one_thread(), torch.no_grad():
            logit: Floats = self.network(self._standardised(x))[:, 0].double().numpy()
        return logit

    def _split(
        self, groups: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to train on, and rows on which the epoch is chosen: no group is in both."""
        names = rng.permutation(np.unique(groups))
        if len(names) < 2:
            raise DataError(
                f"an MLP cannot choose its epoch with {len(names)} showers per class to train on; "
                "give more showers, or larger fractions for the learning curve"
            )
        held = np.isin(groups, names[: max(1, round(self.settings.validation * len(names)))])
        return np.flatnonzero(~held), np.flatnonzero(held)

    def _standardised(self, x: Features) -> torch.Tensor:
        import torch

        z = np.clip((x - self.mean) / self.spread, -_CLIP, _CLIP)
        return torch.from_numpy(z.astype(np.float32))

    def _network(self, columns: int) -> torch.nn.Module:
        import torch
        from torch import nn

        widths = [columns, *[self.settings.width] * self.settings.layers]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            layers: list[nn.Module] = []
            for a, b in pairwise(widths):
                layers += [nn.Linear(a, b), nn.LeakyReLU()]
            return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


def _bulk(x: Features) -> Floats:
    """The columns with their largest and smallest 0.1 % cut back: one absurd cell sets no scale."""
    low = np.quantile(x, _TAIL, axis=0, method="higher")
    high = np.quantile(x, 1 - _TAIL, axis=0, method="lower")
    bulk: Floats = np.clip(x.astype(np.float64), low, high)
    return bulk


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread: these matrices are small, and sums then always have the same order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
