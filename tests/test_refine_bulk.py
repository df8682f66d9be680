"""Bulk refinement: many files, shards, batch systems; always the bits of one process on one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.main import get_command

from hepbridge.cli.app import app
from hepbridge.core import jobs
from hepbridge.core.errors import (
    ConfigError,
    DataError,
    ModelFileError,
    OutputError,
    VerificationError,
)
from hepbridge.data import io, sample
from hepbridge.deploy import refine_job
from hepbridge.deploy.bulk import named_outputs, parse_shard
from hepbridge.deploy.contents import Contents, verify_file, verify_files
from hepbridge.deploy.refine import refine_file, refine_files
from hepbridge.deploy.refine_job import Options
from hepbridge.deploy.submission import write_scripts
from hepbridge.systems.inference import TILE
from hepbridge.systems.model_file import load, locate

MODEL = "squirels-small"
ROWS = (300, 1100, 700)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of fast showers with a user's own column."""
    folder, start = tmp_path_factory.mktemp("in"), 0
    for k, n in enumerate(ROWS):
        some = sample.load("train_fast")[start : start + n]
        some.columns["run"] = np.arange(start, start + n)
        io.save(some, folder / f"f{k}.h5")
        start += n
    return folder


@pytest.fixture(scope="module")
def truth(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of each output, made file by file in one piece."""
    folder = tmp_path_factory.mktemp("truth")
    for path in inputs.iterdir():
        refine_file(MODEL, path, folder / path.name)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 256 rows: two, five and three of them."""
    monkeypatch.setattr(refine_job, "CHUNK", TILE)


def files(inputs: Path, folder: Path) -> dict[Path, Path]:
    return named_outputs([str(inputs / "*.h5")], f"{folder}/out/")


def found(folder: Path) -> dict[str, bytes]:
    """Everything in the folder of outputs."""
    return {p.name: p.read_bytes() for p in (folder / "out").iterdir() if p.is_file()}


def test_cells_are_those_of_the_pure_refiner(inputs: Path, truth, tmp_path: Path) -> None:
    (tmp_path / "o.h5").write_bytes(truth["f1.h5"])
    out, fast = io.load(tmp_path / "o.h5"), io.load(inputs / "f1.h5")
    assert np.array_equal(out.cells, load(locate(MODEL)).refine(fast).cells)
    assert np.array_equal(out.columns["run"], np.arange(300, 1400))
    assert np.array_equal(out.event_ids, fast.event_ids)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("count", "order"), [(1, 1), (2, 1), (3, -1), (4, 1), (10, -1), (13, 1)])
def test_shards_in_any_order_give_the_same_files(
    inputs: Path, truth, tmp_path: Path, count: int, order: int
) -> None:
    """Every piece is made once, by one shard; the last one puts the files together.

    Fails if shards overlap or leave a gap, or if a file between shards is not finished.
    """
    made = []
    for k in range(count)[::order]:
        done = refine_files(MODEL, files(inputs, tmp_path), shard=(k, count))
        assert not done.complete
        made += [path.name for path in done.made]
    assert sorted(made) == ["f0.h5", "f1.h5", "f2.h5"]
    assert found(tmp_path) == truth
    assert len(list((tmp_path / "out").iterdir())) == 3
    again = refine_files(MODEL, files(inputs, tmp_path))
    assert len(again.complete) == 3 and not again.made


@pytest.mark.usefixtures("small")
def test_a_run_without_shards_finishes_what_shards_left(inputs, truth, tmp_path: Path) -> None:
    done = refine_files(MODEL, files(inputs, tmp_path), shard=(1, 3))
    assert [p.name for p in done.left] == ["f1.h5"] and not done.made
    assert found(tmp_path) == {}
    done = refine_files(MODEL, files(inputs, tmp_path))
    assert len(done.made) == 3
    assert found(tmp_path) == truth


@pytest.mark.usefixtures("small")
def test_pieces_of_another_request_are_not_taken(inputs, truth, tmp_path: Path) -> None:
    """Half of a run with seed 1, then the whole with seed 0. Fails if pieces are named by rows alone."""
    refine_files(MODEL, files(inputs, tmp_path), Options(seed=1), shard=(0, 2))
    for path in (tmp_path / "out").glob("*.h5"):
        path.unlink()
    refine_files(MODEL, files(inputs, tmp_path))
    assert found(tmp_path) == truth


