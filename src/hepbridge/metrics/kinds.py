"""Kinds of samples: what differs between showers of one plane of cells and any other calorimeter.

All metrics ask for little: length, rows, incident energies, weights, event ids, a geometry with a
digest. What else they need they get from the `Kind` of the sample:

- `Showers` of one plane of x and y: the seven observables of SQuIRELS, and its shower shapes;
- `Shapes`: everything else (`prepared` makes them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.data.cells import XYCells
from hepbridge.data.geometry import Geometry
from hepbridge.data.join import join
from hepbridge.data.points import PointShowers
from hepbridge.data.response import UNITS_APART, check_units
from hepbridge.data.showers import Showers, require_showers
from hepbridge.metrics.classifier_inputs import Features, high_level, input_names
from hepbridge.metrics.observables import table_rows
from hepbridge.metrics.shapes.features import coordinates, shape_features, shape_names
from hepbridge.metrics.shapes.rows import shape_rows
from hepbridge.metrics.shapes.shapes import THRESHOLD_MEV, Shapes

if TYPE_CHECKING:
    from hepbridge.metrics.rows import Row

__all__ = [
    "Kind",
    "S",
    "Sample",
    "high_level_of",
    "is_plane",
    "kind_of",
    "levels_of",
    "prepared",
    "require_samples",
]

Sample = Showers | Shapes
S = TypeVar("S", Showers, Shapes)

_VISIBLE = (
    1_000  # sampling calorimeters see a hundredth of the energy: MeV for GeV is still off more
)


@dataclass(frozen=True)
class Kind:
    """What metrics ask of one kind of samples.

    Attributes:
        rows: the rows of its table.
        check: raises DataError unless all samples can be compared with the first.
        check_units: raises DataError for cells in another unit than the incident energies.
        high_level, names: inputs of classifiers (n, features), and what they are ("low": of cells).
        has_cells: are the cells of a sample known one by one?
        neighbourhood: coordinates in which showers are near each other (coverage).
        learnt: coordinates in which a copy is one (memorisation).
        join: samples one after another.
    """

    rows: Callable[..., Sequence[Row]]
    check: Callable[[Any, Mapping[str, Any]], None]
    check_units: Callable[[Any, str], None]
    high_level: Callable[[Any], Features]
    names: Callable[[Any, str], list[str]]
    has_cells: Callable[[Any], bool]
    neighbourhood: Callable[[Any], NDArray[np.float64]]
    learnt: Callable[[Any], NDArray[np.float32]]
    join: Callable[[Sequence[Any]], Any]


def kind_of(sample: Sample) -> Kind:
    """The kind of a sample."""
    return _SHAPES if isinstance(sample, Shapes) else _PLANE


def high_level_of(sample: Sample) -> Features:
    """The shower shapes that classifiers see of a sample."""
    return kind_of(sample).high_level(sample)


def levels_of(inputs: Iterable[str], samples: Iterable[Sample]) -> list[str]:
    """The levels of a classifier's inputs that all samples have: "low" needs the cells."""
    known = all(kind_of(sample).has_cells(sample) for sample in samples)
    return [level for level in inputs if known or level != "low"]


def is_plane(geometry: Geometry) -> bool:
    """One plane of cells in x and y, or a grid that only its axes describe?"""
    if geometry.layers:
        return len(geometry.layers) == 1 and isinstance(geometry.layers[0].cells, XYCells)
    return geometry.axes != ("z", "x", "y")


def prepared(
    samples: Mapping[str, Showers | Shapes | PointShowers], *, threshold_mev: float = THRESHOLD_MEV
) -> dict[str, Any]:
    """The samples as metrics take them: showers of one plane as they are, all else as `Shapes`.

    The layers are those of the first sample; of points, those that suit its first 1,000 showers.
    Raises DataError for anything that is no sample, and where some have layers and others none.
    """
    first = next(iter(samples.values()))
    if isinstance(first, Showers) and is_plane(first.geometry):
        require_samples(samples)
        return dict(samples)
    layout = None
    out: dict[str, Any] = {}
    for name, sample in samples.items():
        if not isinstance(sample, Shapes | PointShowers):
            require_showers(sample, repr(name))
        if not isinstance(sample, Shapes):
            sample = Shapes.of(sample, layout, threshold_mev=threshold_mev)
        layout = layout or sample.layout
        out[name] = sample
    return out


