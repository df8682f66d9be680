"""Generating with an ONNX file in Python: a callable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.rng import event_normal
from hepbridge.data.conditions import checked_ids, given_conditions
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.deploy.onnx.check import belonging, session_of
from hepbridge.deploy.onnx.contract import contract_path
from hepbridge.deploy.onnx.generator_contract import read_generator_contract

__all__ = ["OnnxGenerator"]

Array = NDArray[np.float32]
_BATCH = 256  # showers at a time


class OnnxGenerator:
    """An exported generator, ready to make showers; as `OnnxRefiner`, for any number of threads.

    Args:
        path: the ONNX file; its contract is beside it.
        threads: of one call.

    Raises:
        ModelFileError: file or contract are missing, damaged, or do not belong together.
        ConfigError: the file is for another program (targets ``par04`` and ``ddml-grid``).
        MissingExtraError: ``onnxruntime`` is not installed.
    """

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        self.contract = read_generator_contract(contract_path(path))
        if self.contract.host:
            raise ConfigError(
                f"{path} was exported for {self.contract.host}; for Python, export the model with "
                "--target ort"
            )
        belonging(path, self.contract)
        self._session = session_of(path, threads)
        self._shapes = {t.name: tuple(size for size in t.shape[1:]) for t in self.contract.inputs}
        self._rows = self.contract.inputs[0].shape[0]

    def __call__(self, inputs: Mapping[str, Array]) -> tuple[Array, NDArray[np.bool_]]:
        """Showers (N, n_cells) in MeV, and which lie outside the trained range (N,).

        ``inputs`` are float32 arrays by the names of the contract: ``incident_energy`` (N,) in MeV,
        further conditions (N,), ``noise`` (N, width), standard normal.

        Raises DataError if one is missing, too many, or has another shape or type, if an energy is
        not positive, and for numbers that are infinite or none.
        """
        if inputs.keys() != self._shapes.keys():
            raise DataError(
                f"the model takes {', '.join(self._shapes)}, got {', '.join(inputs) or 'nothing'}"
            )
        n = len(inputs["incident_energy"])
        for name, array in inputs.items():
            if array.shape != (n, *self._shapes[name]) or array.dtype != np.float32:
                raise DataError(
                    f"{name} must be float32 of shape {(n, *self._shapes[name])}, got "
                    f"{array.dtype} of shape {array.shape}"
                )
            if not np.isfinite(array).all():
                raise DataError(f"{name} holds values that are infinite or no number")
        if not (inputs["incident_energy"] > 0).all():
            raise DataError("incident_energy holds values that are not positive")
        if self._rows not in ("rows", n):
            raise DataError(f"the file was exported for {self._rows} shower(s) in a call, got {n}")
        cells, outside = self._session.run(None, inputs)
        return cells, outside

    def generate(
        self,
        conditions: Mapping[str, NDArray[np.float64]],
        event_ids: NDArray[np.uint64],
        *,
        seed: int = 0,
    ) -> Showers:
        """As `hepbridge generate`: the same noise by event id, the same flags, to 1e-5.

        Showers with conditions beyond the trained range differ, because the graph clamps those.

        Args:
            conditions: ``incident_energy`` (N,), MeV, and those of the contract; more are kept.
            event_ids: (N, 2), keys of the noise.

        Raises DataError if conditions or event ids are not what they should be, if a condition is
        missing, or as the call on arrays does.
        """
        where = "the generator"
        conditions = given_conditions(conditions, where)
        names = [name for name, shape in self._shapes.items() if not shape]
        if missing := [name for name in names if name not in conditions]:
            raise DataError(f"the model needs the condition {missing[0]} of every shower")
        event_ids = checked_ids(event_ids, len(conditions["incident_energy"]), where)
        geometry = Geometry.from_dict(self.contract.geometry)
        n, step = len(event_ids), _BATCH if isinstance(self._rows, str) else self._rows
        cells = np.empty((n, geometry.n_cells), dtype=np.float32)
        outside = np.zeros(n, dtype=bool)
        width = self.contract.inputs[-1].columns
        for start in range(0, n, step):
            rows = slice(start, start + step)
            inputs = {name: conditions[name][rows].astype(np.float32) for name in names}
            noise = event_normal(seed, "generate", event_ids[rows], width)
            inputs["noise"] = noise.astype(np.float32)
            cells[rows], outside[rows] = self(inputs)
        return Showers.from_arrays(
            cells,
            conditions["incident_energy"],
            geometry=geometry,
            conditions={k: v for k, v in conditions.items() if k != "incident_energy"},
            columns={"outside_domain": outside} if outside.any() else {},
            event_ids=event_ids,
            meta={"generated_by": self.contract.method, "particle": self.contract.particle},
            where=where,
            allow_empty_showers=True,
        )