def test_rows_of_any_number_are_packed_and_come_back(tmp_path: Path) -> None:
    """Blocks that end before, at and after the ends of HDF5 chunks, read by h5py alone."""
    showers = sample.load("train_fast")[:3000]
    showers.columns.update(flag=np.arange(3000) % 3 == 0, small=np.arange(3000, dtype="i2"))
    with io.open_writer(tmp_path / "o.h5", n=3000) as writer:
        for start, stop in ((0, 1), (1, 1310), (1310, 1311), (1311, 2999), (2999, 3000)):
            writer.append(showers[start:stop])
    with h5py.File(tmp_path / "o.h5") as file:
        assert np.array_equal(file["showers"][...], showers.cells)
        assert np.array_equal(file["columns/flag"][...], showers.columns["flag"])
        assert np.array_equal(file["columns/small"][...], showers.columns["small"])
        assert np.array_equal(file["event_id"][...], showers.event_ids)


def on_path(folder: Path, programs: dict[str, str]) -> dict[str, str]:
    """An environment in which these programs are found first."""
    fakes = folder / "bin"
    fakes.mkdir()
    for name, text in programs.items():
        (fakes / name).write_text(text)
        (fakes / name).chmod(0o755)
    return os.environ | {"PATH": f"{fakes}:{os.environ['PATH']}", "LOG": str(folder)}


QUEUE = {
    "sbatch": """#!/bin/bash
# Slurm as dask-jobqueue sees it: keeps the script and starts the job.
for word in "$@"; do script="$word"; done
cp "$script" "$LOG/job.sh"
setsid bash "$LOG/job.sh" > "$LOG/worker.log" 2>&1 &
echo $! > "$LOG/job"
echo "Submitted batch job 1"
""",
    "scancel": """#!/bin/bash
kill -- -"$(cat "$LOG/job")"
""",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_workers_that_a_batch_system_starts(inputs: Path, truth, tmp_path: Path) -> None:
    """dask-jobqueue submits one job, whose worker makes all pieces."""
    pytest.importorskip("dask_jobqueue")
    site = {"CORES": "1", "MEMORY": "2GB", "WALLTIME": "00:10:00"}
    words = ["refine", MODEL, str(inputs / "f1.h5"), "-o", "out/", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "hepbridge", *words, "--executor", "slurm"],
        cwd=tmp_path,
        env=on_path(tmp_path, QUEUE) | {f"DASK_JOBQUEUE__SLURM__{k}": v for k, v in site.items()},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "job").exists()
    assert found(tmp_path) == {"f1.h5": truth["f1.h5"]}


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("executor", ["local", "dask"])
def test_two_workers_change_no_bit(inputs: Path, truth, tmp_path: Path, executor: str) -> None:
    if executor == "dask":
        pytest.importorskip("distributed")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hepbridge", "--json", "refine", MODEL, str(inputs / "*.h5")),
            *("-o", "out/", "--device", "cpu", "--workers", "2", "--executor", executor),
            "--verify",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    assert len(answer["made"]) == 3 and answer["verified_rows"] == sum(ROWS)
    assert found(tmp_path) == truth


def test_pieces_of_large_detectors_are_small(inputs: Path, tmp_path: Path, monkeypatch) -> None:
    """Bounded in bytes, in whole tiles: 600 rows of 100 cells of 4 bytes make two tiles."""
    monkeypatch.setattr(refine_job, "PIECE_BYTES", 600 * 400)
    trained = refine_job.Trained.of(MODEL)
    job = refine_job.RefineJob(trained, inputs / "f1.h5", tmp_path / "o.h5", Options())
    assert [len(chunk) for chunk in job.chunks] == [512, 512, 76]


# ------------------------------------------------------------------------------- verification


def test_checksum_is_of_the_content_not_of_the_blocks(inputs: Path) -> None:
    """Against a checksum by hand, block by block or at once; every array counts."""
    import hashlib

    showers = io.load(inputs / "f0.h5")
    whole, parts = Contents(), Contents()
    whole.add(showers)
    for start in range(0, 300, 7):
        parts.add(showers[start : start + 7])
    assert whole.record() == parts.record() and whole.record()["rows"] == 300
    arrays = {
        "cells": showers.cells,
        "column run": showers.columns["run"],
        "event_ids": showers.event_ids,
        "incident_energy": showers.incident_energy.astype("f4"),
    }
    by_hand = hashlib.blake2b(digest_size=16)
    for name, array in arrays.items():
        inner = hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()
        by_hand.update(f"{name}\n{inner}\n".encode())
    assert whole.record()["checksum"] == by_hand.hexdigest()


