"""Generators: steps from noise, showers of a known law, model files."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import generation_toys as toy
from hepbridge.core.errors import (
    ConfigError,
    DataError,
    DomainError,
    ModelFileError,
    OutputError,
    TrainingInterrupted,
)
from hepbridge.core.protocols import Pairs
from hepbridge.core.rng import event_normal, stream
from hepbridge.data.showers import Showers, row_ids
from hepbridge.networks.mlp import ResidualMLP
from hepbridge.systems.generation import draw
from hepbridge.systems.generation.draw import draw_cells, generate
from hepbridge.systems.generation.generator import Generator, GeneratorConfig
from hepbridge.systems.generation.model_file import GeneratorModel, is_generator, load_generator
from hepbridge.systems.generation.noise_stage import NoiseStage, StageConfig
from hepbridge.systems.generation.recipe import load_generation_recipe
from hepbridge.systems.generation.train import train_generator
from hepbridge.systems.model_file import load, locate
from hepbridge.systems.recipe import RecipeTraining
from hepbridge.systems.train import train
from hepbridge.systems.unfolding.model_file import load_unfolding
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports import TRANSPORTS

# overrides of recipe calo-cfm-teacher: networks of 16 columns, tables of a few knots
SMALL = {"width": 16, "depth": 1, "steps": 2, "windows": 1, "window": 32, "train_steps": 12}
TINY = [
    *(f"model.{step}.options.{k}={v}" for step in ("layers", "cells") for k, v in SMALL.items()),
    "model.frame_options.knots=9",
    "model.frame_options.nodes=3",
    "model.symmetry=declared",
    "training.checkpoint_every=4",
]


def flow(**options: Any) -> StageConfig:
    return StageConfig(transport="flow_matching", options={**SMALL, **options})


@pytest.fixture(scope="module")
def showers() -> Showers:
    return toy.truth(400)


@pytest.fixture(scope="module")
def trained(
    showers: Showers, tmp_path_factory: pytest.TempPathFactory
) -> tuple[GeneratorModel, Path]:
    path = tmp_path_factory.mktemp("generator") / "g.safetensors"
    return train_generator(
        showers, recipe="calo-cfm-teacher", overrides=TINY, output=path, device="cpu"
    ), path


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return list(one) == list(other) and all(torch.equal(one[k], other[k]) for k in one)


# -- steps from noise ---------------------------------------------------------------------------


def targets(n: int, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Correlated normal numbers around a line in the condition."""
    rng = stream(seed, "targets")
    c = rng.uniform(-1, 1, n)
    z = rng.multivariate_normal([0.0, 0.0], [[1.0, 0.6], [0.6, 0.7]], n)
    x = z + np.stack([0.8 * c, -0.5 * c], axis=1)
    return torch.from_numpy(x).float(), {"c": torch.from_numpy(c[:, None]).float()}


