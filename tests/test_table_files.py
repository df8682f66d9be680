"""Event tables in ROOT, Parquet and NumPy files: round trips, analysts' own files, hostile ones."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hepbridge.core.errors import DataError, MissingExtraError, OutputError
from hepbridge.data.table_files import SUFFIXES, read_tables, write_tables
from hepbridge.data.tables import Table

FLAT = (".root", ".parquet", ".npz")


def toy(n: int = 7, seed: int = 0, weighted: bool = True) -> Table:
    rng = np.random.default_rng(seed)
    return Table.from_columns(
        {"mass": rng.normal(size=n), "z_g": rng.normal(size=n), "n": np.arange(n)},
        {"mass": "GeV", "z_g": "1", "n": "1"},
        defined={"z_g": np.arange(n) % 3 > 0},
        flags={"pass": np.arange(n) % 2 == 0},
        weights=rng.normal(size=n) if weighted else None,
        event_ids=np.stack([np.full(n, 2**64 - 3, np.uint64), np.arange(n, dtype=np.uint64)], 1),
        meta={"generator": "toy", "settings": ["a=1", 2.5, None]},
    )


def assert_equal(one: Table, other: Table) -> None:
    assert list(one.columns) == list(other.columns) and one.units == other.units
    for name, column in one.columns.items():
        assert np.array_equal(column, other.columns[name], equal_nan=True)
        assert other.columns[name].dtype == np.float64
    for ours, theirs in ((one.defined, other.defined), (one.flags, other.flags)):
        assert list(ours) == list(theirs)
        assert all(np.array_equal(mask, theirs[name]) for name, mask in ours.items())
    assert np.array_equal(one.event_ids, other.event_ids)
    assert (one.weights is None) == (other.weights is None)
    assert one.weights is None or np.array_equal(one.weights, other.weights)
    assert one.meta == other.meta


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("weighted", [False, True])
def test_round_trip(tmp_path: Path, suffix: str, weighted: bool) -> None:
    """Fails if units, masks, flags, weights, 64-bit event ids or provenance are lost."""
    table, path = toy(weighted=weighted), tmp_path / f"a{suffix}"
    write_tables({"particle": table}, path)
    (back,) = read_tables(path).items()
    assert back[0] == "particle"
    assert_equal(table, back[1])
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("suffix", [".h5", ".root"])
def test_two_tables(tmp_path: Path, suffix: str) -> None:
    path, tables = tmp_path / f"a{suffix}", {"particle": toy(), "detector": toy(5, 1, False)}
    write_tables(tables, path)
    back = read_tables(path)
    assert list(back) == ["particle", "detector"]
    for name, table in tables.items():
        assert_equal(table, back[name])
    assert list(read_tables(path, ["detector"])) == ["detector"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_numbers_come_back(tmp_path: Path, data: st.DataObject) -> None:
    """Any finite float64 and any mask, through every flat format, bit for bit."""
    n = data.draw(st.integers(1, 20))
    column = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=n, max_size=n)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    table = Table.from_columns({"x": data.draw(column)}, {"x": "TeV"}, defined={"x": mask})
    suffix = data.draw(st.sampled_from(FLAT))
    write_tables({"t": table}, tmp_path / f"p{suffix}", overwrite=True)
    back = read_tables(tmp_path / f"p{suffix}")["t"]
    assert np.array_equal(back.columns["x"], table.columns["x"], equal_nan=True)
    assert np.array_equal(back.is_defined("x"), mask)


def foreign(path: Path) -> dict[str, np.ndarray]:
    """An analyst's file, with types of all kinds, in the format that the suffix says."""
    columns: dict[str, np.ndarray] = {
        "m_jet": np.array([1.5, np.nan, 3.0], np.float32),
        "njet": np.array([1, 2, 3], np.int32),
        "run": np.array([7, 7, 8], np.uint64),
        "event": np.array([11, 12, 11], np.int64),
        "trigger": np.array([True, False, True]),
        "w": np.array([0.5, -1.0, 2.0]),
    }
    if path.suffix == ".root":
        with uproot.recreate(path) as file:
            file.mktree("ntuple", {n: a.dtype for n, a in columns.items()}).extend(columns)
    elif path.suffix == ".rntuple":
        with uproot.recreate(path) as file:
            file.mkrntuple("ntuple", {n: a.dtype for n, a in columns.items()}).extend(columns)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        np.savez(path, **columns)
    return columns


