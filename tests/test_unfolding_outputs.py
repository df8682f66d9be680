"""Outputs of an unfolding as inputs: what must not be unfolded again, or binned without replicas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from hepbridge.cli.app import app
from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.table_files import write_tables
from hepbridge.data.tables import Table
from hepbridge.deploy.unfolding import binned
from hepbridge.systems.unfolding import apply
from hepbridge.systems.unfolding.apply import (
    ITERATED_KEY,
    reweight,
    unfold,
    unfolded_column,
    weight_column,
)
from hepbridge.systems.unfolding.bootstrap import poisson_weights
from hepbridge.systems.unfolding.data import Data
from hepbridge.systems.unfolding.model_file import UnfoldingModel
from hepbridge.systems.unfolding.recipe import load_unfolding_recipe
from hepbridge.systems.unfolding.response import Response
from unfolding_toys import efficient, posterior, tables

SIMULATED = tables(1_000, 1)
EDGES = np.linspace(-3.0, 3.0, 7)


def untrained(recipe: str) -> UnfoldingModel:
    """It fits nothing, but does all that is done to tables."""
    response = Response.from_tables(SIMULATED)
    chosen = load_unfolding_recipe(recipe)
    model = UnfoldingModel.empty(chosen, response.observables, spectrum=recipe == "omnifold")
    model.true.fit(response.true, ["x"])
    model.seen.fit(response.seen, ["x"])
    return model


@pytest.fixture(scope="module")
def weighted() -> Table:
    return reweight(untrained("omnifold"), SIMULATED["particle"], seed=0, replicas=3)


@pytest.fixture(scope="module")
def unfolded() -> Table:
    return unfold(untrained("cinn"), SIMULATED["detector"], seed=0)


def test_outputs_are_not_unfolded_again(weighted: Table, unfolded: Table) -> None:
    """Fails if the second unfolding corrects weights and columns of the first."""
    message = "columns that unfolding adds: unfolded_x; give the table as it was before"
    with pytest.raises(DataError, match=message):
        unfold(untrained("cinn"), unfolded, seed=0)
    with pytest.raises(DataError, match="adds: unfolded_x;"):
        reweight(untrained("omnifold"), unfolded, seed=0)
    message = "adds: replica_0, replica_1, replica_2; give"
    for replicas in (0, 3):
        with pytest.raises(DataError, match=message):
            reweight(untrained("omnifold"), weighted, seed=0, replicas=replicas)
        with pytest.raises(DataError, match=message):
            unfold(untrained("cinn"), weighted, seed=0, replicas=replicas)


def test_other_names_are_the_users(unfolded: Table) -> None:
    """Columns that only look alike are kept."""
    numbers = np.arange(1_000.0)
    own = {"x": unfolded.column("x"), "replica_group": numbers, "is_unfolded_x": numbers}
    table = Table.from_columns(own, {"x": "GeV", "replica_group": "1", "is_unfolded_x": "1"})
    assert set(own) < set(unfold(untrained("cinn"), table, seed=0).columns)


@pytest.mark.parametrize("columns", [True, False])
def test_weighted_simulation_has_no_poisson_error(
    tmp_path: Path, weighted: Table, columns: bool
) -> None:
    """Its own columns of Poisson numbers change nothing: they are those of the simulation."""
    if not columns:
        weighted = reweight(untrained("omnifold"), SIMULATED["particle"], seed=0)
    message = (
        r"statistical error is missing: .* --bootstrap K, several K\), apply each .* --replica"
    )
    with pytest.raises(ConfigError, match=message):
        binned(weighted, tmp_path / "hep", bins={"x": "-3:3:6"})
    assert not (tmp_path / "hep").exists()


def test_unfolded_events_have_one(tmp_path: Path, unfolded: Table) -> None:
    """Of normalised bins the multinomial one, p (1 − p) / N, within that of 200 replicas (5 %)."""
    binned(unfolded, tmp_path / "hep", bins={"x": "-3:3:6"}, kind="normalised")
    found = np.sqrt(np.diag(_covariance(tmp_path / "hep")))
    share = np.histogram(unfolded.column("unfolded_x"), EDGES)[0] / len(unfolded)
    known = np.sqrt(share * (1 - share) / len(unfolded))
    assert np.allclose(found[share > 0], known[share > 0], rtol=5 * 0.05)


def test_replicas_of_the_data_are_its_error(tmp_path: Path, weighted: Table) -> None:
    """On the command line, from files: refused without, and the covariance of the replicas with."""
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{k}.h5" for k in range(4)]
    assert weighted.weights is not None
    spectra = []
    for file in files:
        weights = weighted.weights * rng.uniform(0.5, 1.5, len(weighted))
        x = weighted.column("x")
        table = Table.from_columns({"x": x}, {"x": "GeV"}, weights=weights)
        write_tables({"unfolded": table}, file)
        spectra.append(np.histogram(x, EDGES, weights=weights)[0])
    words = ["unfold", "bin", str(files[0]), "-o", str(tmp_path / "hep")]
    words += ["--bins", "x=-3:3:6", "--kind", "events"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 5 and "statistical error is missing" in done.stderr
    for file in files[1:]:
        words += ["--replica", str(file)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert np.allclose(_covariance(tmp_path / "hep"), np.cov(spectra[1:], rowvar=False), rtol=1e-6)


def _covariance(folder: Path) -> np.ndarray:
    text = (folder / "x_covariance.yaml").read_text("utf-8")
    values = yaml.safe_load(text)["dependent_variables"][0]["values"]
    return np.array([v["value"] for v in values]).reshape(6, 6)


# -- efficiencies -------------------------------------------------------------------------------


def seen_posterior(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws of p(x | y, seen) ∝ p(x | y) ε(x), exactly: by rejection."""
    mean, width = posterior(y, 0.0, 1.0)
    x = np.full(len(y), np.nan)
    while (left := np.isnan(x)).any():
        new = rng.normal(mean, width)
        x = np.where(left & (rng.random(len(y)) < efficient(new)), new, x)
    return x


