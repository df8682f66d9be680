"""Hostile files: every reader answers with a clear error, soon, in little memory, and runs nothing.

Valid files are damaged by hypothesis (bits, lengths, lost and repeated stretches, words that parsers
know) and read in another process, because a crash of a C library must not end the tests. The number of
files of each kind is HEPBRIDGE_FUZZ (default 60), or what is read in HEPBRIDGE_FUZZ_SECONDS.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import secrets
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import generation_toys
from hepbridge.data import io, sample
from hepbridge.data.binning_xml import write_binning
from hepbridge.data.formats.points import save_points
from hepbridge.data.formats.tables import save_tables
from hepbridge.data.points import PointShowers
from hepbridge.data.tables import Table
from hepbridge.deploy.onnx.contract import contract_of
from hepbridge.deploy.onnx.targets import target_of
from hepbridge.simulate.detector import load_detector
from hepbridge.systems.model_file import load, locate
from hepbridge.training.checkpoint import write_checkpoint
from hepbridge.training.tensor_file import content_digest

EXAMPLES = int(os.environ.get("HEPBRIDGE_FUZZ", "60"))
LIMIT = float(os.environ.get("HEPBRIDGE_FUZZ_SECONDS", "inf"))
SECONDS, MEGABYTES = 20.0, 300.0  # that reading a damaged file may take
SEEDS = {
    "hdf5": ("own.h5", "foreign.h5"),
    "npy": ("a.npy", "pickled.npy"),
    "root": ("a.root",),
    "xml": ("b.xml",),
    "detector": ("d.yaml",),
    "recipe": ("r.yaml",),
    "model": ("m.safetensors",),
    "generator": ("g.safetensors",),
    "checkpoint": ("c.ckpt",),
    "points": ("ragged.h5", "padded.h5"),
    "tables": ("tables.h5",),
    "contract": ("contract.json",),
}
TEXT = ("xml", "detector", "recipe", "contract")
HDF5 = ("hdf5", "points", "tables")
WORDS = [
    b"<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>]>", b"&a;", b"<Bin>", b"</Bins>", b'"', b"\0", b"\xff\xfe",
    b"&a [*a,*a]", b"*a", b"<<: *a", b"{" * 3000, b"[" * 3000, b"- " * 2000, b"nan", b"1e999",
    b"-1", b"0", b"9" * 5000, b"99999999999", b"0x7fffffffffffffff", b"~", b"!!binary aa",
    b"!!python/object/apply:os.system ['touch pwned']", b"!!python/name:os.system", b"\n\t: ",
]  # fmt: skip
NUMBERS = [0, 1, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
VALUES = [
    None,
    True,
    -1,
    0,
    10**9,
    10**400,
    1e308,
    "",
    "x" * 5000,
    [],
    {},
    [[[]]],
    {"a": {}},
    [1] * 99,
]


class Pwned:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_seeds(tmp_path_factory.mktemp("fuzz"))


def write_seeds(folder: Path) -> Path:
    """A small valid file of every kind."""
    some = sample.load("train_fast")[:40]
    some.columns.update(run=np.arange(40), word=np.array(["a", "bc"] * 20, dtype=object))
    io.save(some, folder / "own.h5", manifest={"a": 1})
    with h5py.File(folder / "foreign.h5", "w") as file:  # no checksums on its metadata
        file["incident_energies"] = some.incident_energy.astype("f4").reshape(-1, 1)
        file.create_dataset("showers", data=some.cells, chunks=(16, 100), compression=1)
        file["word"] = [b"ab"] * 40
        file.attrs["units"] = "MeV"
    del some.columns["word"]
    io.save(some, folder / "a.root")
    io.save(some, folder / "a.npy")
    np.save(folder / "pickled.npy", np.array([[Pwned()]]), allow_pickle=True)
    assert b"touch pwned" in pickle.dumps(Pwned())
    detector = load_detector("calochallenge-2")
    write_binning(folder / "b.xml", detector.geometry(), "electron")
    (folder / "d.yaml").write_text(detector.to_yaml(), encoding="utf-8")
    (folder / "r.yaml").write_text(
        "training: {steps: 40, betas: [0.9, 0.99]}\nmodel:\n  options: {width: 16, depth: 1}\n"
    )
    with safe_open(locate("squirels-small"), framework="pt") as handle:
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        metadata = handle.metadata()
    save_file(tensors, folder / "m.safetensors", metadata)
    few_tables = {"frame_options": {"knots": 9, "nodes": 3}, "reference": 1, "symmetry": "declared"}
    steps = {
        "transport": "flow_matching",
        "options": {"width": 8, "depth": 1, "steps": 1},
    }
    untrained = generation_toys.untrained(layers=steps, cells=steps, **few_tables)
    untrained.save(folder / "g.safetensors")
    contract = contract_of(load("squirels-small"), target_of("ort"), 0, "m.onnx")
    (folder / "contract.json").write_text(contract.text(), encoding="utf-8")
    clouds(folder)
    events = Table.from_columns(
        {"mass": np.linspace(1, 50, 40), "multiplicity": np.arange(40)},
        {"mass": "GeV", "multiplicity": "1"},
        defined={"mass": np.arange(40) % 7 > 0},
        flags={"pass": np.arange(40) % 3 > 0},
    )
    save_tables({"particle": events, "detector": events}, folder / "tables.h5", manifest={"a": 1})
    few = dict(list(tensors.items())[:3])
    write_checkpoint(folder / "c.ckpt", few, {"numbers": {}, "state": {}})
    return folder


def clouds(folder: Path) -> None:
    """Point clouds in the two layouts that say where their points are."""
    rng = np.random.default_rng(1)
    hits, energy = rng.uniform(1, 50, (60, 4)), np.linspace(1e3, 9e3, 20)
    offsets = np.arange(21) * 3
    save_points(PointShowers.from_hits(hits, offsets, energy), folder / "ragged.h5")
    with h5py.File(folder / "padded.h5", "w") as file:
        file["events"] = hits.reshape(20, 3, 4).astype("f4")
        file["energy"] = energy[:, None]
        file.attrs["units"] = "MeV"


class Reader:
    """The other process; started anew if it is gone."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.process = folder, None
        self.count: Counter[str] = Counter()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("readers.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for target, names in SEEDS.items():  # libraries are imported
            for name in names:
                word, _ = self.ask(target, self.folder / name, patience=120)
                assert word == "ok" or (name == "pickled.npy" and "refused" in word), (name, word)

    def ask(self, target: str, path: Path, patience: float = SECONDS) -> tuple[str, float]:
        """What became of the file, and the growth of memory in MB."""
        if self.process is None:
            self.start()
        assert self.process is not None and self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{target} {path}\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], patience)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            state = "hangs" if not ready else f"crashed ({self.process.wait()})"
            self.stop()
            return f"bug: the reader {state}", 0.0
        word, growth = line.rstrip("\n").split("\t")
        return word, float(growth)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def check(self, target: str, content: bytes) -> None:
        path = self.folder / f"hostile{Path(SEEDS[target][0]).suffix}"
        path.write_bytes(content)
        word, growth = self.ask(target, path)
        self.count[word.partition(":")[0]] += 1
        if word.startswith("bug") or growth >= MEGABYTES:
            kept = Path(tempfile.gettempdir()) / f"hostile-{secrets.token_hex(4)}{path.suffix}"
            kept.write_bytes(content)
            sys.stderr.write(f"{kept}: {word[:200]}, {growth} MB\n")
        assert not word.startswith("bug"), word.encode().decode("unicode_escape")
        assert growth < MEGABYTES, f"{growth} MB for a file of {len(content)} bytes"
        assert not (self.folder / "pwned").exists()


