"""The bundled sample: complete, small, and what it says it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hepbridge.core.errors import ConfigError
from hepbridge.data import SQUIRELS, load, sample

PARTS = [(k, None) for k in sample.TRAIN] + [(k, e) for k in sample.FIXED for e in sample.ENERGIES]


@pytest.mark.parametrize(("kind", "energy"), PARTS)
def test_parts(kind: str, energy: int | None) -> None:
    showers = sample.load(kind, energy)
    assert showers.geometry == SQUIRELS
    assert len(showers) == (6000 if energy is None else 1000)
    if energy:
        assert set(showers.incident_energy) == {energy * 1000.0}
    else:
        assert 1e4 <= showers.incident_energy.min() < showers.incident_energy.max() <= 1e5
    assert 0.9 < (showers.e_sum / showers.incident_energy).mean() < 1.0
    assert not (showers.cells.view(np.uint32) & 0x7FF).any()  # 12 of 23 mantissa bits
    for key in (
        "simulation",
        "particle",
        "source_file",
        "source_rows",
        "rounding",
        "source_geometry",
    ):
        assert key in showers.meta
    if "full" in kind:
        assert showers.meta["physics_list"].startswith("G4EmStandardPhysics")
        assert "Seltzer-Berger" in showers.meta["cross_sections"]


def test_it_is_small() -> None:
    files = list(sample.FOLDER.glob("*"))
    events = [sample.zjets_path(generator) for generator in sample.ZJETS]
    assert sorted(files) == sorted([*events, *(sample.path(*part) for part in PARTS)])
    assert sum(f.stat().st_size for f in files) <= 10_000_000


def test_training_rows_are_pairs_and_samples_are_different() -> None:
    fast, full = sample.load("train_fast"), sample.load("train_full")
    assert np.array_equal(fast.incident_energy, full.incident_energy)
    uids = {int(sample.load(*part).event_ids[0, 0]) for part in PARTS}
    assert len(uids) == len(PARTS)
    assert not np.array_equal(sample.load("full", 50).cells, sample.load("full2", 50).cells)


def test_it_is_the_first_rows_of_its_source(sample_dir: Path) -> None:
    """Rounding moves a cell by at most 2^-13 of its value; ids are those of the source."""
    for part in (("train_full", None), ("gflash", 80)):
        showers = sample.load(*part)
        source = load(sample_dir / showers.meta["source_file"], rows=len(showers))
        assert (np.abs(showers.cells - source.cells) <= source.cells * 2.0**-13).all()
        assert np.array_equal(showers.event_ids, source.event_ids)


@pytest.mark.parametrize("part", [("full", None), ("full", 30), ("train_full", 50), ("fast", 20)])
def test_parts_that_are_not_there(part: tuple) -> None:
    with pytest.raises(
        ConfigError, match=r"has no part .*; it has train_fast, train_full without energy"
    ):
        sample.load(*part)


@pytest.mark.parametrize("generator", sample.ZJETS)
def test_events_for_unfolding(generator: str) -> None:
    """50,000 pairs at both levels, with masks, provenance and few bits."""
    tables = sample.zjets(generator)
    particle, detector = tables["particle"], tables["detector"]
    both = particle.flag("pass") & detector.flag("pass") & particle.flag("matched")
    assert both.sum() == 50_000 and 55_000 < len(particle) == len(detector) < 65_000
    np.testing.assert_array_equal(particle.event_ids, detector.event_ids)
    assert particle.units["mass"] == "GeV" and "z_g" in particle.defined
    mass = particle.column("mass")[particle.is_defined("mass")]
    assert 10 < mass.mean() < 30
    assert not (mass.view(np.uint64) & np.uint64((1 << 40) - 1)).any()
    assert "8.317" in str(particle.meta)
    assert sample.zjets_path(generator).stat().st_size < 5_000_000


def test_no_events_of_other_generators() -> None:
    with pytest.raises(ConfigError, match="those of a14, vincia"):
        sample.zjets("herwig")