@pytest.mark.parametrize("what", ["showers", "event_id", "incident_energies", "columns/run"])
def test_verify_finds_one_changed_number(truth, tmp_path: Path, what: str) -> None:
    path = tmp_path / "o.h5"
    path.write_bytes(truth["f0.h5"])
    assert verify_file(path)["rows"] == 300
    with h5py.File(path, "a") as file:
        index = (17, 3) if what == "showers" else 17
        file[what][index] = file[what][index] + 1
    with pytest.raises(DataError, match="is damaged: it holds"):
        verify_file(path)


def test_verify_finds_lost_doubled_and_foreign_events(inputs: Path, tmp_path: Path) -> None:
    """Files that agree with their own manifest, but not with their input."""
    fast = io.load(inputs / "f0.h5")
    rows = np.arange(300)
    for name, wrong in {
        "lost": rows[:-1],
        "doubled": np.r_[rows, 5],
        "swapped": np.r_[1, 0, rows[2:]],
        "same": rows,
    }.items():
        some, contents = fast[wrong], Contents()
        contents.add(some)
        path = tmp_path / f"{name}.h5"
        io.save(some, path, manifest={jobs.RESULT: contents.record()})
        if name == "same":
            assert verify_file(path, inputs / "f0.h5")["rows"] == 300
            continue
        with pytest.raises(DataError, match="its events are not those of"):
            verify_file(path, inputs / "f0.h5")
    with pytest.raises(DataError, match="holds no checksum"):
        verify_file(inputs / "f0.h5")


