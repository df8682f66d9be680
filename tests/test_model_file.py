"""Model files: what is written is read, and old files load for ever."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open

from hepbridge.core.errors import ConfigError, ModelFileError, OutputError
from hepbridge.data import sample
from hepbridge.systems.generation.model_file import load_generator
from hepbridge.systems.model_file import FORMAT_VERSION, Model, load, locate, read_header
from hepbridge.systems.recipe import load_recipe
from hepbridge.systems.unfolding.model_file import load_unfolding

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("model-v*.safetensors"))


def test_every_format_version_has_a_golden_file() -> None:
    assert [p.stem for p in FILES] == [f"model-v{k}" for k in range(1, FORMAT_VERSION + 1)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_golden_files_load_and_refine_as_they_did(path: Path) -> None:
    """Relative 1e-3: that far the way in which tables are looked up may be off. The sum is closer."""
    found = load(path).refine(sample.load("gflash", 50)[:20]).cells
    truth = np.load(path.with_suffix(".npy"))
    assert np.isclose(found, truth, rtol=1e-3, atol=1e-2).mean() > 0.999
    assert np.allclose(found.sum(axis=1), truth.sum(axis=1), rtol=1e-5)


@pytest.fixture
def golden() -> Model:
    return load(FILES[-1])


def test_saving_and_loading_keeps_every_bit(golden: Model, tmp_path: Path) -> None:
    path = golden.save(tmp_path / "again.safetensors")
    again = load(path)
    assert again.recipe == golden.recipe
    assert again.domain == golden.domain and again.geometry == golden.geometry
    assert again.provenance == golden.provenance and again.metrics == golden.metrics
    fast = sample.load("gflash", 20)[:50]
    assert np.array_equal(again.refine(fast).cells, golden.refine(fast).cells)
    assert (path.stat().st_mode & 0o044) == 0o044, "others may read a shared model"


def test_an_existing_model_is_not_replaced(golden: Model, tmp_path: Path) -> None:
    path = golden.save(tmp_path / "m.safetensors")
    with pytest.raises(OutputError, match="exists already"):
        golden.save(path)
    golden.save(path, overwrite=True)


def test_the_file_holds_plain_data_only(golden: Model) -> None:
    """Tensors and one JSON text: nothing that could run when it is loaded."""
    with safe_open(FILES[-1], framework="pt") as handle:
        metadata = handle.metadata()
        assert list(metadata) == ["hepbridge"]
        assert all(isinstance(handle.get_tensor(k), torch.Tensor) for k in handle.keys())  # noqa: SIM118
    assert isinstance(json.loads(metadata["hepbridge"]), dict)
    assert read_header(FILES[-1])["format_version"] == FORMAT_VERSION


def test_description_says_what_a_user_needs(golden: Model) -> None:
    record = golden.describe()
    assert record["system"] == "squirels" and record["transport"] == "flow_matching"
    assert record["network_evaluations"] == 4
    assert record["domain"]["incident_energy_mev"][0] < 11_000
    assert "Geant4" in record["domain"]["full"]["simulation"]


def test_a_file_of_showers_is_no_model() -> None:
    with pytest.raises(
        ModelFileError, match=r"is a file of showers \(calochallenge\), not a model"
    ):
        load(sample.path("gflash", 20))


def test_another_hdf5_file_is_no_model_either(tmp_path: Path) -> None:
    """It is not called truncated, whatever its name."""
    path = tmp_path / "m.safetensors"
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(3)
    for read in (load_generator, load_unfolding):
        with pytest.raises(
            ModelFileError, match=r"is an HDF5 file, .* and no (gen|mod).*; name ano"
        ):
            read(path)


def test_names_and_paths() -> None:
    assert locate("a/b") == Path("a/b")
    assert locate("m.safetensors") == Path("m.safetensors")
    with pytest.raises(ModelFileError, match="no shipped model is called 'nothing'"):
        locate("nothing")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.stepz=3",
            r"training.stepz: Extra inputs are not permitted.*: optimizer, .*steps",
        ),
        ("model.stepz=3", r"model.stepz: Extra .*allowed here: transport, options"),
        ("training.steps=-1", "training.steps: Input should be greater than or equal to 1"),
        ("model.transport=nonsense", "unknown transport 'nonsense'"),
        ("model.options.widht=3", "no option 'widht'; did you mean 'width'"),
        (
            "model.options.teacher_options.widht=3",
            r"'staged_flow' has no option.*Allowed: lead, carr",
        ),
        ("model.options.teacher_options.then.widht=3", r"then has no option.*did you mean 'width'"),
        ("system=other", "unknown system 'other'"),
        ("holdout=0.9", "holdout: Input should be less than or equal to 0.5"),
        ("nonsense", "expected key.sub=value"),
    ],
)
def test_bad_recipes_are_explained(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe = load_recipe("squirels", overrides=[override])
        from hepbridge.data import SQUIRELS
        from hepbridge.systems.squirels import Squirels

        config = recipe.system_config().model_copy(
            update={
                "symmetry": "declared",
                "dense": 2,
                "conditions": [],
                "joint_zeros": True,
                "match_moments": True,
            }
        )
        assert Squirels(config, SQUIRELS).planned_steps  # which builds the teacher


def test_a_config_file_is_laid_over_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("training:\n  steps: 7\nmodel:\n  options: {width: 32}\n")
    recipe = load_recipe("squirels", tmp_path / "my.yaml", ["training.steps=8"])
    assert recipe.training.steps == 8
    assert recipe.model["options"]["width"] == 32 and recipe.model["options"]["depth"] == 4
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_recipe("squirels", tmp_path / "bad.yaml")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_recipe("squirels", tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="must be a mapping"):
        load_recipe("squirels", tmp_path / "list.yaml")
    with pytest.raises(ConfigError, match="unknown recipe 'nonsense'; available: quantile"):
        load_recipe("nonsense")