@pytest.fixture(scope="module")
def reader(seeds: Path) -> Iterator[Reader]:
    found = Reader(seeds)
    yield found
    found.stop()


fraction = st.floats(0, 1, exclude_max=True)
change = st.one_of(
    st.tuples(st.just("byte"), fraction, st.integers(0, 255)),
    st.tuples(st.just("number"), fraction, st.sampled_from(NUMBERS)),
    st.tuples(st.just("word"), fraction, st.sampled_from(WORDS)),
    st.tuples(st.just("lose"), fraction, st.integers(1, 200)),
    st.tuples(st.just("repeat"), fraction, st.integers(1, 200)),
    st.tuples(st.just("cut"), fraction, st.just(0)),
)


def damaged(content: bytes, changes: list[tuple[str, float, Any]], head: int) -> bytes:
    """The content with some changes, most of them among the first ``head`` bytes."""
    for k, (kind, where, what) in enumerate(changes):
        at = int(where * (len(content) if k % 4 == 3 else min(head, len(content))))
        if kind == "byte":
            content = content[:at] + bytes([what]) + content[at + 1 :]
        elif kind == "number":
            at -= at % 8
            content = content[:at] + struct.pack("<Q", what) + content[at + 8 :]
        elif kind == "word":
            content = content[:at] + what + content[at:]
        elif kind == "lose":
            content = content[:at] + content[at + what :]
        elif kind == "repeat":
            content = content[: at + what] + content[at:]
        else:
            content = content[:at]
    return content


