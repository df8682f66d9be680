"""Unfolding against closed forms: posterior, unfolded density, acceptance, prior, background."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hepbridge.core.errors import ConfigError, DataError, ModelFileError
from hepbridge.core.protocols import Phase
from hepbridge.data.tables import Table
from hepbridge.networks.mlp import ResidualMLP
from hepbridge.systems.recipe import RecipeTraining
from hepbridge.systems.unfolding.apply import posterior as draw
from hepbridge.systems.unfolding.apply import reweight, unfold, unfolded_column
from hepbridge.systems.unfolding.data import Data
from hepbridge.systems.unfolding.model_file import UnfoldingModel, load_unfolding
from hepbridge.systems.unfolding.response import Response
from hepbridge.systems.unfolding.train import train_unfolding
from hepbridge.systems.unfolding.unfolder import Unfolder
from hepbridge.transforms.event_frame import EventFrame
from unfolding_toys import posterior, richardson_lucy, tables

N = 20_000
BRIDGE = ["options.steps=10", "options.width=64", "options.depth=2", "options.train_steps=1500"]
FAST = [f"{kind}.train_steps=400" for kind in ("classifier", "acceptance")]


def _response(seed: int = 1, **options: object) -> Response:
    return Response.from_tables(tables(N, seed, **options))  # type: ignore[arg-type]


def _data(response: Response, events: dict[str, Table]) -> Data:
    return Data.from_table(events["detector"], response.observables)


@pytest.fixture(scope="module")
def bridge() -> UnfoldingModel:
    return train_unfolding(_response(), recipe="sbunfold-teacher", overrides=[*BRIDGE, *FAST])


@pytest.mark.slow
def test_posteriors_are_those_of_bayes(bridge: UnfoldingModel) -> None:
    """Mean and width at each y, against N(y / 1.25, 0.447); fails without conditioning on y."""
    events = tables(2_000, 2)
    data = Data.from_table(events["detector"], bridge.observables)
    draws = draw(bridge, data, seed=1, samples=100)[:, :, 0]
    mean, width = posterior(data.seen[:, 0], 0.0, 1.0)
    inner = np.abs(data.seen[:, 0]) < 2
    off = (draws.mean(axis=0) - mean)[inner]
    assert off.std() < 0.08 * width + width / 10  # of 100 draws: width / 10
    assert np.mean(draws[:, inner].std(axis=0)) == pytest.approx(width, rel=0.05)
    ranks = (draws < events["particle"].column("x")).mean(axis=0)
    for level in (0.6827, 0.95):
        inside = (np.abs(ranks - 0.5) < level / 2).mean()
        assert inside == pytest.approx(level, abs=3 * (level * (1 - level) / 2_000) ** 0.5 + 0.01)


@pytest.mark.slow
def test_closure(bridge: UnfoldingModel) -> None:
    """Unfolded events of the response's own kind are distributed as their truth."""
    events = tables(N, 3)
    found = unfold(bridge, events["detector"], seed=2)
    x = found.column("unfolded_x")
    assert abs(x.mean()) < 4 * (2 / N) ** 0.5 + 0.01
    assert x.std() == pytest.approx(1.0, abs=0.03)
    assert found.column("x") is not None  # the user's own columns are kept
    assert found.weights is not None and found.weights.sum() == pytest.approx(N)


@pytest.mark.slow
def test_iteration_is_that_of_richardson_and_lucy(bridge: UnfoldingModel) -> None:
    """A wrong prior, step by step, against the exact iteration on a grid.

    Fails if the draws are not chosen anew (the mean stays at that of iteration 0).
    """
    prior, truth = (0.0, 1.0), (0.7, 0.8)
    response, events = _response(), tables(N, 4, mean=0.7, width=0.8)
    data = _data(response, events)
    found = {}
    model = train_unfolding(
        response,
        data,
        recipe="sbunfold-teacher",
        overrides=[*BRIDGE, *FAST, "iterations=4"],
        start=bridge,
    )
    for iterations, one in ((0, bridge), (4, model)):
        x = unfold(one, events["detector"], seed=1).column("unfolded_x")
        mean, width = richardson_lucy(prior, truth, iterations)
        found[iterations] = x.mean()
        assert x.mean() == pytest.approx(mean, abs=0.025), iterations
        assert x.std() == pytest.approx(width, abs=0.04), iterations
    assert abs(found[4] - 0.7) < 0.25 * abs(found[0] - 0.7)
    weighted = reweight(model, tables(N, 5)["particle"], seed=0)
    assert weighted.weights is not None
    total = weighted.weights.sum()
    assert total == pytest.approx(N, rel=0.03)
    mean, _ = richardson_lucy(prior, truth, 3)  # the weights are those of the prior of the draws
    assert (weighted.column("x") * weighted.weights).sum() / total == pytest.approx(mean, abs=0.05)


