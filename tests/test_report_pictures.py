"""Event displays and profiles: what is drawn is where and what the showers say, and `show` draws it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hepbridge.cli.app import app
from hepbridge.core.errors import ConfigError, DataError, OutputError
from hepbridge.data import io
from hepbridge.data.cells import CellLayer, PolarCells, XYCells
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.report.display import event_display, prisms
from hepbridge.report.plate import write_picture
from hepbridge.report.profiles import longitudinal, profiles, radial_edges, transverse

GRID = Geometry("grid", (4, 4), ("x", "y"), (10.0, 10.0))
XY = XYCells(n=(4, 4), pitch_mm=(10, 10))
POLAR = PolarCells(r_mm=(0, 5, 20), n_phi=6)
STACK = Geometry.of_layers("stack", [CellLayer(XY, (0, 50)), CellLayer(POLAR, (50, 250))])


def showers(geometry: Geometry, n: int = 40, seed: int = 0, **conditions: Any) -> Showers:
    cells = np.random.default_rng(seed).gamma(0.5, 20.0, (n, geometry.n_cells))
    energy = np.full(n, 2000.0)
    return Showers.from_arrays(cells, energy, geometry=geometry, conditions=conditions)


def drawn(plate: Any, panel: int = 0) -> list[np.ndarray]:
    """The polygons of an event display in the axes of the picture."""
    ax = plate.figure.axes[panel]
    (faces,) = [c for c in ax.collections if type(c).__name__ == "Poly3DCollection"]
    points = np.asarray(faces._faces)  # of matplotlib: one array, filled up where faces are shorter
    valid = ~np.broadcast_to(faces._invalid_vertices, points.shape[:2])
    return [face[ok, :3] for face, ok in zip(points, valid, strict=True)]


def test_a_prism_has_two_ends_and_its_sides() -> None:
    """Its volume by the divergence theorem is area times height, of either kind of cells."""
    for cells, area in ((XY, 100.0), (POLAR, np.pi * (20**2 - 5**2) / 6)):
        outline = cells.outlines_mm()[-1]
        faces, owner = prisms(outline[None], np.array([3.0]), np.array([10.0]))
        assert len(faces) == 2 + len(outline) and set(owner) == {0}
        middle = outline.mean(axis=0)
        volume = 0.0
        for face in faces:  # pyramids from the middle to every face, in triangles
            p = face - np.array([*middle, 6.5])
            volume += sum(
                abs(np.linalg.det([p[0], p[i], p[i + 1]])) / 6 for i in range(1, len(p) - 1)
            )
        # an arc is drawn with eight points: a little less than the sector
        assert volume == pytest.approx(7 * area, rel=0.03)
    (plate,), _ = prisms(XY.outlines_mm()[:1], np.array([4.0]), np.array([4.0]))
    assert set(plate[:, 2]) == {4.0}


def test_cells_are_drawn_where_they_are() -> None:
    """One cell of each kind of layer; fails if depth and x are exchanged, or layers counted wrong."""
    cells = np.zeros((1, STACK.n_cells))
    cells[0, 1], cells[0, 16 + POLAR.index(-12.0, -1.0)] = 5.0, 50.0
    cells[0, 3] = 0.05  # below the threshold
    one = Showers.from_arrays(cells, [2000.0], geometry=STACK)
    faces = drawn(event_display({"a": one}))
    front, back = (
        np.concatenate([f for f in faces if f[:, 0].max() > f[:, 0].min() == edge])
        for edge in (0, 50)
    )
    assert front.min(axis=0) == pytest.approx([0, -20, -10])
    assert front.max(axis=0) == pytest.approx([50, -10, 0])
    assert back[:, 0].max() == 250
    radius = np.hypot(back[:, 1], back[:, 2])
    assert (back[:, 1] < 0).all() and radius.max() == pytest.approx(20)


def test_towers_of_a_grid_have_the_height_of_their_energy() -> None:
    cells = np.zeros((1, 16))
    cells[0, 5] = 100.0
    plate = event_display({"a": Showers.from_arrays(cells, [2000.0], geometry=GRID)})
    points = np.concatenate(drawn(plate))
    assert points.max(axis=0) == pytest.approx([0, 0, 3])  # a thousand times 0.1 MeV
    assert points.min(axis=0) == pytest.approx([-10, -10, 0])


def test_same_colours_and_axes_beside_each_other() -> None:
    """Fails if every panel had a scale of its own: the weaker shower would look as strong."""
    strong, weak = (showers(GRID) for _ in range(2))
    weak = weak.with_cells(weak.cells / 100)
    figure = event_display({"strong": strong, "weak": weak}, 3).figure
    assert figure is not None
    a, b = figure.axes[:2]
    assert a.get_zlim() == b.get_zlim() and a.get_xlim() == b.get_xlim()
    assert figure.texts[0].get_text().startswith("strong: ")


@pytest.mark.parametrize(
    ("samples", "row", "threshold", "error", "message"),
    [
        ({}, 0, 0.1, ConfigError, "one to 3 samples"),
        ({str(k): showers(GRID) for k in range(4)}, 0, 0.1, ConfigError, "got 4"),
        ({"a": showers(GRID)}, 40, 0.1, DataError, "a has no event 40; its events are 0 to 39"),
        ({"a": showers(GRID)}, 0, 0.0, ConfigError, "threshold must be positive"),
        ({"a": showers(GRID)}, 0, 1e9, DataError, "choose a lower threshold"),
        ({"a": showers(GRID), "b": showers(STACK)}, 0, 0.1, DataError, "different geometries"),
    ],
)
def test_displays_that_cannot_be(samples, row, threshold, error, message) -> None:
    with pytest.raises(error, match=message):
        event_display(samples, row, threshold_mev=threshold)


def test_longitudinal_profile_by_hand() -> None:
    s = showers(STACK)
    found = longitudinal(s)
    assert found is not None and list(found.edges) == [0, 50, 250]
    share = s.cells[:, 16:].sum(axis=1) / 2000
    assert found.values[1] == pytest.approx(share.mean(), rel=1e-6)
    assert found.sigma[1] == pytest.approx(share.std() / 40**0.5, rel=1e-6)
    assert longitudinal(showers(GRID)) is None


def test_transverse_profile_integrates_to_one_and_finds_its_cells() -> None:
    """Four cells of the grid are nearer than 10 mm to the axis, eight nearer than 20 mm, four are
    corners. Fails if bins are not divided by their width."""
    edges = radial_edges(GRID)
    assert list(edges) == [0, 10, 20, 30]
    s = showers(GRID, 400)
    found = transverse(s, edges)
    assert (found.values * 10).sum() == pytest.approx(1)
    # independent cells of equal mean: 4, 8 and 4 of 16
    assert np.all(np.abs(found.values * 10 - [0.25, 0.5, 0.25]) < 5 * found.sigma * 10)
    assert list(radial_edges(STACK)) == [0, 5, 20]


def test_radius_is_measured_from_the_track() -> None:
    """All energy in one cell that the particle hits off the axis, or after an angle."""
    cells = np.zeros((2, STACK.n_cells))
    cells[:, 16 + POLAR.index(10.0, 9.0)] = 1.0
    x, y = (c[16 + POLAR.index(10.0, 9.0)] for c in (STACK.x_mm, STACK.y_mm))
    angle, phi = (
        np.arctan(np.hypot(x, y) / 150),
        np.arctan2(y, x),
    )  # the layer's middle is at 150 mm
    conditions = {"x_mm": [x, 0.0], "y_mm": [y, 0.0], "theta_rad": [0.0, angle]}
    s = Showers.from_arrays(
        cells,
        [2000.0] * 2,
        geometry=STACK,
        conditions={**conditions, "phi_rad": [0.0, phi]},
    )
    found = transverse(s, np.array([0.0, 1e-6, 100.0]))
    assert found.values[0] * 1e-6 == pytest.approx(1)


def test_profiles_compare_one_geometry() -> None:
    with pytest.raises(DataError, match="profiles compare samples of one geometry"):
        profiles({"a": showers(GRID), "b": showers(STACK)})
    with pytest.raises(ConfigError, match="need a sample"):
        profiles({})
    figure = profiles({"full": showers(STACK), "gflash": showers(STACK, seed=1)}).figure
    assert figure is not None and len(figure.axes) == 6
    alone = profiles({"full": showers(GRID)}).figure
    assert alone is not None and len(alone.axes) == 4  # no longitudinal profile


def test_equal_samples_have_ratio_one() -> None:
    """And a sample of twice the energy has ratio two in depth, one in radius."""
    s = showers(STACK)
    figure = profiles({"full": s, "gflash": s.with_cells(2 * s.cells)}).figure
    assert figure is not None
    (along,) = figure.axes[1].containers
    across = figure.axes[3].containers[0]
    assert len(along[0].get_ydata()) == 0 or np.allclose(along[0].get_ydata(), 2)
    assert np.allclose(across[0].get_ydata(), 1)


def test_a_picture_is_there_or_not(tmp_path: Path) -> None:
    def fails():
        raise DataError("no")

    with pytest.raises(DataError):
        write_picture(fails, tmp_path / "p.png")
    with pytest.raises(OutputError, match=r"a picture ends in \.png, \.pdf or \.svg"):
        write_picture(fails, tmp_path / "p.jpg")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    io.save(showers(STACK), "a.h5")
    io.save(showers(STACK, seed=1), "b.h5")
    io.save(showers(GRID), "grid.h5")


def run(*words: str):
    return CliRunner().invoke(app, ["show", *words])


def test_show(files: None) -> None:
    done = run("a.h5", "GFLASH=b.h5", "--event", "7", "-o", "p.png")
    assert done.exit_code == 0 and done.stdout == "wrote p.png\n"
    assert "Event 7, 2 GeV, in stack" in done.stderr
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    done = run("a.h5", "b.h5", "--profiles", "-o", "p.svg", "--json")
    assert json.loads(done.stdout)["output"] == "p.svg" and "<svg" in Path("p.svg").read_text()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["none.h5"], 3, "none.h5: there is no such file"),
        (["a.h5", "--event", "40"], 3, "a.h5 has no event 40; its events are 0 to 39"),
        (["a.h5", "--event", "-1"], 2, "--event"),
        (["a.h5", "a.h5"], 5, "two files are called 'a'"),
        (["=a.h5"], 5, "write FILE or NAME=FILE"),
        (["a.h5", "grid.h5"], 3, "different geometries"),
        (["a.h5", "grid.h5", "--profiles"], 3, "profiles compare samples of one geometry"),
        (["a.h5", "--threshold", "1e9"], 3, "choose a lower threshold"),
        (["a.h5", "-o", "p.jpg"], 6, "a picture ends in"),
        (["a.h5", "-o", "no/p.png"], 6, "the folder no does not exist"),
        (["a.h5", "-o", "a.h5"], 6, "exists already"),
    ],
)
def test_what_cannot_be_shown(files: None, words: list[str], code: int, message: str) -> None:
    before = sorted(Path().iterdir())
    done = run("-o", "p.png", *words)
    assert done.exit_code == code, done.output
    assert message in " ".join(done.stderr.split()) and "Traceback" not in done.output
    assert sorted(Path().iterdir()) == before