def test_an_input_or_model_that_changes_meanwhile_is_refused(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, model = tmp_path / "fast.h5", tmp_path / "m.safetensors"
    fast.write_bytes((inputs / "f0.h5").read_bytes())
    model.write_bytes(locate(MODEL).read_bytes())
    whole = refine_job.refine_cells

    def touched(*args, **options):
        os.utime(fast, (1, 1))
        return whole(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(refine_job, "refine_cells", touched)
        with pytest.raises(DataError, match="was changed while it was read"):
            refine_file(model, fast, tmp_path / "o.h5")
    assert not (tmp_path / "o.h5").exists()
    trained = refine_job.Trained.of(str(model))
    model.write_bytes(locate("squirels").read_bytes())
    with pytest.raises(ModelFileError, match="was replaced while it was in use"):
        refine_job.Trained(trained.path, "another").load()


def test_verify_lists_every_output_that_does_not_pass(
    inputs, truth, tmp_path: Path, capsys
) -> None:
    """A damaged one, a foreign one, a truncated one of four, and one that is missing is made.

    Fails if the first ends it, or if the good one is not read.
    """
    out = tmp_path / "out"
    out.mkdir()
    for name in ("f0.h5", "f1.h5"):
        (out / name).write_bytes(truth[name])
    with h5py.File(out / "f0.h5", "a") as file:
        file["showers"][17, 3] += 1
    (out / "f1.h5").write_bytes(truth["f1.h5"][: len(truth["f1.h5"]) // 2])
    refine_file(MODEL, inputs / "f2.h5", out / "f2.h5", seed=1)
    io.save(sample.load("train_fast")[:20], tmp_path / "f3.h5")
    words = ["refine", MODEL, str(inputs / "*.h5"), str(tmp_path / "f3.h5"), "-o", f"{out}"]
    with pytest.raises(SystemExit) as end:
        get_command(app).main(args=[*words, "--device", "cpu", "--verify"], prog_name="x")
    assert end.value.code == VerificationError.exit_code == 10
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("  ")]
    assert "3 of 4 outputs do not pass verification" in said and len(lines) == 3
    for line, name, reason in zip(
        lines,
        ("f0.h5", "f1.h5", "f2.h5"),
        ("is damaged: it holds", "truncated", "of another request (other: seed)"),
        strict=True,
    ):
        assert f"out/{name}: " in line and reason in line
    assert verify_file(out / "f3.h5", tmp_path / "f3.h5")["rows"] == 20
    (out / "f3.h5").unlink()
    with pytest.raises(VerificationError, match=r"1 of 1 outputs .*\n  .*f3\.h5: is missing"):
        verify_files({tmp_path / "f3.h5": out / "f3.h5"})
    with pytest.raises(OutputError, match=r"f1\.h5 exists already"):  # without --verify, the first
        refine_files(MODEL, {inputs / name: out / name for name in ("f1.h5", "f2.h5")})


# ------------------------------------------------------------------------------- names and words


def test_names_of_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.h5", "a.h5", "c.npy", "[x].h5"):
        Path(name).touch()

    def names(inputs: list[str], output: str) -> dict[str, str]:
        return {str(k): str(v) for k, v in named_outputs(inputs, output).items()}

    assert names(["a.h5"], "o.h5") == {"a.h5": "o.h5"}
    assert names(["a.h5"], "o/") == {"a.h5": "o/a.h5"} == names(["a.h5"], "o")
    assert names(["[x].h5"], "p.h5") == {"[x].h5": "p.h5"}
    assert names(["?.*"], "o") == {"a.h5": "o/a.h5", "b.h5": "o/b.h5", "c.npy": "o/c.h5"}
    with pytest.raises(ConfigError, match="2 inputs need a folder"):
        names(["a.h5", "b.h5"], "o.h5")
    with pytest.raises(DataError, match=r"no file is called q\*"):
        names(["q*"], "o")
    Path("d").mkdir()
    Path("d/a.h5").touch()
    with pytest.raises(ConfigError, match=r"would both become o/a\.h5"):
        names(["a.h5", "d/a.h5"], "o")
    with pytest.raises(OutputError, match="cannot make the folder"):
        names(["a.h5"], "b.h5/o/")


def test_bad_requests(inputs: Path, tmp_path: Path) -> None:
    assert parse_shard("3/10") == (3, 10) and parse_shard(None) == (0, 1)
    for text in ("3", "3/3", "-1/3", "a/b", "1/0", "1/2/3"):
        with pytest.raises(ConfigError, match="--shard is I/N"):
            parse_shard(text)
    work = files(inputs, tmp_path)
    with pytest.raises(ConfigError, match="no shard 3 of 3"):
        refine_files(MODEL, work, shard=(3, 3))
    with pytest.raises(ConfigError, match="shards cannot overwrite"):
        refine_files(MODEL, work, Options(overwrite=True), shard=(0, 2))
    with pytest.raises(ConfigError, match="workers must be at least 1"):
        refine_files(MODEL, work, workers=0)
    with pytest.raises(ConfigError, match="unknown executor 'cluster'"):
        refine_files(MODEL, work, executor="cluster")
    with pytest.raises(ConfigError, match="two inputs have the same output"):
        refine_files(MODEL, dict.fromkeys(work, tmp_path / "o.h5"))
    (tmp_path / "bad.h5").write_text("no showers")
    with pytest.raises(DataError, match=r"bad\.h5"):  # before the first good one is refined
        refine_files(MODEL, work | {tmp_path / "bad.h5": tmp_path / "o.h5"})
    assert list((tmp_path / "out").iterdir()) == []


def test_command_line(inputs: Path, truth, tmp_path: Path, capsys) -> None:
    words = ["refine", MODEL, str(inputs / "f0.h5"), str(inputs / "f2.h5"), "-o", f"{tmp_path}/out"]
    for said in ("2 files written, 0 unchanged", "0 files written, 2 unchanged"):
        with pytest.raises(SystemExit) as end:
            get_command(app).main(args=[*words, "--device", "cpu", "--verify"], prog_name="x")
        assert not end.value.code
        out = capsys.readouterr().out
        assert said in out and "1000 rows in 2 files verified" in out
    assert found(tmp_path) == {name: truth[name] for name in ("f0.h5", "f2.h5")}


# ------------------------------------------------------------------------------- batch systems

SBATCH = """#!/bin/bash
# What Slurm does, here and now: checks the dependency, runs every task of the array.
echo "$@" >> "$LOG/submitted"
for word in "$@"; do case "$word" in
  --dependency=*) [ "$word" = "--dependency=afterany:77" ] || exit 8;;
esac; script="$word"; done
array=$(sed -n 's/^#SBATCH --array=0-//p' "$script")
for k in $(seq 0 "${array:-0}"); do
  [ "$k" = "${LOSE:-none}" ] && [ -n "$array" ] && continue
  if [ -n "$array" ]; then export SLURM_ARRAY_TASK_ID=$k; else unset SLURM_ARRAY_TASK_ID; fi
  bash "$script" >> "$LOG/log" 2>&1 || echo failed >> "$LOG/log"
done
echo "77;cluster"
"""

DAGMAN = """#!/bin/bash
# What DAGMan does, here and now: submits the jobs of the file in turn.
set -e
for word in "$@"; do dag="$word"; done
grep -E '^(JOB|FINAL) ' "$dag" | while read -r kind name file; do condor_submit "$file"; done
"""

CONDOR = """#!/bin/bash
# What HTCondor does, here and now: runs every process of the queue.
echo "$@" >> "$LOG/submitted"
value() { sed -n "s/^$1 = //p" "$2"; }
count=$(sed -n 's/^queue //p' "$1")
for k in $(seq 0 $((count - 1))); do
  [ "$k" = "${LOSE:-none}" ] && [ "$count" != 1 ] && continue
  words=$(value arguments "$1" | tr -d '"' | sed "s/\\$(Process)/$k/")
  "$(value executable "$1")" $words >> "$LOG/log" 2>&1 || echo failed >> "$LOG/log"
done
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
@pytest.mark.parametrize("system", ["slurm", "htcondor"])
def test_scripts_run_under_a_batch_system(inputs, truth, tmp_path: Path, system: str) -> None:
    """An array of two, of which one task is lost: the last step makes up for it and verifies."""
    command = [sys.executable, "-m", "hepbridge", "refine", MODEL, str(inputs / "*.h5")]
    command += ["-o", f"{tmp_path}/out/", "--executor", system, "--submit", f"{tmp_path}/jobs"]
    done = subprocess.run(
        [*command, "--workers", "2", "--device", "cpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    scripts = tmp_path / "jobs"
    for path in (*scripts.glob("*.sh"), *scripts.glob("*.sbatch")):
        assert subprocess.run(["bash", "-n", path], check=False).returncode == 0, path
    fakes = {"sbatch": SBATCH, "condor_submit_dag": DAGMAN, "condor_submit": CONDOR}
    extra = ["--partition=long"] if system == "slurm" else []
    environment = on_path(tmp_path, fakes) | {"LOSE": "1"}
    ran = subprocess.run(
        ["bash", scripts / "submit.sh", *extra],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    log = (tmp_path / "log").read_text()
    assert ran.returncode == 0 and "failed" not in log, log
    if system == "slurm":
        assert ran.stdout.splitlines() == [
            "job 77: array of 2 shards",
            "job 77: last step, after the array",
        ]
    submitted = (tmp_path / "submitted").read_text().splitlines()
    assert len(submitted) == 2
    assert all("--partition=long" in line for line in submitted) or system == "htcondor"
    assert "rows in 3 files verified" in log
    assert found(tmp_path) == truth
    done = subprocess.run(
        [*command, "--workers", "2", "--device", "cpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "unchanged: run it again" in done.stdout, done.stderr


def test_scripts_that_cannot_be(inputs: Path, tmp_path: Path) -> None:
    some = [inputs / "f0.h5"]
    with pytest.raises(ConfigError, match="slurm or htcondor, not 'local'"):
        write_scripts(tmp_path / "a", "local", MODEL, some, [], shards=2)
    with pytest.raises(ConfigError, match="has a line break"):
        write_scripts(tmp_path / "a", "slurm", MODEL, [Path("a\nb.h5")], [], shards=2)
    with pytest.raises(ConfigError, match="without spaces"):
        write_scripts(tmp_path / "a b", "slurm", MODEL, some, [], shards=2)
    made = write_scripts(tmp_path / "a", "slurm", MODEL, some, ["-o", "it's here.h5"], shards=2)
    edited = (tmp_path / "a" / "array.sbatch").read_text().replace("4G", "8G")
    (tmp_path / "a" / "array.sbatch").write_text(edited)
    (tmp_path / "a" / "finish.sbatch").unlink()
    again = write_scripts(tmp_path / "a", "slurm", MODEL, some, ["-o", "it's here.h5"], shards=2)
    assert again == made and (tmp_path / "a" / "array.sbatch").read_text() == edited
    assert (tmp_path / "a" / "finish.sbatch").exists()
    for system, model, inputs_, options, shards in (
        ("htcondor", MODEL, some, ["-o", "it's here.h5"], 2),
        ("slurm", "other", some, ["-o", "it's here.h5"], 2),
        ("slurm", MODEL, [inputs / "f1.h5"], ["-o", "it's here.h5"], 2),
        ("slurm", MODEL, some, [], 2),
        ("slurm", MODEL, some, ["-o", "it's here.h5"], 3),
    ):
        with pytest.raises(OutputError, match="holds scripts of another request"):
            write_scripts(tmp_path / "a", system, model, inputs_, options, shards=shards)
    line = (tmp_path / "a" / "refine.sh").read_text().splitlines()[-1]
    spoken = subprocess.run(
        ["bash", "-c", line.replace("exec", "printf '%s\\n'").replace('"${inputs[@]}"', "")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "it's here.h5" in spoken
