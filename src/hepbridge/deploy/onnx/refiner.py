"""Refining with an ONNX file in Python: a callable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError, ModelFileError
from hepbridge.core.rng import event_normal
from hepbridge.data.showers import Showers, require_showers
from hepbridge.deploy.onnx.check import belonging, session_of
from hepbridge.deploy.onnx.contract import contract_path, read_contract

__all__ = ["OnnxRefiner"]

Array = NDArray[np.float32]
_BATCH = 1024  # showers at a time


class OnnxRefiner:
    """An exported model, ready to refine arrays.

    Thread safety: an object may be called by any number of threads at once. It keeps no state
    between calls, and a session of ONNX Runtime may run in several threads; each call computes in
    the thread that made it if ``threads`` is 1.

    Args:
        path: the ONNX file; its contract is beside it.
        threads: of one call.

    Raises:
        ModelFileError: file or contract are missing, damaged, or do not belong together.
        MissingExtraError: ``onnxruntime`` is not installed.
    """

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        self.contract = read_contract(contract_path(path))
        belonging(path, self.contract)
        self._session = session_of(path, threads)
        self._shapes = {t.name: tuple(size for size in t.shape[1:]) for t in self.contract.inputs}
        self._rows = self.contract.inputs[0].shape[0]

    def __call__(self, inputs: Mapping[str, Array]) -> tuple[Array, NDArray[np.bool_]]:
        """Refined showers (N, n_cells) in MeV, and which lie outside the trained range (N,).

        ``inputs`` are float32 arrays by the names of the contract: ``cells`` (N, n_cells) and
        ``incident_energy`` (N,) in MeV, further conditions (N,), ``noise`` (N, width).

        Raises DataError if one is missing, too many, or has another shape or type, for cells or
        energies that are negative or not finite, and for showers that hold much less or more of the
        incident energy than those of the training (`Contract.response`): empty ones, other units.
        """
        if inputs.keys() != self._shapes.keys():
            raise DataError(
                f"the model takes {', '.join(self._shapes)}, got {', '.join(inputs) or 'nothing'}"
            )
        n = len(inputs["cells"])
        for name, array in inputs.items():
            if array.shape != (n, *self._shapes[name]) or array.dtype != np.float32:
                raise DataError(
                    f"{name} must be float32 of shape {(n, *self._shapes[name])}, got "
                    f"{array.dtype} of shape {array.shape}"
                )
        for name in ("cells", "incident_energy"):
            if not (inputs[name] >= 0).all() or not np.isfinite(inputs[name]).all():
                raise DataError(f"{name} holds values that are negative, infinite or no number")
        if self._rows not in ("rows", n):
            raise DataError(f"the file was exported for {self._rows} shower(s) in a call, got {n}")
        self._check_response(inputs["cells"], inputs["incident_energy"])
        refined, outside = self._session.run(None, inputs)
        return refined, outside

    def _check_response(self, cells: Array, energy: Array) -> None:
        """Raise DataError for the first row that is no shower in these units."""
        allowed = self.contract.response
        held = cells.sum(axis=1)
        good = held >= allowed.refused_below * energy
        good &= (held <= allowed.refused_above * energy) & (energy > 0)
        if good.all():
            return
        row = int(np.argmin(good))
        raise DataError(
            f"shower {row} holds {held[row]:.4g} MeV in its cells at an incident energy of "
            f"{energy[row]:.4g} MeV; showers of this model hold {allowed.min:.3g} to {allowed.max:.3g} "
            f"of it, and {allowed.refused_below:.3g} to {allowed.refused_above:.3g} is allowed: cells "
            "and incident energies must be in MeV, and empty showers must be left out"
        )

    def refine(self, showers: Showers, *, seed: int = 0) -> Showers:
        """As `hepbridge.Model.refine`: the same noise by event id, the same flags, to 1e-5.

        Raises DataError if a condition is missing, ModelFileError for showers of another geometry.
        """
        require_showers(showers, "showers")
        if showers.geometry.digest() != self.contract.geometry["digest"]:
            raise ModelFileError(
                f"the model was trained for geometry {self.contract.geometry['name']!r}, but the "
                f"showers are of {showers.geometry.name!r}; use a model for that geometry"
            )
        names = [name for name, shape in self._shapes.items() if not shape]
        if missing := [name for name in names if name not in showers.conditions]:
            raise DataError(f"the model needs the condition {missing[0]} of every shower")
        cells = np.empty_like(showers.cells)
        outside = np.zeros(len(showers), dtype=bool)
        step = _BATCH if isinstance(self._rows, str) else self._rows
        width = next((t.columns for t in self.contract.inputs if t.name == "noise"), 0)
        for start in range(0, len(showers), step):
            rows = slice(start, start + step)
            inputs = {name: showers.conditions[name][rows].astype(np.float32) for name in names}
            inputs["cells"] = showers.cells[rows]
            if width:
                purpose = f"refine-{self.contract.member}"
                noise = event_normal(seed, purpose, showers.event_ids[rows], width)
                inputs["noise"] = noise.astype(np.float32)
            cells[rows], outside[rows] = self({name: inputs[name] for name in self._shapes})
        out = showers.with_cells(cells, refined_by=self.contract.system, refined_seed=seed)
        if outside.any():
            out.columns["outside_domain"] = outside
        return out
