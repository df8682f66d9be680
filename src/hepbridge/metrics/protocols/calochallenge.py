"""The evaluation of the CaloChallenge (arXiv:2410.21611), and the same without its blind spots.

Beside every number as the challenge defines it stands a second one, where the first is wrong:

- A separation power of the challenge leaves out what lies outside the plotted range: empty layers,
  and cells below the threshold. ``separation_all`` has bins for them.
- FPD and KPD of the challenge draw showers repeatedly: two samples of one truth seem to differ.
  `hepbridge.metrics.frechet.fpd_unbiased` and `hepbridge.metrics.kernel.kpd_unbiased` do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.progress import Bar, progress
from hepbridge.data.binning_xml import read_binning
from hepbridge.data.geometry import Geometry
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.protocols.base import Source
from hepbridge.metrics.protocols.challenge_checks import check_energies, check_response
from hepbridge.metrics.protocols.challenge_classifier import challenge_classifier
from hepbridge.metrics.protocols.challenge_data import challenge_data, of_binning
from hepbridge.metrics.protocols.challenge_distances import distances
from hepbridge.metrics.protocols.challenge_histograms import (
    GROUPS,
    Quantity,
    compared,
    count,
    log_edges,
    quantities,
    summarised,
)
from hepbridge.metrics.protocols.histograms import Counts, fill
from hepbridge.metrics.protocols.published import published, rank
from hepbridge.metrics.protocols.shower_features import FeatureMaker, ShowerFeatures

__all__ = ["CLASSIFIER_INPUTS", "CaloChallenge"]

CLASSIFIER_INPUTS = ("low", "low-normed", "high")
MIN_SHOWERS = 50


class CaloChallenge:
    """Compares samples as the CaloChallenge does.

    Either ``dataset`` ("1-photons", "1-pions", "2", "3"), or ``binning``, the path of a binning
    file, with the ``threshold`` of a cell in MeV and, where the file has several, the ``particle``.
    Raises ConfigError for anything else.
    """

    def __init__(
        self,
        *,
        dataset: str | None = None,
        binning: str | Path | None = None,
        particle: str | None = None,
        threshold: float | None = None,
    ) -> None:
        if (dataset is None) == (binning is None):
            raise ConfigError(
                "the CaloChallenge protocol needs either a data set (1-photons, 1-pions, 2, 3) or "
                "a binning file"
            )
        if dataset is not None:
            if threshold is not None or particle is not None:
                raise ConfigError(
                    f"data set {dataset} has its own threshold and particle; they can only be "
                    "given for a binning file"
                )
            self.data = challenge_data(dataset)
        else:
            if threshold is None:
                raise ConfigError(
                    "a binning file does not say which cells count; give the threshold of a cell, "
                    "in MeV (0.01515 in data sets 2 and 3, 1 in data set 1)"
                )
            self.data = of_binning(read_binning(str(binning), particle), threshold)
        self.make = FeatureMaker(self.data.geometry)

    @property
    def geometry(self) -> Geometry:
        """The cells that all samples must have."""
        return self.data.geometry

    def evaluate(
        self,
        ref: Source,
        candidates: Mapping[str, Source],
        ref2: Source | None = None,
        *,
        classifiers: Sequence[str] = (),
        runs: int = 10,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Histograms, FPD, KPD and (on request) classifier tests of every candidate.

        ``classifiers`` are of "low", "low-normed" and "high". In the record, ``floor`` is what
        ``ref2`` would be as a candidate. A candidate (and the floor) has ``rows`` (one per
        histogram: ``separation`` as the challenge, ``separation_all``, ``expected`` by chance,
        ``chi2``, ``ndf``, ``counts``), ``groups`` (their means, and the worst histogram), ``fpd``
        and ``kpd`` (``value``, ``error`` as the challenge, ``unbiased``, ``unbiased_error``),
        ``classifier`` and ``ranking``: its place among the published entries. Arrays ``counts``
        begin with the entries below the range and end with those above it and of no value.

        Raises DataError for samples of fewer than 50 showers, of other cells, or not in the unit
        of the challenge; ConfigError for an unknown classifier.
        """
        for name in classifiers:
            if name not in CLASSIFIER_INPUTS:
                raise ConfigError(
                    f"the CaloChallenge has no classifier {name!r}; it has "
                    f"{', '.join(CLASSIFIER_INPUTS)}"
                )
        others = {**({} if ref2 is None else {"floor": ref2}), **candidates}
        for source in (ref, *others.values()):
            if source.n < MIN_SHOWERS:
                raise DataError(
                    f"{source.name!r} has {source.n} showers; at least {MIN_SHOWERS} are needed"
                )
        steps = 2 * ref.n + sum(s.n for s in others.values())
        with progress("evaluate", steps * (2 + len(classifiers))) as bar:
            features, largest = self._features(ref, bar)
            check_response(ref, features)
            histograms = quantities(self.data, features)
            voxels = log_edges(self.data.threshold, largest, 50)
            base = _Reference(
                ref,
                features,
                [count(q, features) for q in histograms],
                voxels,
                self._voxels(ref, voxels, bar),
            )
            judged = {
                name: self._judge(source, base, histograms, classifiers, runs, seed, bar)
                for name, source in others.items()
            }
        floor = judged.pop("floor", None)
        return {
            "protocol": "calochallenge",
            "dataset": self.data.name,
            "particle": self.data.particle,
            "threshold_mev": self.data.threshold,
            "seed": seed,
            "samples": {
                s.name: {"n": s.n, "path": s.path, "simulation": str(s.meta.get("simulation", ""))}
                for s in (ref, *others.values())
            },
            "histograms": self._described(histograms, base),
            "floor": floor,
            "candidates": judged,
            "published": self._published(judged, ref.n),
        }

    def _judge(
        self,
        source: Source,
        base: _Reference,
        histograms: Sequence[Quantity],
        classifiers: Sequence[str],
        runs: int,
        seed: int,
        bar: Bar,
    ) -> dict[str, Any]:
        parts, voxels = [], None
        for block, energy in self._blocks(source, bar):
            parts.append(self.make(block, energy))
            counted = fill(block.reshape(-1), base.voxel_edges)
            voxels = counted if voxels is None else voxels + counted
        features = ShowerFeatures.joined(parts)
        check_energies(source, features, base.features)
        pairs = [
            (q.group, q.name, a, count(q, features))
            for q, a in zip(histograms, base.counts, strict=True)
        ]
        assert voxels is not None  # a source is never empty
        pairs.append(("voxel", "voxel", base.voxels, voxels))
        rows = {name: compared(group, a, b) for group, name, a, b in pairs}
        x, y = base.features.table(), features.table()
        bar.advance(source.n, f"{source.name}: FPD and KPD")
        found = distances(x, y, seed)
        tests = {}
        for name in classifiers:
            u, v = (self._inputs(s, f, name) for s, f in ((base.source, x), (source, y)))
            tests[name] = challenge_classifier(u, v, self.data.split, runs=runs, seed=seed)
            bar.advance(source.n, f"{source.name}: classifier {name}")
        return {
            "n": source.n,
            "rows": rows,
            "groups": summarised({name: group for group, name, *_ in pairs}, rows),
            **found,
            "classifier": tests,
        }

    def _blocks(
        self, source: Source, bar: Bar, *, threshold: bool = True
    ) -> Iterator[tuple[NDArray[np.float32], Floats]]:
        """Cells below the threshold set to 0, and incident energies, block by block."""
        for cells, energy in source.blocks():
            kept = cells
            if threshold:
                kept = np.where(cells < self.data.threshold, np.float32(0), cells)
            yield kept, energy
            bar.advance(len(energy), source.name)

    def _features(self, source: Source, bar: Bar) -> tuple[ShowerFeatures, float]:
        """The features of a sample, and its largest voxel (MeV)."""
        parts, largest = [], 0.0
        for cells, energy in self._blocks(source, bar):
            parts.append(self.make(cells, energy))
            largest = max(largest, float(cells.max()))
        return ShowerFeatures.joined(parts), largest

    def _voxels(self, source: Source, edges: Floats, bar: Bar) -> Counts:
        found = [fill(cells.reshape(-1), edges) for cells, _ in self._blocks(source, bar)]
        return sum(found[1:], found[0])

    def _inputs(self, source: Source, table: Floats, name: str) -> NDArray[np.floating[Any]]:
        """What a classifier sees: the high-level table, or the voxels (float32, as in files)."""
        if name == "high":
            return table
        parts = []
        # the challenge applies no threshold before 'cls-low-normed'
        for cells, energy in self._blocks(source, Bar(), threshold=name == "low"):
            columns = [np.log10(energy)[:, None]]
            if name == "low":
                columns.append(cells / energy[:, None])
            else:
                layers = self.data.geometry.layer_sums(cells)
                each = np.diff(self.data.geometry.layer_starts)
                columns += [cells / (np.repeat(layers, each, axis=1) + 1e-16)]
                columns += [np.log10(layers + 1e-8)]
            parts.append(np.concatenate(columns, axis=1).astype(np.float32))
        return np.concatenate(parts)

    def _described(self, histograms: Sequence[Quantity], base: _Reference) -> list[dict[str, Any]]:
        found = [
            (q.name, q.group, q.unit, q.edges, c)
            for q, c in zip(histograms, base.counts, strict=True)
        ]
        found.append(("voxel", "voxel", "MeV", base.voxel_edges, base.voxels))
        return [
            {
                "name": name,
                "group": group,
                "unit": unit,
                "edges": edges.tolist(),
                "counts": counts.every.tolist(),
            }
            for name, group, unit, edges, counts in found
        ]

    def _published(self, judged: dict[str, dict[str, Any]], n: int) -> dict[str, Any] | None:
        """The source of the published numbers; puts a ``ranking`` into every candidate."""
        table = published("calochallenge")
        entries = table["datasets"].get(self.data.name)
        for found in judged.values():
            found["ranking"] = _ranking(found, entries) if entries else None
        if entries is None:
            return None
        return {
            **{k: table[k] for k in ("title", "arxiv", "doi", "source")},
            "n": self.data.n,
            "same_size": all(
                2 * size >= (self.data.n or 0) for size in (n, *(c["n"] for c in judged.values()))
            ),
            "entries": entries,
        }


@dataclass(frozen=True)
class _Reference:
    """The reference: its features, the counts of all histograms, and those of its voxels."""

    source: Source
    features: ShowerFeatures
    counts: list[Counts]
    voxel_edges: Floats
    voxels: Counts


def _ranking(
    found: Mapping[str, Any], entries: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, Any]]:
    """Published metric -> value of this candidate and its place."""
    values = {g: found["groups"][g]["separation"] for g in GROUPS if g in found["groups"]}
    values |= {name: found[name]["value"] for name in ("fpd", "kpd")}
    values |= {f"auc_{k}": t["auc"] for k, t in found["classifier"].items() if k in ("low", "high")}
    out = {}
    for metric, value in values.items():
        place = None if value is None else rank(entries, metric, value)
        if place is not None:
            out[metric] = {"value": value, **place}
    return out
