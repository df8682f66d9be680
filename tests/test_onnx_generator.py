"""Generators in ONNX: the showers of torch, in the order and the units of each host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onnx_generators as toys
from cpp_host import CPP, compiled, run
from hepbridge.cli import main
from hepbridge.core.errors import ConfigError, DataError, ModelFileError
from hepbridge.core.files import file_digest
from hepbridge.data.cells import CellLayer, PolarCells
from hepbridge.data.geometry import Geometry
from hepbridge.deploy.onnx.check import session_of
from hepbridge.deploy.onnx.contract import contract_of, contract_path
from hepbridge.deploy.onnx.generator import OnnxGenerator
from hepbridge.deploy.onnx.generator_check import generator_agreement
from hepbridge.deploy.onnx.generator_contract import read_generator_contract
from hepbridge.deploy.onnx.generator_export import export_generator, host_of
from hepbridge.deploy.onnx.refiner import OnnxRefiner
from hepbridge.deploy.onnx.targets import target_of
from hepbridge.systems.generation.model_file import GeneratorModel
from hepbridge.systems.model_file import load

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

GOAL = 1e-5  # of the energy of a shower
ANGLES = ["theta_rad", "phi_rad"]
DIFFUSION = {"sampler": "euler", "steps": 2, "sigma_max": 2.0}
FLOW = {"condition_on_source": False, "transforms": 1}
S = toys.stage


@pytest.fixture(scope="module")
def tilted() -> GeneratorModel:
    """Layers of other cells each, two students, with angles."""
    return toys.model(toys.LAYERS, S("distilled"), S("distilled"), conditions=ANGLES)


@pytest.fixture(scope="module")
def exported(tilted: GeneratorModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "tilted.onnx"
    export_generator(tilted, path)
    return path


@pytest.fixture(scope="module")
def mesh() -> GeneratorModel:
    return toys.model(toys.MESH, S("distilled"), conditions=["theta_rad"])


@pytest.fixture(scope="module")
def par04(mesh: GeneratorModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "par04.onnx"
    export_generator(mesh, path, target="par04")
    return path


def drawn(model: GeneratorModel, n: int, seed: int = 3) -> dict[str, Any]:
    """Inputs by name, inside the trained range."""
    rng = np.random.default_rng(seed)
    domain = model.domain
    given = {"incident_energy": rng.uniform(domain.energy_min, domain.energy_max, n)}
    given |= {name: rng.uniform(a, b, n) for name, (a, b) in domain.conditions.items()}
    given["noise"] = rng.standard_normal((n, model.generator.noise_dim))
    return {name: values.astype(np.float32) for name, values in given.items()}


def in_torch(model: GeneratorModel, given: dict[str, Any]) -> Any:
    """What the generator itself makes, without the form for a runtime or its check."""
    tensors = {name: torch.from_numpy(values) for name, values in given.items()}
    with torch.inference_mode():
        return model.generator.generate(tensors, tensors.pop("noise")).numpy()


def apart(found: Any, truth: Any) -> float:
    """The largest difference of a cell, over the energy of its shower."""
    return float((np.abs(found - truth) / truth.sum(axis=1, keepdims=True)).max())


# -- the numbers --------------------------------------------------------------------------------


EVERY: dict[str, Callable[[], GeneratorModel]] = {
    "networks": lambda: toys.model(
        toys.MESH,
        S("edm", **DIFFUSION, width=4, network="unet", network_options={"shape": [3, 4, 2]}),
        S(
            "flow_matching", steps=1, width=8, network="transformer",
            network_options={"layers": [1, 1, 1], "heads": 2},
        ),
        conditions=ANGLES, frame_options={"shares": True}, match_marginals=True,
    ),
    "splines": lambda: toys.model(
        toys.GRID, S("spline_flow", kind="coupling", **FLOW), S("spline_flow", **FLOW),
        frame="logit",
    ),
    "inverse": lambda: toys.model(
        toys.LAYERS,
        toys.student("inverse_flow", **FLOW),
        toys.student("consistency", sigma_max=2.0),
    ),
    "one step": lambda: toys.model(
        toys.LAYERS, S("bayesian_flow", kind="affine", **FLOW), frame="logit"
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_stage_agrees_with_torch(name: str, tmp_path: Path) -> None:
    """Random networks: cells within 1e-5 of the energy of their shower, sums as well.

    Not all showers: random networks send some cells into far tails, where a rounding of erf is much.
    """
    model = EVERY[name]()
    contract, found = export_generator(model, tmp_path / "m.onnx", target="ort-1.8")
    assert found.worst < 1e-4 and found.worst_sum < GOAL
    assert found.showers == 1038 and found.flips <= 2
    assert contract.agreement["worst"] == found.worst
    given = drawn(model, 200)
    cells, outside = OnnxGenerator(tmp_path / "m.onnx")(given)
    truth = in_torch(model, given)
    assert np.quantile(np.abs(cells - truth).max(axis=1) / truth.sum(axis=1), 0.99) < GOAL
    assert not outside.any()
    assert np.unique(cells.argmax(axis=1)).size > 1  # it is no constant


def test_conditions_count_as_the_end_of_their_range(tilted: GeneratorModel, exported: Path) -> None:
    """Shape and response of the nearest end, energies of the particle; flags. Fails without clamps,
    and if the energy that cells are scaled with is clamped as well."""
    domain = tilted.domain
    given = drawn(tilted, 40)
    inside = {name: values.copy() for name, values in given.items()}
    for k, (name, end, beyond) in enumerate(
        [
            ("incident_energy", domain.energy_max, 7 * domain.energy_max),
            ("incident_energy", domain.energy_min, domain.energy_min / 100),
            ("theta_rad", domain.conditions["theta_rad"][1], 1.5),
            ("theta_rad", domain.conditions["theta_rad"][0], 0.0),
        ]
    ):
        given[name][k::8], inside[name][k::8] = beyond, end
    given["phi_rad"][:20] += np.float32(6 * np.pi)  # three turns are nothing
    ratio = given["incident_energy"] / inside["incident_energy"]
    truth = in_torch(tilted, inside) * ratio[:, None]
    cells, outside = OnnxGenerator(exported)(given)
    assert apart(cells, truth) < GOAL
    assert np.array_equal(outside, np.arange(40) % 8 < 4)


def test_as_generate_does(tilted: GeneratorModel, exported: Path) -> None:
    """The same noise by event id, in more than one batch; conditions are kept."""
    n = 300
    given = drawn(tilted, n)
    del given["noise"]
    conditions = {name: v.astype(np.float64) for name, v in given.items()}
    ids = np.stack([np.full(n, 7), np.arange(n)[::-1]], axis=1).astype(np.uint64)
    found = OnnxGenerator(exported).generate(conditions, ids, seed=5)
    expected = tilted.generate(conditions, ids, seed=5)
    assert apart(found.cells, expected.cells) < GOAL
    assert np.array_equal(found.event_ids, expected.event_ids)
    assert found.meta == expected.meta
    assert np.array_equal(found.conditions["phi_rad"], conditions["phi_rad"])
    other = OnnxGenerator(exported).generate(conditions, ids, seed=6)
    assert (other.cells != found.cells).any(axis=1).all()


# -- Par04 --------------------------------------------------------------------------------------


def as_par04(noise: Any, energy_mev: float, theta: float) -> Any:
    """The vector that Par04 fills, entry by entry."""
    vector = [*noise, energy_mev / 1024000.0, theta * 180.0 / np.pi / 90.0, 0.0, 1.0]
    return np.array([vector], dtype=np.float32)


def test_par04_gets_shares_in_its_order(mesh: GeneratorModel, par04: Path) -> None:
    """One input, one output, one shower; index (r n_phi + phi) n_z + z, by a slow loop.

    Fails with our own order, and with r and phi exchanged.
    """
    session = session_of(par04, optimised=False)
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
        ("input", [1, mesh.generator.noise_dim + 4], "tensor(float)")
    ]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("cells", [1, 24])]
    given = drawn(mesh, 20)
    truth = in_torch(mesh, given)
    for k, noise in enumerate(given["noise"]):
        energy, theta = float(given["incident_energy"][k]), float(given["theta_rad"][k])
        (made,) = session.run(None, {"input": as_par04(noise, energy, theta)})
        for z in range(3):
            for phi in range(4):
                for r in range(2):
                    share = made[0, (r * 4 + phi) * 3 + z]
                    cell = truth[k, (z * 4 + phi) * 2 + r]
                    assert abs(share * energy - cell) < GOAL * truth[k].sum()


def test_par04_may_ask_for_any_energy(mesh: GeneratorModel, par04: Path) -> None:
    """Its trigger lets all pass: shares are those of the nearest trained energy."""
    session, domain = session_of(par04), mesh.domain
    noise = drawn(mesh, 1)["noise"][0]
    for beyond, end in ((1e9, domain.energy_max), (1e-2, domain.energy_min)):
        made, at_end = (
            session.run(None, {"input": as_par04(noise, e, 0.3)})[0] for e in (beyond, end)
        )
        assert np.abs(made - at_end).max() < GOAL * at_end.sum()
    for wrong in (0.0, -5.0):
        (made,) = session.run(None, {"input": as_par04(noise, wrong, 0.3)})
        assert np.isfinite(made).all() and (made >= 0).all()


def test_par04_is_told_what_it_must_know(mesh: GeneratorModel, par04: Path) -> None:
    contract = read_generator_contract(contract_path(par04))
    assert "Par04" in contract.host and contract.particle == "e-"
    assert contract.cell_order.startswith("row-major over (r 2 x phi 4 x z 3)")
    expected = {
        f"setSizeLatentVector {mesh.generator.noise_dim}", "setSizeConditionVector 4",
        "setModelPathName par04.onnx", "setModelType VAE", "setSizeOfRhoCells 5 mm",
        "setSizeOfZCells 3 mm", "setNbOfRhoCells 2", "setNbOfPhiCells 4", "setNbOfZCells 3",
    }  # fmt: skip
    assert expected <= {line.removeprefix("/Par04/inference/") for line in contract.settings}
    with pytest.raises(ConfigError, match=r"exported for Geant4 example Par04.*--target ort"):
        OnnxGenerator(par04)


def cylinder(radii: tuple[float, ...], depths: list[tuple[float, float]]) -> Geometry:
    return Geometry.of_layers(
        "odd", [CellLayer(PolarCells(r_mm=radii, n_phi=2), depth) for depth in depths]
    )


EVEN = [(0.0, 3.0), (3.0, 6.0)]


@pytest.mark.parametrize(
    ("target", "geometry", "message"),
    [
        ("par04", toys.LAYERS, r"cylinder of equal cells .*'toy-layers' has the axes cell"),
        ("par04", toys.GRID, "axes z, x, y"),
        ("par04", cylinder((0.0, 5.0, 12.0), EVEN), "rings of 5 to 7 mm"),
        ("par04", cylinder((0.0, 5.0), [(0.0, 3.0), (3.0, 9.0)]), "unequal thickness"),
        ("par04", cylinder((0.0, 5.0), [(0.0, 3.0), (4.0, 7.0)]), "room between"),
        ("ddml-grid", toys.LAYERS, "same grid of x and y in all layers"),
        ("ddml-grid", toys.MESH, "axes z, phi, r"),
        ("par05", toys.MESH, "unknown target 'par05'; did you mean 'par04'"),
    ],
)
def test_hosts_that_cannot_have_such_showers(
    target: str, geometry: Geometry, message: str, tmp_path: Path
) -> None:
    model = toys.model(geometry, None)
    with pytest.raises(ConfigError, match=message):
        export_generator(model, tmp_path / "m.onnx", target=target)
    assert not list(tmp_path.iterdir())


def test_hosts_that_do_not_know_a_condition(tmp_path: Path) -> None:
    model = toys.model(toys.MESH, S("distilled"), conditions=ANGLES)
    with pytest.raises(ConfigError, match=r"works with phi_rad too.*conditions=\[theta_rad\]"):
        export_generator(model, tmp_path / "m.onnx", target="par04")


# -- DDML ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ddml_gets_a_grid_in_gev(tmp_path: Path) -> None:
    """One (1, 4) vector in, all quadrants; noise of its own in every call, standard normal."""
    model = toys.model(toys.GRID, S("distilled"), conditions=ANGLES)
    contract, found = export_generator(model, tmp_path / "m.onnx", target="ddml-grid")
    assert found.worst < GOAL and "L2LFlowsModel" in contract.host
    assert contract.outputs[0].unit == "GeV" and "z 2 x x 3 x y 4" in contract.cell_order
    session = session_of(tmp_path / "m.onnx", optimised=False)
    assert [i.shape for i in session.get_inputs()] == [[1, 4]]
    given, noises = drawn(model, 60), []
    for k in range(60):
        theta, phi = given["theta_rad"][k], given["phi_rad"][k]
        vector = [
            given["incident_energy"][k] / 1000, np.sin(theta) * np.cos(phi),
            np.sin(theta) * np.sin(phi), np.cos(theta),
        ]  # fmt: skip
        cells, noise = session.run(None, {"input": np.array([vector], dtype=np.float32)})
        row = {name: values[k : k + 1] for name, values in given.items()}
        truth = in_torch(model, {**row, "noise": noise})
        assert apart(1000 * cells, truth) < GOAL
        noises.append(noise)
    z = np.ravel(noises)
    assert len(np.unique(z)) > 0.99 * len(z)
    assert abs(z.mean()) < 5 / len(z) ** 0.5
    assert abs(z.var() - 1) < 5 * (2 / len(z)) ** 0.5


# -- the contract and the checks ----------------------------------------------------------------


def test_contract_round_trip(tilted: GeneratorModel, exported: Path) -> None:
    contract = read_generator_contract(contract_path(exported))
    assert contract_path(exported).read_text(encoding="utf-8") == contract.text()
    assert contract.digest == file_digest(exported)
    assert contract.bytes == exported.stat().st_size
    width = 2 * 3 + 17 - 3  # normal numbers: layers, then cells
    assert [(t.name, t.shape, t.unit) for t in contract.inputs] == [
        ("incident_energy", ["rows"], "MeV"),
        ("theta_rad", ["rows"], "rad"),
        ("phi_rad", ["rows"], "rad"),
        ("noise", ["rows", width], "1"),
    ]
    assert [(t.name, t.shape) for t in contract.outputs] == [
        ("cells", ["rows", 17]),
        ("outside_domain", ["rows"]),
    ]
    energy, theta, _ = contract.validity
    assert (energy.min, energy.max) == (tilted.domain.energy_min, tilted.domain.energy_max)
    assert (theta.min, theta.max) == tilted.domain.conditions["theta_rad"]
    assert contract.network_evaluations == 2 and contract.host == ""
    assert contract.minimum_runtime == "ONNX Runtime 1.18"


def test_refiners_and_generators_are_told_apart(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is a generator: use OnnxGenerator"):
        OnnxRefiner(exported)
    refiner = contract_of(load("squirels-small"), target_of("ort"), 0, "r.onnx")
    (tmp_path / "r.json").write_text(refiner.text(), encoding="utf-8")
    with pytest.raises(ModelFileError, match="is a refiner: use OnnxRefiner"):
        OnnxGenerator(tmp_path / "r.onnx")
    (tmp_path / "m.onnx").write_bytes(exported.read_bytes() + b"\0")
    (tmp_path / "m.json").write_bytes(contract_path(exported).read_bytes())
    with pytest.raises(ModelFileError, match="not the file of its contract"):
        OnnxGenerator(tmp_path / "m.onnx")


def _swap_cells(model: Any) -> None:
    """Another cell order: the first two cells of the result change places."""
    order = onnx.numpy_helper.from_array(np.array([1, 0, *range(2, 17)]), "order")
    model.graph.initializer.append(order)
    last = next(n for n in model.graph.node if "cells" in n.output)
    last.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Gather", ["before", "order"], ["cells"], axis=1))


def _drop_clamps(model: Any) -> None:
    """No condition is clamped to its range."""
    for node in model.graph.node:
        if node.op_type == "Clip":
            del node.input[1:]


def _scaled(model: Any) -> None:
    """Cells in another unit."""
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array(1.002, np.float32), "unit")
    )
    last = next(n for n in model.graph.node if "cells" in n.output)
    last.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Mul", ["before", "unit"], ["cells"]))


def _lose_noise(model: Any) -> None:
    """Noise is ignored."""
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    for node in model.graph.node:
        for k, name in enumerate(node.input):
            if name == "noise":
                node.input[k] = "quiet"
    model.graph.node.insert(0, onnx.helper.make_node("Mul", ["noise", "zero"], ["quiet"]))


@pytest.mark.parametrize("fault", [_swap_cells, _drop_clamps, _lose_noise, _scaled])
def test_a_wrong_graph_is_found(
    fault: Callable[[Any], None], tilted: GeneratorModel, exported: Path, tmp_path: Path
) -> None:
    made = onnx.load(exported)
    fault(made)
    onnx.save(made, tmp_path / "m.onnx")
    contract = read_generator_contract(contract_path(exported))
    host = host_of(tilted, target_of("ort"), "m.onnx")
    # without clamps a table is read beyond its end, which the runtime itself refuses
    with pytest.raises(Exception, match=r"does not compute|out of data bounds"):
        generator_agreement(tilted, host, session_of(tmp_path / "m.onnx"), contract)


def test_a_failed_check_leaves_nothing(
    tilted: GeneratorModel, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hepbridge.deploy.onnx import generator_export as module

    wrong = onnx.load(exported)
    _swap_cells(wrong)
    monkeypatch.setattr(module, "_written", lambda *_: wrong)
    with pytest.raises(ModelFileError, match="does not compute"):
        export_generator(tilted, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_sofie_gets_only_what_it_knows(tilted: GeneratorModel, tmp_path: Path) -> None:
    """One shower per call, and listed operators alone."""
    export_generator(tilted, tmp_path / "m.onnx", target="sofie")
    made = onnx.load(tmp_path / "m.onnx")
    assert {n.op_type for n in made.graph.node} <= target_of("sofie").operators
    first = [v.type.tensor_type.shape.dim[0] for v in (*made.graph.input, *made.graph.output)]
    assert {axis.dim_value for axis in first} == {1}
    given = drawn(tilted, 1)
    cells, _ = OnnxGenerator(tmp_path / "m.onnx")(given)
    assert apart(cells, in_torch(tilted, given)) < GOAL
    with pytest.raises(DataError, match="exported for 1 shower"):
        OnnxGenerator(tmp_path / "m.onnx")(drawn(tilted, 2))


# -- bad input ----------------------------------------------------------------------------------


def test_a_flow_of_many_passes_names_its_student(tmp_path: Path) -> None:
    model = toys.model(toys.LAYERS, S("spline_flow", **{**FLOW, "transforms": 16}))
    assert model.generator.nfe == 20 * 17
    with pytest.raises(ConfigError, match=r"takes 340 network evaluations .*cells.*inverse_flow"):
        export_generator(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": None}, "the model takes incident_energy, theta_rad, phi_rad, noise"),
        ({"more": np.zeros(3, np.float32)}, "the model takes"),
        ({"noise": np.zeros((3, 19), np.float32)}, r"noise must be float32 of shape \(3, 20\)"),
        ({"theta_rad": np.zeros(2, np.float32)}, r"theta_rad must be .* \(3,\)"),
        ({"theta_rad": np.zeros(3)}, "theta_rad must be float32 .* float64"),
        ({"noise": np.full((3, 20), np.nan, np.float32)}, "noise holds .* infinite or no number"),
        ({"phi_rad": np.full(3, np.inf, np.float32)}, "phi_rad holds .* infinite or no number"),
        ({"incident_energy": np.float32([1e4, 0, 1e4])}, "holds values that are not positive"),
    ],
)
def test_wrong_arrays(
    change: dict[str, Any], message: str, tilted: GeneratorModel, exported: Path
) -> None:
    given = {k: v for k, v in {**drawn(tilted, 3), **change}.items() if v is not None}
    with pytest.raises(DataError, match=message):
        OnnxGenerator(exported)(given)


def test_conditions_and_ids_that_are_none(exported: Path) -> None:
    ids, given = np.zeros((3, 2), np.uint64), np.full(3, 1e4)
    known = {name: given for name in ("incident_energy", "theta_rad", "phi_rad")}
    for conditions, event_ids, message in (
        (given, ids, "must be a mapping of names"),
        ({**known, "phi_rad": given[:2]}, ids, "must have the same length N"),
        (known, ids[:, 0], r"integers >= 0 of shape \(3, 2\)"),
    ):
        with pytest.raises(DataError, match=message):
            OnnxGenerator(exported).generate(conditions, event_ids)


def test_a_missing_condition_is_named(exported: Path) -> None:
    ids = np.zeros((3, 2), np.uint64)
    with pytest.raises(DataError, match="needs the condition theta_rad"):
        OnnxGenerator(exported).generate({"incident_energy": np.full(3, 1e4)}, ids)


def test_on_the_command_line(
    mesh: GeneratorModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A generator's file by the same command, with what Par04 must be told, and with times."""
    from hepbridge.deploy.onnx import timing as onnx_timing

    monkeypatch.setattr(onnx_timing, "_SECONDS", 0.05)
    file = mesh.save(tmp_path / "mesh.safetensors")
    output = tmp_path / "m.onnx"
    words = ["export", str(file), "-o", str(output), "--target", "par04"]
    for more, code, said in (
        (["--member", "1"], 5, "a generator has no members"),
        (["--timing"], 0, "/Par04/inference/setNbOfZCells 3"),
        ([], 6, "pass --overwrite"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        out, err = capsys.readouterr()
        assert ended.value.code == code
        assert said in (err if code else out)
        if not code:
            assert "without its optimisations" in out and "agrees with torch" in out


# -- in C++ -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_host_in_cpp_generates_as_python(
    tilted: GeneratorModel, exported: Path, par04: Path, tmp_path: Path
) -> None:
    """The same library, the same bits; hostile numbers and the files of others are refused."""
    program = compiled(CPP / "generate.cpp", tmp_path)
    given = drawn(tilted, 50)
    given["incident_energy"][3] *= 100

    def ran(arrays: dict[str, Any], file: Path = exported, n: int = 50) -> Any:
        with open(tmp_path / "in.bin", "wb") as handle:
            np.array([n], "<i8").tofile(handle)
            for array in arrays.values():
                array.astype("<f4").tofile(handle)
        return run(program, file, tmp_path / "in.bin", tmp_path / "out.bin")

    done = ran(given)
    assert done.returncode == 0, done.stderr
    cells, outside = OnnxGenerator(exported)(given)
    assert np.array_equal(np.fromfile(tmp_path / "out.bin", "<f4").reshape(50, -1), cells)
    assert f"outside {outside.sum()}" in done.stdout and outside.sum() == 1
    for name, value, message in (
        ("incident_energy", np.nan, "incident_energy holds values that are negative, infinite"),
        ("incident_energy", 0.0, "incident_energy holds a zero"),
        ("theta_rad", np.inf, "theta_rad holds values that are infinite"),
        ("noise", np.nan, "noise holds values that are infinite or no number"),
    ):
        bad = {**given, name: given[name].copy()}
        bad[name].flat[-1] = value
        done = ran(bad)
        assert done.returncode == 1 and message in done.stderr
    for n in (51, 2**62):
        done = ran(given, n=n)
        assert done.returncode == 1 and f"too short for {n} showers" in done.stderr
    done = ran(given, par04)
    assert done.returncode == 1 and "was exported for Geant4 example Par04" in done.stderr