@pytest.mark.parametrize("samples", [1, 20])
def test_every_draw_has_its_own_efficiency(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exact posteriors and the exact efficiency, total and mean are those of the truth.

    Fails if an event's draws share 1 / (mean efficiency): then 20 draws give 6 % too few events.
    """
    n, rng = 40_000, np.random.default_rng(5)
    events = tables(n, 3, efficiency=True)
    model = untrained("cinn")

    def exact(model: UnfoldingModel, data: Data, *, seed: int, samples: int) -> np.ndarray:
        return np.stack([seen_posterior(data.seen[:, 0], rng) for _ in range(samples)])[:, :, None]

    def efficiency(features: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(efficient(model.true.inverse(features)[:, 0]))

    monkeypatch.setattr(apply, "posterior", exact)
    model.acceptance = SimpleNamespace(  # type: ignore[assignment]  # (only what is called)
        efficient=efficiency, pure=lambda y: torch.ones(len(y), dtype=torch.float64)
    )
    found = unfold(model, events["detector"], seed=0, samples=samples)
    x = np.stack([found.column(unfolded_column("x", k, samples)) for k in range(samples)])
    assert found.weights is not None
    if samples == 1:
        each = found.weights[None]
        assert weight_column(0) not in found.columns
    else:
        each = np.stack([found.column(weight_column(k)) for k in range(samples)])
    assert found.weights == pytest.approx(each.mean(axis=0))
    error = np.sqrt(np.square(found.weights).sum())
    assert found.weights.sum() == pytest.approx(n, abs=4 * error)
    mean = (each * x).sum() / each.sum()
    assert mean == pytest.approx(0.0, abs=4 * np.sqrt((each.mean(0) ** 2).sum()) / n)
    shared = 1.0 / np.mean(efficient(x), axis=0)
    assert samples == 1 or shared.sum() < n - 5 * error


def test_a_model_of_a_replica_has_its_weights() -> None:
    """Fails if the measured events count once each, whatever replica the model is of."""
    model = untrained("cinn")
    plain = unfold(model, SIMULATED["detector"], seed=0)
    model.summary["data"] = {"replica": [3, 11]}
    found = unfold(model, SIMULATED["detector"], seed=0)
    assert plain.weights is not None and found.weights is not None
    expected = plain.weights * poisson_weights(11, 3, plain.event_ids)
    assert np.array_equal(found.weights, expected)
    assert 0.3 < (found.weights == 0).mean() < 0.44  # e^-1


# -- events that cannot be of the response -------------------------------------------------------


def test_units_and_undefined_values_are_noticed() -> None:
    model, table = untrained("cinn"), SIMULATED["detector"]
    mev = Table.from_columns({"x": 1000 * table.column("x")}, {"x": "GeV"})
    with pytest.raises(DataError, match=r"'x' has median size .* GeV, the response 0\.\d+; is one"):
        unfold(model, mev, seed=0)
    some = np.where(np.arange(1_000) < 7, np.nan, table.column("x"))
    gaps = Table.from_columns({"x": some}, {"x": "GeV"}, defined={"x": np.isfinite(some)})
    with pytest.raises(
        DataError, match=r"'x' is undefined \(NaN\) in 7 of 1000 events; in the res"
    ):
        unfold(model, gaps, seed=0)
    with pytest.raises(DataError, match=r"'x' has median size .* at particle level and"):
        Response.from_tables({"particle": SIMULATED["particle"], "detector": _like(mev)})
    declared = Table.from_columns({"x": 1000 * table.column("x")}, {"x": "MeV"})
    assert len(unfold(model, declared, seed=0)) == 1_000


def _like(table: Table) -> Table:
    return replace(table, event_ids=SIMULATED["detector"].event_ids)


def test_bins_of_an_iterated_model_want_replicas(
    unfolded: Table, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    binned(unfolded, tmp_path / "once")
    assert "errors are too small" not in caplog.text
    iterated = replace(unfolded, meta={**unfolded.meta, ITERATED_KEY: 4})
    binned(iterated, tmp_path / "iterated")
    assert "errors are too small" in caplog.text