def require_samples(samples: Mapping[str, Any]) -> None:
    """Raise DataError unless all are samples of one kind."""
    if any(isinstance(sample, Shapes) for sample in samples.values()):
        strange = [name for name, s in samples.items() if not isinstance(s, Shapes)]
        if strange:
            raise DataError(
                f"{strange[0]!r} is no sample of the same kind as the others; give all as Shapes, or "
                "all as Showers"
            )
        return
    for name, sample in samples.items():
        require_showers(sample, repr(name))


def _check_plane(ref: Showers, others: Mapping[str, Showers]) -> None:
    missing = [axis for axis in ("x", "y") if axis not in ref.geometry.axes]
    if missing:
        raise DataError(
            f"geometry {ref.geometry.name!r} has no axis {missing[0]!r}; profiles need x and y"
        )
    _check_alike(ref, others)


def _check_shapes(ref: Shapes, others: Mapping[str, Shapes]) -> None:
    _check_alike(ref, others)
    for name, sample in others.items():
        if sample.threshold_mev != ref.threshold_mev:
            raise DataError(
                f"{name!r} counts hits above {sample.threshold_mev} MeV, the reference above "
                f"{ref.threshold_mev} MeV"
            )
        if sample.from_axis != ref.from_axis:
            raise DataError(
                f"only one of {name!r} and the reference says where the axis of each shower is "
                "(conditions x_mm, y_mm, theta_rad, phi_rad); compare like with like"
            )


def _check_alike(ref: Any, others: Mapping[str, Any]) -> None:
    for name, sample in {"ref": ref, **others}.items():
        if sample.geometry.digest() != ref.geometry.digest():
            raise DataError(
                f"{name!r} has geometry {sample.geometry.name!r} {sample.geometry.shape}, but the "
                f"reference has {ref.geometry.name!r} {ref.geometry.shape}; compare like with like"
            )
        if sample.weights is not None and (sample.weights.min() < 0 or sample.weights.sum() <= 0):
            raise DataError(
                f"{name!r} has negative weights, or none above 0; metrics need weights ≥ 0"
            )


def _plane_neighbourhood(showers: Showers) -> NDArray[np.float64]:
    energy = np.log(showers.incident_energy)[:, None]
    return np.concatenate([high_level(showers), energy], axis=1, dtype=np.float64)


def _roots(showers: Showers | Shapes) -> NDArray[np.float32]:
    """√(cell / incident energy) and log incident energy; layers and rings where cells are too many."""
    energy = showers.incident_energy[:, None]
    if showers.cells is not None:
        parts = showers.cells
    else:
        assert isinstance(showers, Shapes)
        parts = np.concatenate([showers.layers, showers.rings], axis=1, dtype=np.float32)
    root = np.sqrt(parts / energy.astype(np.float32))
    return np.concatenate([root, np.log(energy)], axis=1, dtype=np.float32)


_PLANE = Kind(
    rows=lambda showers, *, mixed: table_rows(mixed=mixed),
    check=_check_plane,
    check_units=lambda showers, name: check_units(showers, name, apart=UNITS_APART),
    high_level=high_level,
    names=lambda showers, level: input_names(level, showers.geometry),
    has_cells=lambda showers: True,
    neighbourhood=_plane_neighbourhood,
    learnt=_roots,
    join=join,
)
_SHAPES = Kind(
    rows=shape_rows,
    check=_check_shapes,
    check_units=lambda shapes, name: check_units(shapes, name, apart=_VISIBLE),
    high_level=shape_features,
    names=shape_names,
    has_cells=lambda shapes: shapes.cells is not None,
    neighbourhood=coordinates,
    learnt=_roots,
    join=Shapes.joined,
)
