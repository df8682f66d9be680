"""Outputs of an unfolding as inputs: what must not be unfolded again, or binned without replicas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from hepbridge.cli.app import app
from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.table_files import write_tables
from hepbridge.data.tables import Table
from hepbridge.deploy.unfolding import binned
from hepbridge.systems.unfolding.apply import reweight, unfold
from hepbridge.systems.unfolding.model_file import UnfoldingModel
from hepbridge.systems.unfolding.recipe import load_unfolding_recipe
from hepbridge.systems.unfolding.response import Response
from unfolding_toys import tables

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
