"""The report of any calorimeter and of points: tables that stay short, and every figure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.main import get_command

from hepbridge.cli.app import app
from hepbridge.core.errors import ConfigError
from hepbridge.data import io
from hepbridge.data.formats.points import save_points
from hepbridge.data.points import PointShowers
from hepbridge.metrics import evaluate
from hepbridge.metrics.classifier import QUICK
from hepbridge.metrics.shapes.correlation import correlations
from hepbridge.metrics.shapes.shapes import Shapes
from hepbridge.report import markdown, summary, write
from hepbridge.report.groups import Group, lines
from hepbridge.report.histograms import Binned
from hepbridge.report.point_display import point_display
from hepbridge.report.samples import drawn_sets
from hepbridge.report.shape_figures import draw_shapes
from hepbridge.report.shape_panels import shape_panels
from hepbridge.report.style import styles
from hepbridge.report.text import number
from shape_toys import BARREL, RINGS, as_points, random_showers, stack_showers

FAST = {"bootstraps": 10, "splits": 40, "classifier_settings": QUICK}
PLATES = [
    *("sum_and_maximum", "hits_and_spectrum", "profiles", "centres", "widths"),
    *("layers", "correlations", "display"),
]


@pytest.fixture(scope="module")
def samples() -> tuple[Shapes, Shapes, Shapes]:
    ref, ref2, cand = (stack_showers(150, s) for s in range(3))
    cells = cand.cells.reshape(-1, 6, 6, 6).copy()
    cells[:, 4] = 0.0
    return Shapes.of(ref), Shapes.of(ref2), Shapes.of(cand.with_cells(cells.reshape(150, -1)))


@pytest.fixture(scope="module")
def record(samples: tuple[Shapes, Shapes, Shapes]) -> dict:
    ref, ref2, cand = samples
    return evaluate(ref, {"model": cand, "twin": ref2}, ref2, **FAST).to_dict()


@pytest.mark.slow
def test_page_has_short_tables_and_every_number(samples, record, tmp_path: Path) -> None:
    ref, ref2, cand = samples
    page = write(record, ref, {"model": cand, "twin": ref2}, ref2, tmp_path / "report")
    text = page.read_text("utf-8")
    assert json.loads((tmp_path / "report" / "metrics.json").read_text()) == record
    for plate in PLATES:
        assert (tmp_path / "report" / "figures" / f"{plate}.png").stat().st_size > 5000
    body = text[text.index('id="distance-table"') : text.index("Excess over the floor")]
    assert (
        body.count("<tr><th scope=") == 1 + 12 + 2 + 1 + 2
    )  # set, rows, groups, correlation, ends
    layers = text[text.index('<details id="layers-table"') : text.index("</details>")]
    assert layers.count("<tr><th scope=") == 1 + 12  # its head, and the layers
    assert "Figures 1 to 5" not in text and "strictly above 0.1 MeV" in text
    for row in record["sets"][0]["rows"]:
        for name, cell in row["candidates"].items():
            found = re.findall(
                rf'data-observable="{row["observable"]}" data-candidate="{name}" data-emd="([^"]+)"',
                text,
            )
            assert [float(v) for v in found] == [cell["emd"]]


def test_groups_are_one_line_that_names_the_worst_layer(record) -> None:
    shown = list(lines(record["sets"][0]["rows"]))
    groups = [row for row in shown if isinstance(row, Group)]
    assert [g.name for g in groups] == ["e_layer", "hits_layer"] and len(shown) == 15
    words, kind = groups[0].cell("model")
    assert re.fullmatch(r"\d of 6 above, worst \d+× \(layer 4\)", words) and kind == "far"
    assert groups[0].cell("twin")[1] == "floor"
    table = markdown(record)
    assert "energies of layers (6 rows)" in table and "energy of layer" not in table
    told = summary(record)
    assert "model: distinguishable" in told
    assert len(table.splitlines()) == 2 + 15 + 2


def test_the_matrices_and_ratios_are_those_of_the_samples(samples, record) -> None:
    ref, ref2, cand = samples
    sets = drawn_sets(record, (ref, {"model": cand, "twin": ref2}, ref2))
    look = styles(["model", "twin"], None, "model")
    plates = {p.key: p for p in draw_shapes(sets, look, None, "model")}
    assert list(plates) == PLATES
    images = [im for ax in plates["correlations"].figure.axes for im in ax.get_images()]
    mine, its = (correlations(s.layers / s.incident_energy[:, None]) for s in (ref, cand))
    assert np.allclose(images[0].get_array(), mine) and np.allclose(images[1].get_array(), its)
    assert np.allclose(images[2].get_array(), its - mine)
    rows = {r["observable"]: r for r in record["sets"][0]["rows"]}
    twin = rows["correlation"]["candidates"]["twin"]
    words = f"twin {twin['emd_sample']:.3f} (corrected p {number(twin['p_adjusted'])})"
    assert words in plates["correlations"].caption
    line = plates["layers"].figure.axes[0].get_lines()[1]
    assert line.get_ydata()[4] == rows["e_layer_4"]["candidates"]["model"]["ratio"]


def test_without_a_floor_there_are_no_ratios(samples) -> None:
    """A spectrum of energies without a second sample; fails if a figure or table wants a floor."""
    energy = np.random.default_rng(0).uniform(1e4, 1e5, 60)
    ref, cand = (Shapes.of(stack_showers(60, s, energy)) for s in (1, 2))
    found = evaluate(ref, {"model": cand}, bootstraps=5, splits=20, classifiers=()).to_dict()
    sets = drawn_sets(found, (ref, {"model": cand}, None))
    plates = {p.key: p for p in draw_shapes(sets, styles(["model"], None, "model"), None, "model")}
    assert plates["layers"].figure is None and "no floor" in plates["layers"].caption
    assert "no floor, model 0." in plates["correlations"].caption
    group = next(row for row in lines(found["sets"][0]["rows"]) if isinstance(row, Group))
    assert group.cell("model") == ("–", "none") and group.cell("other") == ("–", "none")
    assert "model: no floor" in summary(found)


def test_panels_are_normalised_to_all_that_is_there(samples) -> None:
    ref, _, cand = samples
    panels = shape_panels(ref, mixed=False)

    def binned(name: str) -> list[Binned]:
        return panels[name].binned([ref, cand])

    for name in ("e_sum", "e_max", "hits", "centre_x", "width_z"):
        for b in binned(name):
            assert b.values.sum() + b.below + b.above == pytest.approx(1.0)
    depth, radius = binned("profile_z"), binned("profile_r")
    assert depth[0].values == pytest.approx(ref.layers.sum(axis=0) / ref.layers.sum())
    assert depth[1].values[4] == 0.0
    total = (radius[0].values * np.diff(radius[0].edges)).sum()
    assert 0.99 < total < 1 + 1e-9
    spectrum = binned("e_spec")[0]
    above = spectrum.edges[:-1] >= 1e-4 * (1 - 1e-9)
    assert spectrum.values[above].sum() == pytest.approx(ref.values["n_hit"].mean(), rel=1e-6)


@pytest.mark.parametrize("geometry", [BARREL, RINGS], ids=lambda g: g.name)
def test_other_geometries_have_figures_too(geometry) -> None:
    """Layers that differ, and one plane of rings, with a spectrum of energies and an empty shower."""
    ref, cand = (random_showers(geometry, 80, s) for s in (1, 2))
    cand = type(ref)(**{**vars(cand), "conditions": ref.conditions})
    full, model = Shapes.of(ref), Shapes.of(cand)
    found = evaluate(full, {"model": model}, model, bootstraps=10, splits=40, classifiers=())
    sets = drawn_sets(found.to_dict(), (full, {"model": model}, model))
    plates = {p.key: p for p in draw_shapes(sets, styles(["model"], None, "model"), None, "model")}
    assert {"profiles", "centres", "correlations"} <= plates.keys()
    assert ("layers" in plates) == (geometry is BARREL)
    assert all(p.figure is not None for p in plates.values())
    polygons = plates["display"].figure.axes[0].collections[0]
    assert not np.any(polygons._invalid_vertices)  # corners that nobody has written


def test_points_are_drawn_as_points() -> None:
    points = as_points(stack_showers(3, 1))
    plate = point_display({"a": points[0], "b": points[1]}, 0.1, "toy")
    (ax, _, _) = plate.figure.axes
    drawn = ax.collections[0]._offsets3d
    assert len(drawn[0]) > 0.98 * (points[0].energy > 0.1).sum()
    assert "toy" in plate.caption


def test_bands_are_for_one_plane(samples, record, tmp_path: Path) -> None:
    ref, ref2, cand = samples
    with pytest.raises(ConfigError, match="one plane"):
        write(
            record,
            ref,
            {"model": cand, "twin": ref2},
            ref2,
            tmp_path / "r",
            bands={"model": [cand]},
        )


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        get_command(app).main(args=[str(word) for word in words], prog_name="hepbridge")
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.mark.slow
def test_command_line_streams_cells_and_points_alike(tmp_path: Path, capsys) -> None:
    ref, cand = stack_showers(110, 1), stack_showers(110, 2)
    for name, showers in (("ref", ref), ("cand", cand)):
        io.save(showers, tmp_path / f"{name}.h5")
        save_points(as_points(showers), tmp_path / f"{name}-points.h5")
    found = []
    for kind in ("", "-points"):
        code, out, err = run(
            capsys,
            *("--json", "evaluate", "--ref", tmp_path / f"ref{kind}.h5", "--no-classifier"),
            *("--cand", f"model={tmp_path / f'cand{kind}.h5'}", "-o", tmp_path / f"report{kind}"),
            *("--threshold", "0.5"),
        )
        assert code == 0, err
        found.append({r["observable"]: r for r in json.loads(out)["sets"][0]["rows"]})
    assert found[0].keys() == found[1].keys()
    same = [n for n in found[0] if n != "profile_r"]  # rings of points are their own
    for name in same:
        # the corrected p is of all rows, and one of them differs
        first, second = (
            (f[name]["floor"], f[name]["candidates"]["model"]["emd"], f[name]["advice"])
            for f in found
        )
        assert first == second, name


@pytest.mark.slow
def test_command_line_takes_a_map_of_cells(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-50, 50, (2, 3, 40))
    with h5py.File(tmp_path / "map.h5", "w") as file:
        file["x_mm"], file["y_mm"], file["z_mm"] = x, y, [1.0, 11.0, 30.0]
    for name in ("ref", "cand"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["showers"] = rng.exponential(0.1, (120, 3, 40)) * (rng.random((120, 3, 40)) < 0.3)
            file["gen_info"] = np.tile([5.0, 2.0, 0.0], (120, 1))
    words = ["evaluate", "--ref", tmp_path / "ref.h5", "--cand", f"m={tmp_path / 'cand.h5'}"]
    code, _, err = run(capsys, *words, "-o", tmp_path / "none", "--no-classifier")
    assert code == 3 and "do not say where their cells are" in err and "Traceback" not in err
    code, out, err = run(
        capsys,
        *("--json", *words, "-o", tmp_path / "report", "--geometry", tmp_path / "map.h5"),
        "--no-classifier",
    )
    assert code == 0, err
    layout = json.loads(out)["layout"]
    assert layout["depths"] == [1.0, 11.0, 30.0] and layout["name"] == "map"
    assert (tmp_path / "report" / "figures" / "display.png").exists()


def test_options_that_have_no_meaning_are_refused(tmp_path: Path, capsys) -> None:
    io.save(stack_showers(110, 1), tmp_path / "deep.h5")
    plane = random_showers(type(BARREL)("p", (4, 4), ("x", "y"), (1.0, 1.0)), 110, 1)[:109]
    io.save(plane, tmp_path / "plane.h5")
    deep, flat = (
        ["evaluate", "--ref", f, "--cand", f"m={f}", "-o", tmp_path / "r", "--no-classifier"]
        for f in (tmp_path / "deep.h5", tmp_path / "plane.h5")
    )
    for words, message in (
        ([*deep, "--paper"], "one plane"),
        ([*flat, "--threshold", "1"], "thresholds of their own"),
        ([*deep, "--threshold", "-1"], "an energy ≥ 0"),
        ([*deep, "--geometry", "calogan"], "is asked for"),
        ([*deep, "--geometry", "no-such-detector"], "no-such-detector"),
        ([*deep, "--protocol", "calochallenge", "--geometry", "calogan"], "no meaning"),
    ):
        code, _, err = run(capsys, *words)
        assert code in (3, 5) and message in err and "Traceback" not in err, (words, err)
    assert not (tmp_path / "r").exists()


def test_points_without_energy_are_no_picture() -> None:
    nothing = PointShowers.from_hits(np.zeros((0, 4)), [0, 0], [1.0])
    with pytest.raises(ValueError, match="no hit lies above"):
        point_display({"a": nothing}, 0.1, "toy")
