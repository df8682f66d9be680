"""The classifier test of the CaloChallenge, with its network, splits and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.rng import stream
from hepbridge.metrics.classifier import auc_standard_error
from hepbridge.metrics.classifier_settings import CHALLENGE, MLPSettings
from hepbridge.metrics.distance import Floats

if TYPE_CHECKING:
    import torch

__all__ = ["challenge_classifier", "jensen_shannon"]

Inputs = NDArray[np.floating[Any]]
_CLIP = 1e-6  # of calibrated probabilities, so that their logarithm exists


def challenge_classifier(
    ref: Inputs,
    cand: Inputs,
    split: Sequence[float] = (0.6, 0.2, 0.2),
    *,
    runs: int = 10,
    settings: MLPSettings = CHALLENGE,
    seed: int = 0,
    device: str | None = None,
) -> dict[str, Any]:
    """Train the challenge's network ``runs`` times to tell rows of ``ref`` and ``cand`` apart.

    As ``evaluate.py`` of the challenge: hidden layers (3 of 2048) with LeakyReLU, one logit, no
    dropout, double precision, inputs as they are; Adam, 50 epochs of batches of 1000. Each class
    is shuffled and cut as ``split`` says: part 1 trains; the epoch of the best accuracy on part 2
    is kept; an isotonic regression on part 2 calibrates it; AUC and JSD are those of the calibrated
    probabilities of part 3. (The calibration makes ties, so it changes an AUC slightly: ``auc_raw``
    is that of the network.) The challenge sets no seeds; here run k has the seed (``seed``, k).

    Returns ``auc``, ``jsd`` (mean over runs), ``auc_std``, ``jsd_std`` (their scatter, as in the
    published tables), ``auc_raw``, ``se`` (with the size of the test sample, which the scatter does
    not hold as all runs share their showers), ``runs`` and ``n`` per class. ``device`` None takes a
    GPU if there is one; on a CPU, 200,000 showers take hours. A larger sample loses its tail.

    Raises DataError for fewer than 10 rows of a class in any part.
    """
    n = min(len(ref), len(cand))
    sizes = [int(n * part) for part in split]
    if min(sizes) < 10:
        raise DataError(
            f"{n} showers per class cannot be cut into parts of {', '.join(map(str, sizes))}; the "
            "challenge's classifier needs at least 10 in each"
        )
    import torch

    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    found = [_Run(ref[:n], cand[:n], sizes, settings, (seed, k), where)() for k in range(runs)]
    auc, jsd, raw = np.array(found).T
    test = auc_standard_error(float(auc.mean()), n - sizes[0] - sizes[1], n - sizes[0] - sizes[1])
    spread = [float(v.std(ddof=1)) if runs > 1 else 0.0 for v in (auc, jsd)]
    return {
        "auc": float(auc.mean()),
        "auc_std": spread[0],
        "jsd": float(jsd.mean()),
        "jsd_std": spread[1],
        "auc_raw": float(raw.mean()),
        "se": float(np.hypot(test, spread[0] / np.sqrt(runs))),
        "runs": runs,
        "n": n,
    }


def jensen_shannon(label: NDArray[np.bool_], probability: Floats) -> float:
    r"""Jensen–Shannon divergence in bits, 0 (same) to 1, that a calibrated classifier implies.

    .. math:: \mathrm{JSD} = 1 - \mathrm{BCE} / \ln 2

    with the binary cross-entropy of ``probability`` (N,) that ``label`` is True. Below 0 for
    probabilities that are worse than 1/2; a shower that the calibration is sure of and that is of the
    other class costs 20 bits.
    """
    p = np.where(label, probability, 1.0 - probability)
    return float(1.0 + np.log2(np.clip(p, _CLIP, 1.0)).mean())


class _Run:
    """One training: a call gives (AUC, JSD, AUC before calibration)."""

    def __init__(
        self,
        ref: Inputs,
        cand: Inputs,
        sizes: Sequence[int],
        settings: MLPSettings,
        seed: tuple[int, int],
        device: torch.device,
    ) -> None:
        self.samples = ref, cand
        self.settings, self.device = settings, device
        self.rng = stream("challenge classifier", *seed)
        self.torch_seed = int(self.rng.integers(2**31))
        cuts = np.cumsum(sizes)[:2]
        orders = [np.split(self.rng.permutation(len(ref)), cuts) for _ in self.samples]
        # rows n … 2n − 1 are the candidate's: the samples are never copied into one
        self.parts = [np.concatenate([a, b + len(ref)]) for a, b in zip(*orders, strict=True)]

    def __call__(self) -> tuple[float, float, float]:
        from sklearn.isotonic import IsotonicRegression
        from sklearn.metrics import roc_auc_score

        train, choose, test = self.parts
        network = self._trained(train, choose)
        label = self._label(test)
        probability = self._probability(network, test)
        scale = IsotonicRegression(y_min=_CLIP, y_max=1.0 - _CLIP, out_of_bounds="clip")
        scale.fit(self._probability(network, choose), self._label(choose))
        calibrated = scale.predict(probability)
        auc, raw = (float(roc_auc_score(label, p)) for p in (calibrated, probability))
        return auc, jensen_shannon(label, calibrated), raw

    def _trained(self, train: NDArray[np.int64], choose: NDArray[np.int64]) -> torch.nn.Module:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        network = self._network()
        adam = torch.optim.Adam(network.parameters(), lr=self.settings.learning_rate)
        best, kept = -1.0, network.state_dict()
        for _ in range(self.settings.epochs):
            order = self.rng.permutation(train)
            for start in range(0, len(order), self.settings.batch):
                rows = order[start : start + self.settings.batch]
                y = torch.from_numpy(self._label(rows)).double().to(self.device)
                loss = binary_cross_entropy_with_logits(network(self._batch(rows))[:, 0], y)
                adam.zero_grad()
                torch.autograd.backward([loss])
                adam.step()
            right = (self._probability(network, choose) > 0.5) == self._label(choose)
            if right.mean() > best:
                best = float(right.mean())
                kept = {name: v.clone() for name, v in network.state_dict().items()}
            if best == 1.0:
                break
        network.load_state_dict(kept)
        return network

    def _network(self) -> torch.nn.Module:
        import torch
        from torch import nn

        columns = self.samples[0].shape[1]
        widths = [columns, *[self.settings.width] * self.settings.layers]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.torch_seed)
            layers: list[nn.Module] = []
            for a, b in pairwise(widths):
                layers += [nn.Linear(a, b, dtype=torch.float64), nn.LeakyReLU()]
            network = nn.Sequential(*layers, nn.Linear(widths[-1], 1, dtype=torch.float64))
        return network.to(self.device)

    def _probability(self, network: torch.nn.Module, rows: NDArray[np.int64]) -> Floats:
        """That a row is one of ``ref``, (len(rows),)."""
        import torch

        with torch.no_grad():
            parts = [
                torch.sigmoid(network(self._batch(rows[k : k + self.settings.batch]))[:, 0]).cpu()
                for k in range(0, len(rows), self.settings.batch)
            ]
        probability: Floats = torch.cat(parts).numpy()
        return probability

    def _label(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for rows of ``ref``, as in the challenge."""
        return rows < len(self.samples[0])

    def _batch(self, rows: NDArray[np.int64]) -> torch.Tensor:
        import torch

        ref, cand = self.samples
        own = self._label(rows)
        x = np.empty((len(rows), ref.shape[1]))
        x[own], x[~own] = ref[rows[own]], cand[rows[~own] - len(ref)]
        return torch.from_numpy(x).to(self.device)
