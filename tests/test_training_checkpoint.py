"""Checkpoint files: exact, atomic, and refused when they are not what they should be."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from hepbridge.core.errors import ModelFileError, OutputError
from hepbridge.training.checkpoint import read_checkpoint, write_checkpoint


@pytest.fixture
def content():
    base = torch.arange(12.0)
    tensors = {
        "float": torch.tensor([1.5, float("nan"), -0.0]),
        "double": torch.tensor(1 / 3, dtype=torch.float64),
        "half": torch.tensor([1.0, 2.0]).bfloat16(),
        "count": torch.tensor(7),
        "flag": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "view": base.reshape(3, 4).T,  # not contiguous,
        "same": base,  # and sharing memory with this one
    }
    return tensors, {"step": 3, "loss": 1 / 3, "name": "σ", "none": None}


def test_round_trip_is_exact(content, tmp_path):
    tensors, state = content
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, tensors, state)
    got, again = read_checkpoint(path)
    assert again == state and got.keys() == tensors.keys()
    for name, value in tensors.items():
        assert got[name].dtype == value.dtype and got[name].shape == value.shape
        assert torch.equal(got[name].nan_to_num(9), value.nan_to_num(9))
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_failure_leaves_the_old_file(content, tmp_path):
    tensors, state = content
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, tensors, state)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):  # NaN is no JSON
        write_checkpoint(path, tensors, {"loss": float("nan")})
    with pytest.raises(OutputError, match="does not exist"):
        write_checkpoint(tmp_path / "no" / "a.ckpt", tensors, state)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_damage_is_noticed_wherever_it_is(content, tmp_path):
    """Every byte counts: fails without the digest for the bytes of the numbers."""
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, *content)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError):
            read_checkpoint(path)
    for length in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match="not a readable checkpoint"):
            read_checkpoint(path)


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    with pytest.raises(
        ModelFileError, match="is an HDF5 file, such as one of showers, and no checkpoint"
    ):
        read_checkpoint(path)
    save_file({"w": torch.zeros(2)}, str(path))
    with pytest.raises(ModelFileError, match="not a training checkpoint of hepbridge"):
        read_checkpoint(path)
    metadata = {"format": "hepbridge-checkpoint", "format_version": "99", "state": json.dumps({})}
    save_file({"w": torch.zeros(2)}, str(path), metadata)
    with pytest.raises(ModelFileError, match="checkpoint format 99"):
        read_checkpoint(path)
