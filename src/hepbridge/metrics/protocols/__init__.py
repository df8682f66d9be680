"""Published ways to evaluate a simulation: named observables, histograms, thresholds and scores.

A protocol is one file and one line here. It is made from plain options and compares samples that
may be larger than memory (`hepbridge.metrics.protocols.base`).
"""

from __future__ import annotations

from hepbridge.core.registry import Registry

__all__ = ["PROTOCOLS"]

PROTOCOLS = Registry(
    "protocol", {"calochallenge": "hepbridge.metrics.protocols.calochallenge:CaloChallenge"}
)
