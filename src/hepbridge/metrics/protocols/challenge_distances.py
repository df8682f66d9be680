"""FPD and KPD of high-level features: with the challenge's settings, and without their bias."""

from __future__ import annotations

import logging

from hepbridge.core.errors import DataError
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.frechet import fpd, fpd_unbiased
from hepbridge.metrics.kernel import kpd, kpd_unbiased

__all__ = ["distances"]

log = logging.getLogger(__name__)

_SAMPLES = 10_000  # the challenge's smallest batch for FPD, and its batches for KPD


def distances(ref: Floats, cand: Floats, seed: int) -> dict[str, dict[str, float | None]]:
    """``fpd`` and ``kpd`` of features (N, k) and (M, k).

    ``value`` and ``error`` are those of the challenge's settings (and jetnet's seed), ``unbiased``
    and ``unbiased_error`` those of `fpd_unbiased` and `kpd_unbiased`, None for too few showers.
    """
    value, error = fpd(ref, cand, min_samples=_SAMPLES)
    out: dict[str, dict[str, float | None]] = {"fpd": {"value": value, "error": error}}
    value, error = kpd(ref, cand, batch_size=_SAMPLES)
    out["kpd"] = {"value": value, "error": error}
    for name, function in (("fpd", fpd_unbiased), ("kpd", kpd_unbiased)):
        try:
            found: tuple[float | None, float | None] = function(ref, cand, seed=seed)
        except DataError as reason:  # too few showers for so many features
            log.info("no unbiased %s: %s", name.upper(), reason)
            found = None, None
        out[name].update(unbiased=found[0], unbiased_error=found[1])
    return out
