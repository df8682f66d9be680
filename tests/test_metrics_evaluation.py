"""evaluate(): the record, the sets, the refusals; compare(): the fast number; the paper's table."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.geometry import Geometry
from hepbridge.data.join import join
from hepbridge.data.showers import Showers
from hepbridge.metrics import ClassifierSettings, Evaluation, compare, distances, evaluate
from hepbridge.metrics.paper import TABLE_I, paper_rows
from hepbridge.metrics.sets import make_sets
from metrics_toys import joined, spectrum, toy_showers

FAST = {"bootstraps": 20, "splits": 40, "classifiers": ()}


def real(folder: Path, name: str, n: int) -> Showers:
    with h5py.File(folder / f"squirels_{name}.h5") as file:
        return Showers.from_arrays(file["showers"][:n], file["incident_energies"][:n])


@pytest.fixture(scope="module")
def two_energies() -> Evaluation:
    ref, ref2, good = (
        joined(toy_showers(120, s, 20e3), toy_showers(100, s + 1, 50e3)) for s in (1, 3, 5)
    )
    bad = joined(toy_showers(150, 7, 50e3, scale=0.98), toy_showers(130, 8, 20e3, scale=0.98))
    return evaluate(
        ref,
        {"good": good, "bad": bad},
        ref2,
        bootstraps=20,
        splits=40,
        classifier_settings=ClassifierSettings(seeds=1, folds=2, curve=(0.5,), trees=5),
        starred=["e_max"],
        paper=True,
        paths={"bad": "bad.h5"},
        command="hepbridge evaluate",
    )


def test_record_has_the_documented_form(two_energies: Evaluation) -> None:
    record = two_energies.to_dict()
    assert record == json.loads(json.dumps(record, allow_nan=False))
    assert Evaluation.from_dict(json.loads(json.dumps(record))) == two_energies
    assert {k: record[k] for k in ("format_version", "seed", "starred", "command")} == {
        "format_version": 1,
        "seed": 0,
        "starred": ["e_max"],
        "command": "hepbridge evaluate",
    }
    assert record["samples"]["bad"]["path"] == "bad.h5" and record["samples"]["bad"]["n"] == 280
    assert len(record["samples"]["ref"]["uid"]) == 16
    first, second = record["sets"]
    assert (first["label"], first["incident_energy_gev"], first["n"]) == ("20 GeV", 20.0, 120)
    assert (second["label"], second["n"], second["floor_n"]) == ("50 GeV", 100, 100)
    assert first["floor_source"] == "ref2" and len(first["rows"]) == 7
    row = first["rows"][0]
    assert row["observable"] == "e_sum" and row["unit"] == "GeV"
    assert set(row["floor"]) == {"mean", "std", "q95"}
    keys = {"emd", "sigma", "emd_sample", "ratio", "excess", "excess_upper95", "above_q95"}
    assert set(row["candidates"]["good"]) == keys | {"p_adjusted"}
    tree = first["classifier"]["bad"]["trees"]["high"]
    floor = {"floor_auc", "floor_se", "floor_curve", "excess", "excess_upper95"}
    assert set(tree) == {"auc", "se", "n", "train_n", "curve"} | floor
    assert tree["excess"] == pytest.approx(tree["auc"] - tree["floor_auc"])
    assert tree["excess_upper95"] > tree["excess"]
    assert [p["n"] for p in tree["curve"]] == [p["n"] for p in tree["floor_curve"]]
    assert set(first["paper"]["rows"][0]["candidates"]) == {"good", "bad"}


def test_verdict_counts_rows_without_the_starred(two_energies: Evaluation) -> None:
    for found in two_energies.sets:
        rows = [r for r in found["rows"] if r["observable"] != "e_max"]
        for name, verdict in found["verdict"].items():
            above = sum(r["candidates"][name]["above_q95"] for r in rows)
            assert (verdict["above"], verdict["of"]) == (above, 6)
            ratios = [r["candidates"][name]["ratio"] for r in rows]
            mean = np.exp(np.log(ratios).mean())
            assert found["ratio_geometric_mean"][name] == pytest.approx(mean)
    assert two_energies.verdict is not None
    assert two_energies.verdict["bad"]["of"] == 12
    assert two_energies.verdict["bad"]["p"] < 0.05
    total = sum(s["verdict"]["bad"]["above"] for s in two_energies.sets)
    assert two_energies.verdict["bad"]["above"] == total


def test_numbers_are_those_of_a_plain_calculation(two_energies: Evaluation) -> None:
    ref, bad = toy_showers(120, 1, 20e3), toy_showers(130, 8, 20e3, scale=0.98)[:120]
    row = two_energies.sets[0]["rows"][0]
    emd = wasserstein_distance(ref.e_sum / 1e3, bad.e_sum / 1e3)
    found = row["candidates"]["bad"]
    assert found["emd_sample"] == pytest.approx(emd, rel=1e-9)
    assert found["ratio"] == pytest.approx(emd / row["floor"]["mean"])
    assert row["std_ref"] == pytest.approx((ref.e_sum / 1e3).std())
    assert found["excess"] == pytest.approx((emd - row["floor"]["mean"]) / row["std_ref"])
    assert found["emd"] == pytest.approx(emd, abs=5 * found["sigma"])


def test_same_seed_same_record_and_candidates_do_not_disturb_each_other() -> None:
    ref, ref2, a, b = (toy_showers(80, s) for s in range(4))
    both = evaluate(ref, {"a": a, "b": b}, ref2, **FAST)
    alone = evaluate(ref, {"b": b}, ref2, **FAST)
    for first, second in zip(both.sets[0]["rows"], alone.sets[0]["rows"], strict=True):
        assert first["floor"] == second["floor"]
        assert first["candidates"]["b"] == second["candidates"]["b"]
    other = evaluate(ref, {"b": b}, ref2, seed=1, **FAST)
    assert other.sets[0]["rows"] != alone.sets[0]["rows"]


def test_without_a_second_sample_a_fixed_energy_is_split_in_half() -> None:
    ref, cand = toy_showers(201, 1), toy_showers(300, 2)
    (found,) = evaluate(ref, {"c": cand}, **FAST).sets
    assert (found["n"], found["floor_n"], found["floor_source"]) == (100, 100, "split")
    (sample,) = make_sets(ref, {"c": cand}, None)
    ids = {tuple(i) for s in (sample.ref, sample.ref2) for i in s.event_ids.tolist()}
    assert len(ids) == 200  # disjoint halves


def test_mixed_energies_have_the_ratio_and_no_floor_of_their_own() -> None:
    energy = spectrum(80, 1)
    ref, ref2, cand = (toy_showers(80, s, energy) for s in range(3))
    alone = evaluate(ref, {"c": cand}, **FAST)
    (found,) = alone.sets
    assert found["label"] == "mixed" and found["incident_energy_gev"] is None
    assert found["rows"][0]["observable"] == "e_ratio"
    assert found["floor_n"] is found["floor_source"] is found["verdict"] is alone.verdict is None
    assert found["rows"][0]["floor"] is None
    assert found["rows"][0]["candidates"]["c"]["ratio"] is None
    (with_floor,) = evaluate(ref, {"c": cand}, ref2, **FAST).sets
    assert with_floor["floor_source"] == "ref2"


def test_mixed_bootstrap_does_not_measure_the_spectrum() -> None:
    # The largest cell follows the incident energy: with another draw of energies than the
    # reference's, the bootstrap would scatter ten times more than the floor.
    energy = spectrum(400, 1)
    ref, ref2, cand = (toy_showers(400, s, energy) for s in range(3))
    (found,) = evaluate(ref, {"c": cand}, ref2, **FAST).sets
    row = next(r for r in found["rows"] if r["observable"] == "e_max")
    assert row["candidates"]["c"]["emd"] < 2 * row["floor"]["mean"]


def test_weights_of_a_candidate_count() -> None:
    ref, ref2, good, bad = (toy_showers(100, s, scale=1 - 0.1 * (s == 3)) for s in range(4))
    both = joined(good, bad)
    weights = np.repeat([1.0, 0.0], 100)
    rows = np.arange(200).reshape(2, 100).T.reshape(-1)  # alternating, so that n cuts both alike
    weighted = Showers.from_arrays(both.cells, both.incident_energy, weights=weights)[rows]
    sets = [
        evaluate(ref, {"c": c}, ref2, **FAST).sets[0]["rows"][0]["candidates"]["c"]
        for c in (joined(good, bad)[rows], weighted)
    ]
    assert sets[0]["ratio"] > 5 > sets[1]["ratio"]


@pytest.mark.parametrize("name", ["ref2", "ref", "", "a/b", "floor", "<b>"])
def test_bad_names_are_refused(name: str) -> None:
    ref = toy_showers(60, 1)
    with pytest.raises(ConfigError, match="candidate name"):
        evaluate(ref, {name: ref}, **FAST)


def test_unknown_options_are_refused() -> None:
    ref = toy_showers(120, 1)
    with pytest.raises(ConfigError, match="no candidate"):
        evaluate(ref, {}, **FAST)
    with pytest.raises(ConfigError, match="unknown classifier 'tree'; did you mean 'trees'"):
        evaluate(ref, {"c": ref}, classifiers=("tree",))
    with pytest.raises(ConfigError, match="unknown observable 'n_hits'; did you mean 'n_hit'"):
        evaluate(ref, {"c": ref}, starred=["n_hits"], classifiers=())
    with pytest.raises(ConfigError, match="20 splits"):
        evaluate(ref, {"c": ref}, splits=5, classifiers=())
    with pytest.raises(DataError, match="format 99"):
        Evaluation.from_dict({"format_version": 99})
    with pytest.raises(DataError, match="samples, sets missing"):
        Evaluation.from_dict({"format_version": 1, "seed": 1})


def test_too_few_showers_are_refused() -> None:
    ref, few = toy_showers(100, 1), toy_showers(30, 2)
    with pytest.raises(DataError, match=r"too few showers: ref 100, c 30, ref2 100; at least 50"):
        evaluate(ref, {"c": few}, ref, **FAST)
    with pytest.raises(DataError, match="split in half"):
        evaluate(ref[:80], {"c": ref}, **FAST)


def test_other_incident_energies_are_refused() -> None:
    ref = joined(toy_showers(60, 1, 20e3), toy_showers(60, 2, 50e3))
    with pytest.raises(DataError, match=r"'c' has 60 showers .* row 0 at 80 GeV.* 20, 50 GeV"):
        evaluate(ref, {"c": toy_showers(60, 3, 80e3)}, ref, **FAST)
    with pytest.raises(DataError, match=r"50 GeV: too few showers: ref 60, c 0"):
        evaluate(ref, {"c": toy_showers(60, 3, 20e3)}, ref, **FAST)
    energy = spectrum(60, 1)
    mixed, shuffled = toy_showers(60, 1, energy), toy_showers(60, 1, energy[::-1])
    with pytest.raises(DataError, match=r"row i of 'c'.*60 of 60 rows differ \(first: row 0"):
        evaluate(mixed, {"c": shuffled}, **FAST)
    with pytest.raises(DataError, match="row i of 'ref2'"):
        evaluate(mixed, {"c": mixed}, shuffled, **FAST)
    with pytest.raises(DataError, match="row i of 'cand'"):
        compare(mixed, shuffled)
    with pytest.raises(DataError, match="row by row"):
        compare(mixed, mixed[:50])


def test_other_geometries_and_weights_are_refused() -> None:
    ref = toy_showers(60, 1)
    flat = Geometry("flat", (100,), ("x",), (30.0,))
    other = Showers.from_arrays(ref.cells, ref.incident_energy, geometry=flat)
    with pytest.raises(DataError, match="compare like with like"):
        evaluate(ref, {"c": other}, **FAST)
    with pytest.raises(DataError, match="no axis 'y'"):
        evaluate(other, {"c": other}, **FAST)
    negative = Showers.from_arrays(ref.cells, ref.incident_energy, weights=-np.ones(60))
    with pytest.raises(DataError, match="negative weights"):
        evaluate(ref, {"c": negative}, **FAST)


def test_compare_is_the_geometric_mean_of_scipy_distances() -> None:
    ref, cand = toy_showers(150, 1), toy_showers(170, 2, scale=0.99)
    found = distances(ref, cand)
    assert len(found) == 7 and "e_sum" in found
    assert compare(ref, cand) == pytest.approx(np.exp(np.mean(np.log(list(found.values())))))
    sums = wasserstein_distance(ref.e_sum, cand.e_sum) / ref.e_sum.std()
    assert found["e_sum"] == pytest.approx(sums)
    spectra = [np.where(s.cells < 0.1, 0, s.cells).astype(float).reshape(-1) for s in (ref, cand)]
    assert found["e_spec"] == pytest.approx(
        wasserstein_distance(*spectra) / spectra[0].std(), rel=1e-5
    )
    column = np.arange(10) + 0.5
    profile = [s.cells.reshape(-1, 10, 10).sum(axis=(0, 1), dtype=float) for s in (ref, cand)]
    std = np.sqrt(np.cov(column, aweights=profile[0], ddof=0))
    assert found["profile_y"] == pytest.approx(wasserstein_distance(column, column, *profile) / std)
    assert compare(ref, ref) == 0.0
    assert compare(ref, toy_showers(170, 2, scale=0.95)) > compare(ref, cand)


def test_compare_is_fast_enough_to_steer_a_training() -> None:
    ref, cand = (toy_showers(1000, s, spectrum(1000, 1)) for s in (1, 2))
    times = []
    for _ in range(7):
        start = time.process_time()
        compare(ref, cand)
        times.append(time.process_time() - start)
    assert min(times) < 0.1  # 0.03 s on the machine where it was written


def test_real_gflash_differs_as_described(sample_dir: Path) -> None:
    full, fast = real(sample_dir, "full_train", 1000), real(sample_dir, "gflash_train", 1000)
    (found,) = evaluate(full, {"gflash": fast}, **FAST).sets
    rows = {r["observable"]: r["candidates"]["gflash"] for r in found["rows"]}
    assert 8 < rows["n_hit"]["emd"] < 12  # cells
    assert 0.3 < rows["e_max"]["emd"] < 0.7  # GeV
    assert 0.008 < rows["profile_x"]["emd"] < 0.02  # cell widths
    assert compare(full, fast) > 0.05


def test_real_full_simulation_lies_at_the_floor(sample_dir: Path) -> None:
    ref, twin = real(sample_dir, "full_e20", 500), real(sample_dir, "full2_e20", 1000)
    (found,) = evaluate(ref, {"twin": twin[:500]}, twin[500:], **FAST).sets
    assert found["ratio_geometric_mean"]["twin"] < 2
    assert found["verdict"]["twin"]["p"] > 0.01


def test_paper_table_has_the_conventions_of_the_paper() -> None:
    ref, cand = toy_showers(300, 1), toy_showers(300, 2, scale=0.99)
    rows = {r["observable"]: r for r in paper_rows(ref, {"c": cand}, bootstraps=30)}
    assert list(rows) == ["e_sum", "e_spec", "n_hit", "e_max", "profile_x", "profile_y"]
    # profile: entries (shower, bin) resampled, against the unweighted, that is uniform, positions
    rng = np.random.default_rng(0)
    weight = ref.cells.reshape(-1, 10, 10).sum(axis=2, dtype=float).reshape(-1)
    position = np.tile(np.arange(10) + 0.5, 300)
    slow = []
    for _ in range(60):
        drawn = rng.integers(3000, size=3000)
        slow.append(wasserstein_distance(position, position[drawn], None, weight[drawn]))
    own = rows["profile_x"]["geant4"]
    assert np.mean(slow) > 1.5  # the paper's 1.954 is of this kind
    error = np.hypot(np.std(slow) / np.sqrt(60), own["sigma"] / np.sqrt(30))
    assert abs(own["emd"] - np.mean(slow)) < 4 * error
    assert own["sigma"] == pytest.approx(np.std(slow), rel=0.6)
    # a sample against its own bootstrap lies below the distance of independent samples
    sums = [
        wasserstein_distance(toy_showers(300, s).e_sum, toy_showers(300, s + 50).e_sum)
        for s in range(10, 30)
    ]
    assert rows["e_sum"]["geant4"]["emd"] < np.mean(sums) / 1e3
    assert rows["e_sum"]["candidates"]["c"]["emd"] > 5 * rows["e_sum"]["geant4"]["emd"]
    assert TABLE_I["n_hit"][80] == {"geant4": 0.013, "gflash": 11.06, "squirels": 1.45}
    with pytest.raises(DataError, match="fixed incident energies"):
        paper_rows(toy_showers(60, 1, spectrum(60, 1)), {})


def test_paper_spectrum_is_the_first_thousand_showers() -> None:
    ref, other = toy_showers(1200, 1), toy_showers(1200, 2, scale=0.9)
    tail = Showers.from_arrays(
        np.concatenate([ref.cells[:1000], other.cells[1000:]]), ref.incident_energy
    )
    for rows in (paper_rows(ref, {"c": s}, bootstraps=20) for s in (ref, tail)):
        spectrum_row = next(r for r in rows if r["observable"] == "e_spec")
        emd, own = spectrum_row["candidates"]["c"], spectrum_row["geant4"]
        assert abs(emd["emd"] - own["emd"]) < 3 * (emd["sigma"] + own["sigma"])


def test_importing_metrics_imports_neither_torch_nor_plotting_nor_trees() -> None:
    code = (
        "import sys, hepbridge.metrics;"
        "print(sorted({'torch', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_samples_that_are_no_others(caplog: pytest.LogCaptureFixture) -> None:
    """A floor of a sample with itself is refused; a candidate that is the reference is told of."""
    ref, ref2, cand = (toy_showers(80, s) for s in range(3))
    with pytest.raises(DataError, match=r"'ref2' has 80 showers of the reference.*independent"):
        evaluate(ref, {"c": cand}, ref, **FAST)
    half = join([ref2[:50], ref[:30]])
    with pytest.raises(DataError, match="'ref2' has 30 showers of the reference"):
        evaluate(ref, {"c": cand}, half, **FAST)
    evaluate(ref, {"c": cand}, ref2, **FAST)
    assert not caplog.text
    evaluate(ref, {"copy": ref, "second": ref2}, ref2, **FAST)
    assert "'copy' has 80 showers of the reference" in caplog.text
    assert "'second' has 80 showers of ref2" in caplog.text


def test_other_showers_of_the_same_particles_are_others(caplog: pytest.LogCaptureFixture) -> None:
    """One beam, simulated three times: equal event ids, as `simulate --beam-seed` gives them."""
    ref, ref2, cand = (toy_showers(80, s) for s in range(3))
    ref2, cand = (dataclasses.replace(s, event_ids=ref.event_ids) for s in (ref2, cand))
    evaluate(ref, {"c": cand}, ref2, **FAST)
    assert not caplog.text
    mixed = dataclasses.replace(ref2, cells=np.concatenate([ref.cells[:7], ref2.cells[7:]]))
    with pytest.raises(DataError, match="'ref2' has 7 showers of the reference"):
        evaluate(ref, {"c": cand}, mixed, **FAST)