def stage(name: str, options: dict[str, Any], n: int, steps: int | None = None) -> NoiseStage:
    """A trained step; ``steps`` in all phases together in place of those of the transport."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = NoiseStage(2, {"c": 1}, StageConfig(transport=name, options=options), {})
    x, c = targets(n)
    phases = made.phases("step", x, c, 0, order="c")
    training = RecipeTraining(steps=steps)
    phases = training.replanned(phases, made.planned_steps)
    fit(phases, training.settings(), seed=0, device="cpu")
    return made.eval()


@pytest.mark.parametrize("name", sorted(TRANSPORTS))
def test_every_transport_can_start_at_noise(name: str) -> None:
    """It trains, draws (N, dim) finite numbers, each from its own noise alone."""
    made = stage(name, {}, 600, steps=6)
    noise = torch.from_numpy(stream(1, "noise").standard_normal((64, made.noise_dim))).float()
    c = {"c": torch.linspace(-1, 1, 64)[:, None]}
    with torch.no_grad():
        out = made.draw(c, noise)
        assert out.shape == (64, 2) and out.isfinite().all()
        assert torch.equal(out, made.draw(c, noise))
        other = noise.clone()
        other[5] = -other[5]
        changed = made.draw(c, other)
    assert not torch.allclose(changed[5], out[5], atol=1e-3)
    assert torch.allclose(changed[6:], out[6:], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("spline_flow", "bayesian_flow", "inverse_flow", "diffusion")),
        *((name, {}) for name in ("edm", "consistency")),
        ("distilled", {"teacher": "edm"}),
        ("distilled", {"teacher": "spline_flow"}),
    ],
)
def test_a_step_that_needs_no_source_gets_none(name: str, options: dict[str, Any]) -> None:
    """Whether the option is its own, its base class's or its teacher's. Fails if noise is drawn twice."""
    made = NoiseStage(2, {"c": 1}, StageConfig(transport=name, options=options), {})
    assert made.source_free and made.noise_dim == made.transport.noise_dim == 2


LEARNED: dict[str, dict[str, Any]] = {
    "flow_matching": {"width": 64, "depth": 2, "train_steps": 800, "window": 64, "windows": 4},
    "spline_flow": {"train_steps": 500, "transforms": 2, "width": 32, "batch_size": 256},
    "distilled": {
        "teacher_options": {
            "width": 64,
            "depth": 2,
            "train_steps": 800,
            "window": 64,
            "windows": 4,
        },
        "width": 64,
        "depth": 2,
        "images": 4,
        "train_steps": 800,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_a_step_draws_its_targets(name: str) -> None:
    """Mean against the condition, spread and correlation within 5 standard errors and 0.05."""
    made = stage(name, LEARNED[name], 8000)
    n = 20_000
    noise = torch.from_numpy(stream(1, "noise").standard_normal((n, made.noise_dim))).float()
    c = np.random.default_rng(2).uniform(-1, 1, n)
    with torch.no_grad():
        out = made.draw({"c": torch.from_numpy(c[:, None]).float()}, noise).double().numpy()
    rest = out - np.stack([0.8 * c, -0.5 * c], axis=1)
    tolerance = 0.05 + 5 / np.sqrt(8000)
    assert np.abs(rest.mean(axis=0)).max() < tolerance
    assert np.abs(np.cov(rest.T) - [[1.0, 0.6], [0.6, 0.7]]).max() < tolerance * np.sqrt(2)
    assert np.abs((rest * c[:, None]).mean(axis=0)).max() < tolerance


def test_a_step_says_what_is_wrong_with_its_transport() -> None:
    with pytest.raises(ConfigError, match="unknown transport 'magic'"):
        NoiseStage(2, {}, StageConfig(transport="magic"), {})
    with pytest.raises(ConfigError, match=r"options of transport 'flow_matching'|'wide'"):
        NoiseStage(2, {}, StageConfig(transport="flow_matching", options={"wide": 3}), {})
    with pytest.raises(ConfigError, match="width"):
        NoiseStage(2, {}, StageConfig(transport="flow_matching", options={"width": -3}), {})


# -- showers of a known law ---------------------------------------------------------------------


def moments(found: Showers, reference: Showers, slack: float) -> None:
    """Layers (in units of their width) and rings of cells within 5 standard errors plus ``slack``."""
    made = toy.layers(found)
    s = toy.scaled(found.incident_energy)
    error = 5 * np.sqrt(1 / len(found) + 1 / len(reference)) + slack
    for k in range(3):
        hit = np.isfinite(made[:, k])
        rest = (made[hit, k] - toy.MEAN[k] - toy.SLOPE[k] * s[hit]) / toy.WIDTH[k]
        assert abs(rest.mean()) < error, k
        assert abs(rest.std() - 1) < error, k
        assert abs((rest * s[hit]).mean() / (s[hit] ** 2).mean()) < 2 * error, k
    holes = (reference.cells == 0).any()
    empty, gap = np.isneginf(made[:, 2]).mean(), (found.cells[:, :16][:, ~toy.CORE] == 0).mean()
    for fraction, wanted in ((empty, toy.EMPTY), (gap, toy.GAP)):
        wanted *= holes
        assert abs(fraction - wanted) <= error * np.sqrt(wanted * (1 - wanted))
    for cells in (np.flatnonzero(toy.CORE), np.flatnonzero(~toy.CORE), np.arange(16, 20)):
        share = [x.cells[:, cells] / x.incident_energy[:, None] for x in (found, reference)]
        spread = share[1].std()
        assert abs(share[0].mean() - share[1].mean()) < error * spread
        assert abs(share[0].std() - spread) < 2 * error * spread


def correlation(showers: Showers) -> float:
    """Of the residuals of the last two layers, where both are hit."""
    y = (toy.layers(showers) - toy.MEAN - toy.SLOPE * toy.scaled(showers.incident_energy)[:, None])[
        :, 1:
    ]
    return float(np.corrcoef(y[np.isfinite(y[:, 1])].T)[0, 1])


def again(model: GeneratorModel, showers: Showers, seed: int = 0) -> Showers:
    return generate(model, showers.conditions, showers.event_ids, seed=seed)


def test_without_networks_every_coordinate_is_right_by_itself() -> None:
    """Moments of layers and cells, zeros and slopes; and no correlation, which the law has."""
    reference = toy.truth(4000)
    model = toy.marginal_model(reference)
    found = again(model, toy.truth(4000, seed=1))
    # 4000 showers fix a window of the tables to 400 / 9 of them: half their error in excess
    moments(found, reference, slack=0.05)
    assert abs(correlation(found)) < 5 / np.sqrt(0.8 * 4000)
    assert correlation(reference) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("frame", ["quantile", "logit"])
def test_two_steps_learn_the_law(frame: str) -> None:
    """Moments, and the correlation between layers, that a generator without networks lacks."""
    # noise in empty layers is a second peak of the logits, far from the first: minutes of training
    holes = frame == "quantile"
    reference = toy.truth(6000, holes=holes)
    options = {"width": 64, "depth": 2, "steps": 8, "windows": 2, "window": 128}
    config = GeneratorConfig(
        layers=flow(**options, train_steps=1000),
        cells=flow(**options, train_steps=800),
        frame=frame,
        frame_options={"shares": True, **toy.TABLES} if frame == "quantile" else {},
        reference=toy.REFERENCE,
        symmetry="declared",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(config, toy.TOY)
    generator.fit(reference, 0)
    fit(generator.phases(reference, 0), TrainingSettings(), seed=0, device="cpu")
    model = replace(toy.marginal_model(reference), generator=generator.eval())
    found = again(model, toy.truth(6000, seed=1, holes=holes))
    moments(found, reference, slack=0.15)
    assert abs(correlation(found) - toy.RHO) < 0.1
    apart = [(found.cells[:, k] > 0).mean() for k in (5, 6, 9, 10)]
    assert max(apart) - min(apart) < 0.02


def test_a_condition_moves_what_it_moves(showers: Showers) -> None:
    """With the condition ``tilt`` a step of two networks sees it; without, it is not needed."""
    tilted = toy.truth(400, tilted=True)
    config = GeneratorConfig(
        layers=flow(), cells=flow(), reference=1, symmetry="none", conditions=["tilt"],
        frame_options=toy.TABLES,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(config, toy.TOY)
    generator.fit(tilted, 0)
    fit(generator.phases(tilted, 0), TrainingSettings(), seed=0, device="cpu")
    model = replace(toy.marginal_model(tilted, conditions=["tilt"]), generator=generator.eval())
    given = {name: np.array(values) for name, values in tilted.conditions.items()}
    first = draw_cells(model, given, tilted.event_ids)
    given["tilt"] = -given["tilt"]
    assert not np.allclose(draw_cells(model, given, tilted.event_ids), first, rtol=1e-3)
    del given["tilt"]
    with pytest.raises(DataError, match="needs the condition tilt of every shower; given are inc"):
        generate(model, given)


def test_what_is_beyond_the_training_is_flagged_or_refused(showers: Showers, caplog) -> None:
    model = toy.marginal_model(showers)
    energy = np.array([20e3, 200e3, 50e3])
    found = generate(model, {"incident_energy": energy})
    assert found.columns["outside_domain"].tolist() == [False, True, False]
    assert "1 of 3 showers have incident energies outside the trained range" in caplog.text
    assert "they are generated and flagged" in caplog.text
    with pytest.raises(DomainError, match="row 1, 200 GeV"):
        generate(model, {"incident_energy": energy}, strict=True)
    assert generate(model, {"incident_energy": energy[:1]}).columns == {}


def test_azimuths_are_compared_on_the_circle(showers: Showers) -> None:
    model = toy.marginal_model(showers)
    model.domain.conditions["phi_rad"] = (0.0, 2 * np.pi)
    config = model.recipe.model.model_copy(update={"conditions": ["theta_rad", "phi_rad"]})
    model.domain.conditions["theta_rad"] = (0.0, 0.2)
    model.recipe = model.recipe.model_copy(update={"model": config})
    given = {"incident_energy": np.full(2, 20e3), "phi_rad": np.array([-1.0, 9.0])}
    found = generate(model, {**given, "theta_rad": np.array([0.1, 0.3])}, row_ids(1, 0, 2))
    assert found.columns["outside_domain"].tolist() == [False, True]


# -- how it is built ----------------------------------------------------------------------------


def test_a_shower_depends_on_its_own_row_alone(trained, monkeypatch) -> None:
    """Any other number of rows around it, any order, any place in a tile: the same bits."""
    model, _ = trained
    energy, ids = np.linspace(12e3, 90e3, 600), row_ids(7, 0, 600)
    whole = draw_cells(model, {"incident_energy": energy}, ids)
    for rows in (
        slice(0, 1),
        slice(17, 18),
        slice(255, 258),
        slice(100, 599),
        slice(None, None, -1),
    ):
        part = draw_cells(model, {"incident_energy": energy[rows]}, ids[rows])
        assert np.array_equal(part, whole[rows])
    monkeypatch.setattr(draw, "_ROWS", 256)  # noise in three parts
    assert np.array_equal(draw_cells(model, {"incident_energy": energy}, ids), whole)
    assert not np.array_equal(
        whole[0], draw_cells(model, {"incident_energy": energy}, ids, seed=1)[0]
    )


def test_networks_see_whole_tiles_of_one_thread_only(trained, monkeypatch) -> None:
    """Products of other shapes may differ in the last bit, so none is ever computed."""
    model, seen = trained[0], list[tuple[int, int]]()
    original = model.generator.generate

    def watched(conditions: Any, noise: torch.Tensor) -> torch.Tensor:
        seen.append((len(noise), torch.get_num_threads()))
        return original(conditions, noise)

    monkeypatch.setattr(model.generator, "generate", watched)
    energy, ids, threads = np.full(300, 20e3), row_ids(7, 0, 300), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for n in (1, 255, 256, 300):
            draw_cells(model, {"incident_energy": energy[:n]}, ids[:n])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert seen == [(256, 1)] * 5


def test_showers_are_what_the_formula_says(trained) -> None:
    """Steps one after the other, by hand: noise split, layers first, cells given those, the frame."""
    model, _ = trained
    generator, energy, ids = model.generator, torch.tensor([20e3, 70e3]).double(), row_ids(3, 0, 2)
    noise = torch.from_numpy(event_normal(0, "generate", ids, generator.noise_dim)).float()
    c = {"incident_energy": (((energy.log() - generator.mean) / generator.std).float())[:, None]}
    assert generator.noise_dim == 3 + 24
    with torch.no_grad():
        layers = generator.layers.transport.apply(noise[:, :3], c, noise[:, :0])
        both = {**c, "layers": layers}
        cells = generator.cells.transport.apply(noise[:, 3:], both, noise[:, :0])
        expected = generator.frame.inverse(
            layers, cells, energy.float(), c["incident_energy"].reshape(-1)
        )
    found = draw_cells(model, {"incident_energy": energy.numpy()}, ids)
    assert np.allclose(found, expected.numpy(), rtol=1e-3, atol=1e-3)


def test_images_of_cells_are_those_of_the_geometry(showers: Showers, monkeypatch) -> None:
    """What the transports are told of the symmetry, with one step and with two."""
    seen: dict[int, Pairs] = {}

    def phases(self, pairs, seed):
        seen[pairs.dim] = pairs
        yield from ()

    monkeypatch.setattr(TRANSPORTS["flow_matching"], "phases", phases)
    common = {"reference": 1, "frame_options": toy.TABLES, "symmetry": "declared"}
    images = torch.from_numpy(toy.TOY.permutations())
    for steps in ({"layers": flow(), "cells": flow()}, {"cells": flow()}):
        generator = Generator(GeneratorConfig(**steps, **common), toy.TOY)
        generator.fit(showers, 0)
        assert list(generator.phases(showers, 0)) == []
    layers, cells, both = seen[3], seen[24], seen[27]
    assert layers.symmetries is None and torch.equal(cells.symmetries, images)
    assert torch.equal(both.symmetries[:, 3:] - 3, images)
    assert (both.symmetries[:, :3] == torch.arange(3)).all()
    assert torch.equal(torch.cat([layers.target, cells.target], dim=1), both.target)
    assert torch.equal(cells.conditions["layers"], layers.target)
    assert layers.from_noise and both.from_noise and "layers" not in both.conditions
    turned = cells.target[:, images[3]]
    assert torch.allclose(turned.mean(dim=0), cells.target.mean(dim=0), atol=0.3)


def test_shapes_follow_from_the_configuration(trained) -> None:
    """A fresh generator of the same configuration takes the state of a trained one."""
    model, _ = trained
    fresh = Generator(model.recipe.model, model.geometry)
    fresh.load_state_dict(model.generator.state_dict())
    assert same(fresh, model.generator)


def test_names_and_shapes_of_frames_stay(showers: Showers) -> None:
    """What model files of this version hold. Fails if a change would make them unreadable."""
    tables = {"groups": [24], "table": [9, 5, 31], "atom": [9, 5], "range": [2]}
    of_layers = {"groups": [3], "table": [9, 3, 31], "atom": [9, 3], "range": [2]}
    named = {"mean": [], "std": [], "named.mean": [0], "named.scale": [0]}
    expected = dict(named)
    expected |= {f"frame.of_layers.{k}": v for k, v in of_layers.items()}
    expected |= {f"frame.of_cells.{k}": v for k, v in tables.items()}
    state = toy.marginal_model(showers).generator.state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == expected
    logit = Generator(
        GeneratorConfig(frame="logit", reference=1, symmetry="declared"), toy.TOY
    ).state_dict()
    expected = {"frame.response": [], "frame.mean": [27], "frame.std": [27], **named}
    assert {k: list(v.shape) for k, v in logit.items()} == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": flow()}, "layers without cells"),
        ({"frame": "logit", "match_marginals": True}, "match_marginals needs frame quantile"),
    ],
)
def test_configurations_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeneratorConfig(**change)


@pytest.mark.parametrize("step", ["layers", "cells"])
def test_wrong_keys_of_a_step_are_explained(step: str) -> None:
    """Although a step may be null."""
    with pytest.raises(ConfigError, match=rf"model.{step}.nmae: .*allowed here: transport, opt"):
        load_generation_recipe("calo-cfm", None, [f"model.{step}.nmae=foo"])


def test_configurations_that_cannot_be_built() -> None:
    with pytest.raises(ConfigError, match="must be resolved on data first"):
        Generator(GeneratorConfig(), toy.TOY)
    with pytest.raises(ConfigError, match=r"model.reference 5: there are only 3 layers"):
        Generator(GeneratorConfig(reference=5, symmetry="none"), toy.TOY)
    with pytest.raises(ConfigError, match=r"model.frame_options for frame 'logit'.*knots"):
        config = {"frame": "logit", "frame_options": {"knots": 3}}
        Generator(GeneratorConfig(reference=0, symmetry="none", **config), toy.TOY)


def test_what_is_automatic_is_decided_on_the_data(showers: Showers) -> None:
    tilted = toy.truth(400, tilted=True)
    found = GeneratorConfig(conditions="auto").resolved(tilted)
    assert found.conditions == ["tilt"] and found.reference == 1 and found.symmetry == "declared"
    lopsided = toy.truth(400)
    lopsided.cells[:, 5] *= 3
    assert GeneratorConfig().resolved(lopsided).symmetry == "none"


# -- training -----------------------------------------------------------------------------------


def test_training_leaves_a_model_and_its_figures(trained, showers: Showers) -> None:
    model, path = trained
    assert set(model.metrics["distance"]) == {"generated", "quantile"} == set(model.metrics["auc"])
    assert model.metrics["n"] == 40 and model.provenance["training_showers"] == 360
    energy = showers.incident_energy
    assert (model.domain.energy_min, model.domain.energy_max) == (energy.min(), energy.max())
    assert model.domain.particle == "e-"
    assert sorted(p.name for p in path.parent.iterdir() if "checkpoint" in p.name) == []


def test_a_finished_generator_is_not_trained_again(trained, showers: Showers) -> None:
    model, path = trained
    before = path.stat().st_mtime_ns
    found = train_generator(
        showers, recipe="calo-cfm-teacher", overrides=TINY, output=path, device="cpu"
    )
    assert same(found.generator, model.generator) and path.stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="exists already"):
        train_generator(showers, recipe="calo-cfm-teacher", overrides=TINY, output=path, seed=1)


@pytest.mark.parametrize("at", [5, 17])  # in the first step, in the second
def test_resumed_training_is_bitwise_the_same(
    trained, showers: Showers, tmp_path: Path, monkeypatch, at: int
) -> None:
    calls: list[int] = []
    original = ResidualMLP.forward

    def counted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGTERM)
        return original(*args)

    monkeypatch.setattr(ResidualMLP, "forward", counted)
    how = {"recipe": "calo-cfm-teacher", "overrides": TINY, "device": "cpu"}
    output = tmp_path / "cut.safetensors"
    with pytest.raises(TrainingInterrupted, match="--resume"):
        train_generator(showers, output=output, **how)
    assert not output.exists()
    cut = train_generator(showers, output=output, resume=True, **how)
    assert same(cut.generator, trained[0].generator)
    assert cut.metrics == trained[0].metrics


COARSE = ["model.frame_options.knots=9", "model.frame_options.nodes=3", "model.conditions=[]"]
STUDENT = [
    *(
        f"model.{step}.options.{k}=8"
        for step in ("layers", "cells")
        for k in ("width", "train_steps")
    ),
    *(f"model.{step}.options.images=1" for step in ("layers", "cells")),
    "model.frame_options.knots=9",
    "model.frame_options.nodes=3",
]


def test_a_student_learns_from_a_trained_teacher(trained, showers: Showers) -> None:
    """It takes over the frame to the bit, trains no teacher, and needs one evaluation for each step."""
    teacher, _ = trained
    student = train_generator(
        showers, recipe="calo-cfm", overrides=STUDENT, teacher=teacher, device="cpu"
    )
    assert student.generator.nfe == 2 < teacher.generator.nfe
    assert same(student.generator.frame.of_cells, teacher.generator.frame.of_cells)
    assert student.generator.planned_steps == 16
    assert not any("teacher" in name for name, _ in student.generator.named_parameters())
    with pytest.raises(ConfigError, match="the teacher's frame is quantile"):
        train_generator(
            showers, recipe="calo-cfm", overrides=[*STUDENT, "model.frame_options.nodes=4"],
            teacher=teacher,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [("calo-cfm-teacher", "flow_matching, flow_matching"), ("marginals", "it has no network")],
)
def test_a_teacher_without_a_student_is_refused(
    trained, showers: Showers, recipe: str, steps: str
) -> None:
    """Fails if the teacher is copied without a word."""
    with pytest.raises(ConfigError, match=f"a teacher needs a student: .*: {steps}"):
        train_generator(showers, recipe=recipe, teacher=trained[0], device="cpu")


def test_a_stage_of_the_same_kind_is_taken_over(trained, showers: Showers) -> None:
    teacher, _ = trained
    chosen = load_generation_recipe("calo-cfm-teacher", None, TINY)
    options = {"width": 8, "train_steps": 4, "images": 1}
    config = chosen.model.model_copy(
        update={"cells": StageConfig(transport="distilled", options=options)}
    )
    student = train_generator(
        showers, recipe=chosen.model_copy(update={"model": config}), teacher=teacher, device="cpu"
    )
    assert same(student.generator.layers, teacher.generator.layers)
    assert student.generator.layers.planned_steps == 0
    other = config.model_copy(update={"layers": flow(width=24)})
    with pytest.raises(ConfigError, match="cannot learn from the teacher's"):
        train_generator(
            showers,
            recipe=chosen.model_copy(update={"model": other}),
            teacher=teacher,
            device="cpu",
        )


def test_showers_that_no_generator_can_learn(showers: Showers) -> None:
    weighted = replace(showers, weights=np.ones(len(showers)))
    with pytest.raises(DataError, match="the showers have weights, which a generator cannot learn"):
        train_generator(weighted, overrides=TINY)
    with pytest.raises(DataError, match="too few to train on"):
        train_generator(showers[:40], recipe="calo-cfm-teacher", overrides=TINY)
    with pytest.raises(DataError, match="full must be Showers, got ndarray"):
        train_generator(showers.cells)
    gev = showers.with_cells(showers.cells / 1000)
    with pytest.raises(DataError, match="the full showers"):
        train_generator(gev, recipe="calo-cfm-teacher", overrides=TINY)


def test_a_condition_that_is_left_out_is_told(caplog) -> None:
    tilted = toy.truth(200, tilted=True)
    left = [*TINY, "model.conditions=[]", "training.steps=2"]
    train_generator(tilted, recipe="calo-cfm-teacher", overrides=left, device="cpu")
    assert "the showers vary in tilt, and the generator will know nothing of it" in caplog.text


def test_showers_that_contradict_their_own_file_are_learned(showers: Showers) -> None:
    """The comparison at the end asks for nothing that the model does not know."""
    odd = replace(
        showers,
        conditions={**showers.conditions, "theta_rad": np.linspace(0, 0.1, len(showers))},
        meta={**showers.meta, "theta_deg": "fixed:0"},
    )
    model = train_generator(odd, recipe="marginals", overrides=COARSE, device="cpu")
    assert model.metrics["n"] == 40


def test_a_training_without_steps_leaves_the_model_only(showers: Showers, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    train_generator(showers, recipe="marginals", overrides=COARSE, output=path, device="cpu")
    assert list(tmp_path.iterdir()) == [path]


def test_missing_conditions_are_those_of_the_full_showers(showers: Showers) -> None:
    """A generator has no fast ones."""
    with pytest.raises(DataError, match="the full showers have no condition theta; they have inc"):
        train_generator(showers, recipe="marginals", overrides=["model.conditions=[theta]"])


def test_recipes_of_another_kind_say_where_they_belong(showers: Showers) -> None:
    words = r"'{}' is a recipe of {}: .*{} {} "
    for recipe, whose, command in (
        ("squirels", "refiners", r"hepbridge\.train \(hepbridge train"),
        ("omnifold", "unfoldings", "hepbridge unfold train"),
    ):
        with pytest.raises(ConfigError, match=words.format(recipe, whose, command, recipe)):
            train_generator(showers, recipe=recipe)
    with pytest.raises(ConfigError, match=words.format(
        "caloinn", "generators", r"hepbridge\.train_generator \(hepbridge train", "caloinn"
    )):  # fmt: skip
        train(showers, showers, recipe="caloinn")
    with pytest.raises(ConfigError, match="unknown recipe 'calo'; available: calo-cfm, "):
        train_generator(showers, recipe="calo")


# -- what is asked for --------------------------------------------------------------------------

THREE = {"incident_energy": np.full(3, 5e4)}


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (np.full(3, 5e4), "must be a mapping of names to arrays .* got ndarray"),
        ({}, "needs the condition incident_energy of every shower; given are none"),
        ({**THREE, "age": np.ones(2)}, "the same length N, .*; got 3 of incident_energy, 2 of age"),
        ({"incident_energy": np.ones((3, 2))}, r"of shape \(N,\); got shape \(3, 2\)"),
        ({"incident_energy": ["a", "b"]}, "'incident_energy' must be numbers, got dtype <U1"),
        ({"incident_energy": []}, "the conditions are empty"),
        ({"incident_energy": np.full(3, -5e3)}, "must be positive; row 0 is -5000 MeV"),
        ({**THREE, "age": np.array([1, np.nan, 1])}, "age must be finite; row 1 is nan"),
    ],
)
def test_conditions_that_are_none(conditions: Any, message: str, trained, caplog) -> None:
    """Refused before anything is drawn, or said of it."""
    with pytest.raises(DataError, match=message):
        trained[0].generate(conditions)
    assert "outside the trained range" not in caplog.text


@pytest.mark.parametrize(
    "ids",
    [np.arange(3), np.zeros((2, 2), int), np.zeros((3, 2)), [[0, -1]] * 3, [[0, 1], [2]], "ab"],
)
def test_event_ids_that_are_none(ids: Any, trained) -> None:
    with pytest.raises(DataError, match=r"event ids (must be integers >= 0 of|are no arr)"):
        trained[0].generate(THREE, ids)


def test_event_ids_may_be_any_integers(trained) -> None:
    ids = np.array([[7, 0], [7, 1], [7, 5]])
    plain = trained[0].generate(THREE, ids.astype(np.uint64))
    assert np.array_equal(trained[0].generate(THREE, ids.tolist()).cells, plain.cells)


def granted(showers: Showers, particle: str = "e+", **full: object) -> GeneratorModel:
    """A model that works with the energy alone, whose training files say more."""
    model = toy.marginal_model(showers)
    model.domain = replace(model.domain, particle=particle, full=full)
    return model


@pytest.mark.parametrize(
    ("further", "error", "message"),
    [
        ({"pdg_id": 22}, ModelFileError, r"for particle 'e\+', not for gamma; use a model for"),
        ({"pdg_id": 99}, ModelFileError, "not for pdg_id 99"),
        ({"theta_rad": np.radians(10)}, ConfigError,
         r"nothing of theta_rad: it was trained with theta_deg fixed:5, and the conditions have "
         r"theta_rad 0.174533 \(row 0\); ask for that, or train"),
        ({"phi_rad": 1.7}, ConfigError, "trained with phi_deg uniform:0-90, and the conditions"),
        ({"x_mm": 1.0}, ConfigError, "trained with x_mm uniform:-0.5-0.5, and the conditions"),
    ],
)  # fmt: skip
def test_what_the_model_takes_for_granted_cannot_be_asked_for(
    showers: Showers, further, error, message: str
) -> None:
    model = granted(showers, theta_deg="fixed:5", phi_deg="uniform:0-90", x_mm="uniform:-0.5-0.5")
    with pytest.raises(error, match=message):
        model.generate({**THREE, **{name: np.full(3, value) for name, value in further.items()}})


def test_conditions_of_the_training_are_kept(showers: Showers) -> None:
    """So are others of which the training files say nothing, or in a language of their own."""
    model = granted(showers, theta_deg="fixed:5", phi_deg="uniform:0-90", x_mm=0.0)
    given = {"pdg_id": -11.0, "theta_rad": np.float32(np.radians(5)), "phi_rad": 1.0 - 2 * np.pi,
             "x_mm": 8.0, "y_mm": 9.0, "age": 1.0}  # fmt: skip
    found = model.generate({**THREE, **{name: np.full(3, value) for name, value in given.items()}})
    assert found.conditions.keys() == {"incident_energy", *given}
    straight = granted(showers, theta_deg="fixed:0", phi_deg="fixed:0")  # which has no azimuth
    assert len(straight.generate({**THREE, "phi_rad": np.ones(3)})) == 3
    assert len(granted(showers, "unknown").generate({**THREE, "pdg_id": np.full(3, 22)})) == 3


def test_particles_that_are_not_told_apart_come_together(showers: Showers) -> None:
    model = granted(showers, "e-,gamma")
    with pytest.raises(ConfigError, match="knows nothing of pdg_id, so it cannot make gamma alone"):
        model.generate({**THREE, "pdg_id": np.full(3, 22)})
    assert len(model.generate({**THREE, "pdg_id": np.array([11, 22, 11])})) == 3


# -- model files --------------------------------------------------------------------------------


def test_a_model_file_comes_back(trained, tmp_path: Path) -> None:
    model, path = trained
    found = load_generator(path)
    assert is_generator(path) and same(found.generator, model.generator)
    assert found.describe() == model.describe() and found.digest() == model.digest()
    energy = {"incident_energy": np.array([20e3, 70e3])}
    assert np.array_equal(found.generate(energy).cells, model.generate(energy).cells)
    again = load_generator(found.save(tmp_path / "again.safetensors"))
    assert again.describe() == model.describe() and again.digest() == model.digest()


def hostile(path: Path, out: Path, **changes: Any) -> Path:
    """The file with another header and a digest that fits, as an attacker would write it."""
    from hepbridge.training.tensor_file import content_digest

    with safe_open(path, framework="pt") as handle:
        record = json.loads(handle.metadata()["hepbridge-generator"])
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118  # no iterable
    text = json.dumps({**record, **changes})
    save_file(
        tensors,
        out,
        metadata={"hepbridge-generator": text, "digest": content_digest(tensors, text)},
    )
    return out


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": 3},
        {"recipe": {"model": {"cells": {"transport": "flow_matching", "options": {"width": 1e9}}}}},
        {"recipe": {"model": {"reference": 1, "symmetry": "none"}}},
        {"recipe": {"model": {"frame": "pickle"}}},
        {"geometry": {"name": "x", "shape": [10**9], "axes": ["x"], "pitch_mm": [1.0]}},
        {"domain": {"incident_energy_mev": [2.0, 1.0], "particle": "", "fast": {}, "full": {}}},
        {"provenance": 3},
        {"metrics": [1]},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_hostile_header_is_a_damaged_generator(trained, tmp_path: Path, changes) -> None:
    with pytest.raises(ModelFileError, match="the model is damaged"):
        load_generator(hostile(trained[1], tmp_path / "g.safetensors", **changes))


def test_damaged_files_are_refused(trained, tmp_path: Path) -> None:
    content, path = bytearray(trained[1].read_bytes()), tmp_path / "g.safetensors"
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0x10
    for damage, message in (
        (flipped, "does not match its digest"),
        (content[: len(content) // 2], "not a readable generator of hepbridge"),
        (b"", "not a readable generator"),
    ):
        path.write_bytes(damage)
        with pytest.raises(ModelFileError, match=message):
            load_generator(path)
    with pytest.raises(ModelFileError, match="format version 99"):
        load_generator(hostile(trained[1], path, format_version=99))
    with pytest.raises(ModelFileError, match="there is no model file"):
        load_generator(tmp_path / "none.safetensors")


def test_weights_that_are_no_numbers_are_refused(trained, tmp_path: Path) -> None:
    model = load_generator(trained[1])
    model.generator.mean.fill_(float("nan"))
    path = model.save(tmp_path / "nan.safetensors")
    with pytest.raises(ModelFileError, match="hold NaN or infinity"):
        load_generator(path)


def test_models_of_other_kinds_say_where_they_belong(trained) -> None:
    with pytest.raises(ModelFileError, match=r"is a generator, .* hepbridge generate"):
        load(str(trained[1]))
    for name in (locate("squirels-small"), "squirels-small"):
        with pytest.raises(ModelFileError, match=r"is a refiner, .* hepbridge refine"):
            load_generator(name)
    with pytest.raises(ModelFileError, match="is a generator"):
        load_unfolding(trained[1])