PATIENT = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 60,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", SEEDS)
def test_damaged_files_are_refused(reader: Reader, seeds: Path, target: str) -> None:
    """Fails if a reader lets a library's error through, believes a declared size, or unpickles."""
    contents = [(seeds / name).read_bytes() for name in SEEDS[target]]
    head = 10**9 if target in TEXT else 4096 if target in HDF5 else 600
    before, end = Counter(reader.count), time.monotonic() + LIMIT

    @PATIENT
    @given(st.sampled_from(contents), st.lists(change, min_size=1, max_size=6))
    def attack(content: bytes, changes: list[tuple[str, float, Any]]) -> None:
        if time.monotonic() < end:
            reader.check(target, damaged(content, changes, head))

    attack()
    report(target, reader.count - before)


LAUGHS = "x0: &x0 [a, a]\n" + "".join(f"x{k}: &x{k} [*x{k - 1}, *x{k - 1}]\n" for k in range(1, 40))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("recipe", f"{LAUGHS}training: {{steps: *x39}}"),
        ("detector", f"{LAUGHS}name: *x39\nlayers: *x39"),
        ("recipe", "model: &a [*a]"),
        ("recipe", "[" * 20_000),
        ("recipe", "day: 2001-99-99"),
        ("detector", "!!python/object/apply:os.system ['touch pwned']"),
        ("xml", "<!DOCTYPE x [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]><Bins>&b;</Bins>"),
        ("xml", "<Bins>" * 100_000),
    ],
)
def test_texts_that_grow_are_refused(reader: Reader, target: str, text: str) -> None:
    """Forty lines of aliases make 10¹² values: fails if an error message spells them out."""
    reader.check(target, text.encode())


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("target", "key"), [("model", "hepbridge"), ("generator", "hepbridge-generator")]
)
def test_models_with_any_header_are_refused_or_work(
    reader: Reader, seeds: Path, target: str, key: str
) -> None:
    """Values of the JSON header are replaced, with a digest that fits, as an attacker would."""
    with safe_open(seeds / SEEDS[target][0], framework="pt") as handle:
        record = json.loads(handle.metadata()[key])
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    places = list(leaves(record))
    before, end = Counter(reader.count), time.monotonic() + LIMIT

    @PATIENT
    @given(
        st.lists(
            st.tuples(st.sampled_from(places), st.sampled_from(VALUES)), min_size=1, max_size=3
        )
    )
    def attack(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
        if time.monotonic() >= end:
            return
        changed = json.loads(json.dumps(record))
        for place, value in changes:
            inside = changed
            for step in place[:-1]:
                there = isinstance(inside, list | dict) and has(inside, step)
                inside = inside[step] if there else {}
            if isinstance(inside, dict | list) and has(inside, place[-1]):
                inside[place[-1]] = copy.deepcopy(value)  # or a later change is one of itself
        path = seeds / "header.safetensors"
        text = json.dumps(changed)
        digest = content_digest(tensors, text)
        save_file(tensors, path, metadata={key: text, "digest": digest})
        reader.check(target, path.read_bytes())

    attack()
    report(f"{target} header", reader.count - before)


def has(inside: Any, key: Any) -> bool:
    if isinstance(inside, dict):
        return key in inside
    return isinstance(key, int) and key < len(inside)


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values are in a JSON record, those of blocks included."""
    if place:
        yield place
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*place, key))


def report(target: str, count: Counter[str]) -> None:
    """A line for tools/reliability.py."""
    if "HEPBRIDGE_FUZZ_REPORT" in os.environ:
        with open(os.environ["HEPBRIDGE_FUZZ_REPORT"], "a", encoding="utf-8") as handle:
            handle.write(json.dumps({"name": target, **count}) + "\n")