@pytest.mark.parametrize("suffix", [".root", ".rntuple", ".parquet", ".npz"])
def test_foreign_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ntuple{suffix}"
    columns = foreign(path)
    table = read_tables(path, units={"m_jet": "GeV"}, weights="w", event_ids=("run", "event"))[
        "ntuple"
    ]
    assert table.units == {"m_jet": "GeV", "njet": "1"}
    assert table.is_defined("m_jet").tolist() == [True, False, True]
    assert np.array_equal(table.column("njet"), columns["njet"])
    assert np.array_equal(table.flag("trigger"), columns["trigger"])
    assert table.weights is not None and np.array_equal(table.weights, columns["w"])
    assert table.event_ids.tolist() == [[7, 11], [7, 12], [8, 11]]
    some = read_tables(path, columns={"mass": "m_jet"}, units={"mass": "GeV"})["ntuple"]
    other = read_tables(path, columns=["njet", "trigger"])["ntuple"]
    assert list(some.columns) == ["mass"] and not some.flags and some.weights is None
    assert list(other.flags) == ["trigger"]
    assert np.array_equal(some.event_ids, other.event_ids)  # the same rows of the same file
    with pytest.raises(DataError, match=r"no column 'pt'; it has: m_jet, njet"):
        read_tables(path, columns=["pt"])


def test_only_asked_columns_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if the whole file is read first: what is not asked for may be unreadable."""
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"x": [1.0, 2.0], "name": ["a", "b"], "many": [[1.0], [2.0, 3.0]]}), path
    )
    assert read_tables(path, columns=["x"])["a"].column("x").tolist() == [1.0, 2.0]
    with pytest.raises(
        DataError, match=r"name \(string\), many \(list<.*> choose|choose among .* x$"
    ):
        read_tables(path)
    seen = []
    reading = pq.ParquetFile.read
    monkeypatch.setattr(
        pq.ParquetFile, "read", lambda s, **k: (seen.append(k["columns"]), reading(s, **k))[1]
    )
    read_tables(path, columns=["x"])
    assert seen == [["x"]]


def test_only_archives_are_asked_whether_they_are_of_energyflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if every file is opened as an archive first."""
    asked: list[str] = []
    monkeypatch.setattr(
        "hepbridge.data.table_files.is_energyflow", lambda path: asked.append(path.suffix)
    )
    for suffix in (".h5", *FLAT):
        write_tables({"t": toy()}, tmp_path / f"a{suffix}")
        read_tables(tmp_path / f"a{suffix}")
    assert asked == [".npz"]


def test_jagged_and_text_branches_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        file.mktree("jets", {"pt": "var * float64", "n": np.int32})
        file["jets"].extend({"pt": ak.Array([[1.0], [2.0, 3.0]]), "n": np.array([1, 2], np.int32)})
    with pytest.raises(
        DataError, match=r"'jets': not one number for each event: pt \(double\[\]\)"
    ):
        read_tables(path)
    assert read_tables(path, columns=["n"])["jets"].column("n").tolist() == [1, 2]
    with uproot.recreate(path) as file:
        file.mkrntuple("a", {"x": np.float64, "s": "string"}).extend(
            {"x": np.array([1.0]), "s": ["text"]}
        )
    with pytest.raises(DataError, match=r"s \(std::string\); choose .*: x"):
        read_tables(path)


def test_several_and_missing_trees(tmp_path: Path) -> None:
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        for name in ("truth", "dir/reco"):
            file.mktree(name, {"x": np.float64}).extend({"x": np.arange(3.0)})
    with pytest.raises(DataError, match=r"which tree is the table\? .* truth, dir/reco"):
        read_tables(path)
    with pytest.raises(DataError, match=r"no tree 'gen'; the file has: truth, dir/reco"):
        read_tables(path, ["gen"])
    both = read_tables(path, ["truth", "dir/reco"])
    assert not np.array_equal(both["truth"].event_ids, both["dir/reco"].event_ids)
    with uproot.recreate(path) as file:
        file["note"] = "no tree"
    with pytest.raises(DataError, match="no TTree and no RNTuple"):
        read_tables(path)


@pytest.mark.parametrize("suffix", FLAT)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_truncated_files(tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"a{suffix}"
    write_tables({"t": toy(5000)}, path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(part * len(raw))])
    with pytest.raises(DataError, match=f"a{suffix}.*(truncated|damaged)"):
        read_tables(path)