@pytest.mark.slow
def test_misses_and_fakes_are_corrected_for() -> None:
    """Total and shape; without the weights both are wrong, which the test asks, too."""
    options = {"efficiency": True, "fakes": 0.15}
    response = _response(6, **options)
    assert response.describe()["misses"] > 0 < response.describe()["fakes"]
    model = train_unfolding(response, recipe="sbunfold-teacher", overrides=[*BRIDGE, *FAST])
    events = tables(N, 7, **options)  # type: ignore[arg-type]
    found = unfold(model, events["detector"], seed=1)
    assert found.weights is not None
    true = events["particle"][events["particle"].flag("pass")].column("x")
    error = (np.square(found.weights).sum()) ** 0.5
    assert found.weights.sum() == pytest.approx(len(true), abs=4 * error)
    assert abs(len(found) - len(true)) > 10 * error  # what is corrected is not small
    x = found.column("unfolded_x")
    mean = (x * found.weights).sum() / found.weights.sum()
    assert mean == pytest.approx(true.mean(), abs=0.05)
    assert abs(x.mean() - true.mean()) > 0.15


@pytest.mark.slow
def test_background_is_taken_away(bridge: UnfoldingModel) -> None:
    """A fifth of background at y = 2: with it subtracted the mean is that of the signal."""
    rng = np.random.default_rng(8)
    signal = tables(N, 9)["detector"].column("x")
    taken, expected = (rng.normal(2.0, 0.3, N // 5) for _ in range(2))
    mixed = Table.from_columns({"x": np.concatenate([signal, taken])}, {"x": "GeV"})
    background = Table.from_columns({"x": expected}, {"x": "GeV"})
    found = unfold(bridge, mixed, seed=1, background=background)
    assert found.weights is not None
    assert found.weights.sum() == pytest.approx(N, rel=0.03)
    x = found.column("unfolded_x")
    assert abs((x * found.weights).sum() / found.weights.sum()) < 0.05
    assert x.mean() > 0.2


@pytest.mark.slow
def test_weights_of_the_response_count() -> None:
    """Weights that move the prior: the posterior is that of the weighted prior."""
    events = tables(N, 10)
    x = events["particle"].column("x")
    weights = np.exp(0.5 * x)  # N(0, 1) becomes N(0.5, 1)
    heavy = {name: replace(table, weights=weights) for name, table in events.items()}
    model = train_unfolding(
        Response.from_tables(heavy), recipe="sbunfold-teacher", overrides=[*BRIDGE, *FAST]
    )
    data = Data.from_table(tables(2_000, 11)["detector"], model.observables)
    draws = draw(model, data, seed=1, samples=20)[:, :, 0]
    mean, _ = posterior(data.seen[:, 0], 0.5, 1.0)
    inner = np.abs(data.seen[:, 0]) < 1.5
    assert (draws.mean(axis=0) - mean)[inner].mean() == pytest.approx(0.0, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["sbunfold", "cinn", "fpcd", "sbunfold-paper"])
def test_every_recipe_unfolds(recipe: str, tmp_path: Path) -> None:
    """Trained briefly, saved, loaded: the same draws, and moments near the truth."""
    steps = {
        "sbunfold": [
            "options.teacher_options.train_steps=1500",
            "options.train_steps=1500",
            "options.width=64",
            "options.depth=2",
            "options.teacher_options.width=64",
            "options.teacher_options.depth=2",
        ],
        "sbunfold-paper": ["options.train_steps=1500", "options.steps=30", "options.beta_max=1.0"],
    }.get(recipe, ["options.train_steps=800"])
    file = tmp_path / "m.safetensors"
    model = train_unfolding(_response(), recipe=recipe, overrides=[*steps, *FAST], output=file)
    events = tables(3_000, 12)
    found = unfold(model, events["detector"], seed=3)
    again = unfold(load_unfolding(file), events["detector"], seed=3)
    np.testing.assert_array_equal(found.column("unfolded_x"), again.column("unfolded_x"))
    other = unfold(model, events["detector"], seed=4)
    assert (other.column("unfolded_x") != found.column("unfolded_x")).mean() > 0.9
    assert found.column("unfolded_x").mean() == pytest.approx(0.0, abs=0.12)
    assert found.column("unfolded_x").std() == pytest.approx(1.0, abs=0.15)


@pytest.mark.slow
def test_omnifold_is_stored_as_weights(tmp_path: Path) -> None:
    response, events = _response(), tables(N, 13, mean=0.4)
    file = tmp_path / "m.safetensors"
    train_unfolding(
        response,
        _data(response, events),
        recipe="omnifold",
        overrides=[*FAST, "iterations=3"],
        output=file,
    )
    model = load_unfolding(file)
    found = reweight(model, tables(N, 14)["particle"], seed=0, replicas=2)
    assert found.weights is not None
    mean, _ = richardson_lucy((0.0, 1.0), (0.4, 1.0), 2)
    total = found.weights.sum()
    assert total == pytest.approx(N, rel=0.03)
    assert (found.column("x") * found.weights).sum() / total == pytest.approx(mean, abs=0.05)
    assert set(np.unique(found.column("replica_1"))) <= set(range(12))
    with pytest.raises(ConfigError, match="answers with weights"):
        unfold(model, events["detector"], seed=0)


@pytest.mark.slow
def test_draws_do_not_depend_on_what_stands_beside(bridge: UnfoldingModel) -> None:
    events = tables(500, 15)["detector"]
    whole = unfold(bridge, events, seed=1, samples=2)
    part = unfold(bridge, events[100:], seed=1, samples=2)
    for k in range(2):
        name = unfolded_column("x", k, 2)
        np.testing.assert_allclose(whole.column(name)[100:], part.column(name), rtol=1e-5)


def test_rows_must_belong_together() -> None:
    made = tables(1_000, 1)
    with pytest.raises(DataError, match="1000 events at particle level and 900"):
        Response.from_tables({**made, "detector": made["detector"][:900]})
    with pytest.raises(DataError, match="row 0 of the response is event"):
        Response.from_tables({**made, "detector": made["detector"][::-1]})
    with pytest.raises(DataError, match="has no table 'detector'; it has: particle"):
        Response.from_tables({"particle": made["particle"]})


def test_columns_units_and_weights_are_checked() -> None:
    made = tables(1_000, 1)
    response = Response.from_tables(made)
    with pytest.raises(DataError, match="there is no column 'y'; the table has: x"):
        Response.from_tables(made, ["y"])
    with pytest.raises(ConfigError, match="'x' is given twice"):
        Response.from_tables(made, ["x", "x"])
    wrong = Table.from_columns({"x": 1000 * made["detector"].column("x")}, {"x": "GeV"})
    with pytest.raises(DataError, match=r"other units \(MeV against GeV\)"):
        train_unfolding(response, Data.from_table(wrong, response.observables), recipe="omnifold")
    right = Table.from_columns({"x": 1000 * made["detector"].column("x")}, {"x": "MeV"})
    np.testing.assert_allclose(
        Data.from_table(right, response.observables).seen[:, 0], made["detector"].column("x")
    )
    no_energy = Table.from_columns({"x": made["detector"].column("x")}, {"x": "rad"})
    with pytest.raises(DataError, match="cannot be had in 'GeV'"):
        Data.from_table(no_energy, response.observables)
    apart = {
        name: replace(table, weights=np.full(1_000, k + 1.0))
        for k, (name, table) in enumerate(made.items())
    }
    with pytest.raises(DataError, match="differ between the levels"):
        Response.from_tables(apart)
    nothing = {name: replace(table, weights=np.zeros(1_000)) for name, table in made.items()}
    with pytest.raises(DataError, match="must be positive in sum"):
        Response.from_tables(nothing)
    negative = np.where(np.arange(1_000) % 5, 1.0, -0.5)
    mixed = {name: replace(table, weights=negative) for name, table in made.items()}
    with pytest.raises(DataError, match="200 pairs of the response have negative weights"):
        train_unfolding(Response.from_tables(mixed), recipe="cinn")


def test_too_much_background_is_refused() -> None:
    made = tables(1_000, 1)
    response = Response.from_tables(made)
    data = _data(response, made)
    with pytest.raises(DataError, match="nothing is left to unfold"):
        data.less(replace(data, weights=2 * data.weights))


def test_data_beyond_the_response_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    response = _response()
    far = tables(1_000, 2, mean=3.0)["detector"]
    frame = EventFrame(1)
    frame.fit(response.seen, ["x"])
    share = Data.from_table(far, response.observables).support(frame, response.observables)
    assert 0.05 < share["outside"] == share["outside_by_column"]["x"] < 0.9
    assert "lie outside of the response" in caplog.text


def test_models_refuse_what_is_none(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(b"not a model")
    with pytest.raises(ModelFileError, match="not a readable model"):
        load_unfolding(file)
    with pytest.raises(ModelFileError, match="there is no model file"):
        load_unfolding(tmp_path / "none.safetensors")


def test_the_recipe_changes_steps_and_learning_rate() -> None:
    training = RecipeTraining(steps=30, learning_rate=0.02)
    plan = [_phase(steps=100, learning_rate=1e-3), _phase(steps=20, learning_rate=1e-4)]
    found = list(training.replanned(plan, 120))
    assert [phase.steps for phase in found] == [25, 5]
    assert [phase.learning_rate for phase in found] == [0.02, 0.02]
    same = list(RecipeTraining().replanned(plan, 120))
    assert [(p.steps, p.learning_rate) for p in same] == [(100, 1e-3), (20, 1e-4)]


def _phase(steps: int, learning_rate: float) -> Phase:
    module = torch.nn.Linear(1, 1)
    return Phase(
        "a", module, lambda step, rng: None, lambda m, b: m.bias.sum(), steps, learning_rate
    )


def test_a_checkpoint_belongs_to_its_response(tmp_path: Path) -> None:
    """Of other events it is refused, though the recipe is the same."""
    output, short = tmp_path / "m.safetensors", ["training.steps=20", "training.checkpoint_every=5"]

    def trained(seed: int) -> UnfoldingModel:
        return train_unfolding(
            _response(seed, efficiency=True),
            recipe="cinn",
            overrides=[*short, "acceptance.train_steps=20"],
            output=output,
            resume=True,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Unfolder, "finish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            trained(1)
    assert (tmp_path / "m.safetensors.checkpoint").exists()
    with pytest.raises(ConfigError, match="belongs to another training: its fingerprint"):
        trained(2)
    trained(1)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_the_seed_decides_all_weights() -> None:
    """Whatever torch drew before; fails if networks are made outside of the seed."""
    made = []
    for other in (1, 2):
        torch.manual_seed(other)
        short = ["training.steps=4", "acceptance.train_steps=4"]
        model = train_unfolding(
            _response(3, efficiency=True), recipe="cinn", overrides=short, seed=5
        )
        made.append([t for part in model.parts().values() for t in part.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


def test_efficiencies_are_resumed_too(tmp_path: Path) -> None:
    """Interrupted in their training: the checkpoint is kept, and the answer is that of one go."""
    steps = ["training.steps=4", "acceptance.train_steps=40"]
    steps += ["classifier_training.checkpoint_every=5", "classifier_training.validate_every=10"]
    response = _response(1, efficiency=True)
    output = tmp_path / "m.safetensors"
    whole = train_unfolding(response, recipe="cinn", overrides=steps)
    count = 0

    def stop(self: ResidualMLP, *inputs: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == 30:
            raise KeyboardInterrupt
        return forward(self, *inputs)

    forward = ResidualMLP.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Unfolder, "finish", lambda *_: patch.setattr(ResidualMLP, "forward", stop))
        with pytest.raises(KeyboardInterrupt):
            train_unfolding(response, recipe="cinn", overrides=steps, output=output)
    assert (tmp_path / "m.safetensors.acceptance.checkpoint").exists()
    again = train_unfolding(response, recipe="cinn", overrides=steps, output=output, resume=True)
    assert whole.acceptance is not None and again.acceptance is not None
    pairs = zip(
        whole.acceptance.state_dict().values(), again.acceptance.state_dict().values(), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_reweighting_needs_data() -> None:
    with pytest.raises(ConfigError, match="trained on data"):
        train_unfolding(_response(), recipe="omnifold")
    with pytest.raises(ConfigError, match="2 iterations need the data"):
        train_unfolding(_response(), recipe="cinn", overrides=["iterations=2"])
    with pytest.raises(ConfigError, match="has no option 'stepps'; did you mean 'steps'"):
        train_unfolding(_response(), recipe="fpcd", overrides=["options.stepps=2"])