@pytest.mark.parametrize("suffix", FLAT)
def test_damaged_bytes_never_make_a_traceback(tmp_path: Path, suffix: str) -> None:
    """Any flipped byte is a DataError or gives a table; nothing else comes out."""
    path, rng = tmp_path / f"a{suffix}", np.random.default_rng(0)
    write_tables({"t": toy(50)}, path)
    raw = bytearray(path.read_bytes())
    for _ in range(60):
        broken = bytearray(raw)
        broken[rng.integers(4, len(raw))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(broken))
        try:
            assert read_tables(path)
        except DataError as error:
            assert path.name in str(error)


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_tables({"t": toy()}, tmp_path / "a.root")
    (tmp_path / "a.root").rename(path)
    assert_equal(read_tables(path)["t"], toy())
    path.write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match="no file of event tables; HDF5, ROOT, Parquet"):
        read_tables(path)
    with pytest.raises(DataError, match="no such file"):
        read_tables(tmp_path / "none.root")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    table = toy()
    with pytest.raises(OutputError, match=r"tables end in \.h5"):
        write_tables({"t": table}, tmp_path / "a.csv")
    for suffix in (".parquet", ".npz"):
        with pytest.raises(DataError, match="holds one table, not a, b"):
            write_tables({"a": table, "b": table}, tmp_path / f"a{suffix}")
    for name, suffix in (("weight", ".npz"), ("pass", ".parquet"), ("jet pt", ".root")):
        clash = Table.from_columns(
            {name: [1.0, 2.0]}, {name: "1"}, flags={"pass": [True, True]}, weights=[1.0, 1.0]
        )
        with pytest.raises(DataError, match=f"{name!r}"):
            write_tables({"t": clash}, tmp_path / f"a{suffix}")
    write_tables({"t": table}, tmp_path / "a.root")
    with pytest.raises(OutputError, match="exists already"):
        write_tables({"t": table}, tmp_path / "a.root")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.root"]


def test_unequal_lengths_objects_and_infinities(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(3.0), y=np.arange(4.0))
    with pytest.raises(DataError, match="'y' has 4 rows, but 'x' has 3"):
        read_tables(path)
    np.savez(path, x=np.arange(3.0), y=np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"y \(float64 of shape \(3, 2\)\)"):
        read_tables(path)
    np.savez(path, x=np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(DataError, match="'x' holds Python objects, which are never unpickled"):
        read_tables(path)
    for name, write in (
        ("a.npz", lambda p, x: np.savez(p, x=x)),
        ("a.parquet", lambda p, x: pq.write_table(pa.table({"x": x}), p)),
    ):
        write(tmp_path / name, np.array([1.0, -np.inf]))
        with pytest.raises(
            DataError, match="'x' is -inf in row 1; a value that does not exist is NaN"
        ):
            read_tables(tmp_path / name)


def test_nulls_and_big_integers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": pa.array([1, None, 3]), "big": [1, 2, 2**53 + 1]}), path)
    with caplog.at_level(logging.WARNING):
        table = read_tables(path)["a"]
    assert "'big' has integers above 2^53" in caplog.text
    assert table.is_defined("n").tolist() == [True, False, True]
    pq.write_table(pa.table({"x": [1.0, 2.0], "flag": pa.array([True, None])}), path)
    with pytest.raises(DataError, match="truth values 'flag' have nulls"):
        read_tables(path)


def test_units(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        write_tables({"t": toy()}, path)
        assert read_tables(path, units={"mass": "GeV"})["t"].units["mass"] == "GeV"
        with pytest.raises(DataError, match="'mass' is in 'GeV', as the file says, not in 'MeV'"):
            read_tables(path, units={"mass": "MeV"})
    assert pq.read_schema(tmp_path / "a.parquet").field("mass").metadata == {b"unit": b"GeV"}
    path = tmp_path / "b.npz"
    np.savez(path, x=np.arange(3.0))
    with pytest.raises(DataError, match="unit 'furlong' is unknown"):
        read_tables(path, units={"x": "furlong"})
    with caplog.at_level(logging.INFO):
        read_tables(path, units={"y": "GeV"})
    assert "there is a unit of 'y', but no such column" in caplog.text


def test_example_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    code = re.search(r"## Event tables in your own.*?```python\n(.*?)```", text, re.S)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})  # our own page
    table = read_tables("jets.npz")["jets"]
    assert table.units == {"mass": "GeV"} and table.event_ids[1].tolist() == [7, 2]


def test_record_of_another_version(tmp_path: Path) -> None:
    note = '{"format": "hepbridge-table", "format_version": 9}'
    np.savez(tmp_path / "a.npz", x=np.arange(3.0), hepbridge=np.array(note))
    with pytest.raises(DataError, match="version 9 of hepbridge-table, this hepbridge reads 1"):
        read_tables(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("module", "suffix"), [("uproot", ".root"), ("pyarrow.parquet", ".parquet")]
)
def test_missing_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    write_tables({"t": toy()}, path)
    monkeypatch.setitem(sys.modules, module, None)
    for act in (
        lambda: read_tables(path),
        lambda: write_tables({"t": toy()}, path, overwrite=True),
    ):
        with pytest.raises(MissingExtraError, match=rf"hepbridge\[{suffix[1:]}\]"):
            act()
