"""Event tables: what is refused, what a mask means, and files that give back what they were given."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from hepbridge.core.errors import DataError, OutputError
from hepbridge.data.formats.tables import load_tables, read_tables_manifest, save_tables
from hepbridge.data.tables import Table

NAN = float("nan")


def table(**changes) -> Table:
    arguments = {
        "columns": {"pt": [200.0, 150.0, 180.0], "z_g": [0.2, -1.0, 0.4]},
        "units": {"pt": "GeV", "z_g": "1"},
        "defined": {"z_g": [True, False, True]},
        "flags": {"pass": [True, False, True]},
        "weights": [1.0, -0.5, 2.0],
        "meta": {"seed": 3},
    }
    return Table.from_columns(**{**arguments, **changes})


def test_undefined_values_are_never_numbers() -> None:
    """Fails if what stood under the mask, here the -1 of FastJet, stays in the column."""
    t = table()
    assert np.isnan(t.column("z_g")[1]) and t.column("z_g")[[0, 2]].tolist() == [0.2, 0.4]
    assert t.is_defined().tolist() == [True, False, True]
    assert t.is_defined("pt").all()
    assert t.filled("z_g", 0.0).tolist() == [0.2, 0.0, 0.4]
    with pytest.raises(DataError, match="1 of 3 rows have no value of z_g"):
        t.array(["pt", "z_g"])
    chosen = t[t.is_defined()]
    assert chosen.array(["z_g", "pt"]).tolist() == [[0.2, 200.0], [0.4, 180.0]]
    assert chosen.defined == {}  # nothing is undefined any more


def test_units() -> None:
    """1 TeV = 1000 GeV = 10^6 MeV; fails if a factor is upside down."""
    t = table()
    assert t.column("pt", "TeV").tolist() == pytest.approx([0.2, 0.15, 0.18])
    assert t.column("pt", "MeV").tolist() == pytest.approx([2e5, 1.5e5, 1.8e5])
    lengths = Table.from_columns({"r": [2.0]}, {"r": "m"})
    assert lengths.column("r", "cm").tolist() == [200.0]
    with pytest.raises(DataError, match=r"'z_g' is in '1' \(number\) and cannot be had in 'GeV'"):
        t.column("z_g", "GeV")
    with pytest.raises(DataError, match="unit 'gev' is unknown; allowed: 1, rad, MeV"):
        t.column("pt", "gev")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"columns": {}}, "has no columns"),
        ({"columns": {"pt": [1.0, 2.0], "z_g": [0.1] * 3}}, "'z_g' has 3 rows, but 'pt' has 2"),
        ({"weights": [1.0]}, "'weights' has 1 rows, but 'pt' has 3"),
        ({"flags": {"pass": [True]}}, "'pass' has 1 rows, but 'pt' has 3"),
        ({"defined": {"z_g": [True] * 2}}, "'the mask of z_g' has 2 rows"),
        ({"defined": None, "columns": {"pt": [1, 2, 3], "z_g": [0.1, NAN, 0.2]}},
         "column 'z_g' is nan in row 1; where a value does not exist, say so with a mask"),
        ({"columns": {"pt": [1.0, 2.0, np.inf], "z_g": [0.1] * 3}}, "'pt' is inf in row 2"),
        ({"units": {"pt": "GeV"}}, "column 'z_g' has no unit"),
        ({"units": {"pt": "furlong", "z_g": "1"}}, "unit 'furlong' is unknown"),
        ({"units": {"pt": "GeV", "z_g": "1", "m": "GeV"}}, "a unit of 'm', but no such column"),
        ({"defined": {"m": [True] * 3}}, "a mask of 'm', but no such column"),
        ({"columns": {"pt": [[1.0]] * 3, "z_g": [0.1] * 3}}, "'pt' must be numbers of shape"),
        ({"columns": {"pt": ["a"] * 3, "z_g": [0.1] * 3}}, "'pt' must be numbers of shape"),
        ({"flags": {"pass": [1, 0, 1]}}, "flag 'pass' must be truth values"),
        ({"weights": [1.0, NAN, 1.0]}, "weights must be finite; row 1"),
        ({"event_ids": [[0, 1]]}, r"event ids must be integers >= 0 of shape \(3, 2\)"),
        ({"columns": {"pt": []}, "units": {"pt": "GeV"}, "defined": None, "flags": None,
          "weights": None}, "holds no events"),
    ],
)  # fmt: skip
def test_what_is_refused(changes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        table(**changes)


def test_missing_names() -> None:
    with pytest.raises(DataError, match="no column 'mass'; the table has: pt, z_g"):
        table().column("mass")
    with pytest.raises(DataError, match="no column 'mass'"):
        table().is_defined("mass")
    with pytest.raises(DataError, match="no flag 'matched'; the table has: pass"):
        table().flag("matched")


def test_ids_name_the_content() -> None:
    a, b = table(), table(columns={"pt": [200.0, 150.0, 181.0], "z_g": [0.2, -1.0, 0.4]})
    assert (a.event_ids == table().event_ids).all()
    assert a.event_ids[0, 0] != b.event_ids[0, 0]
    assert a.event_ids[:, 1].tolist() == [0, 1, 2]


def same(a: Table, b: Table) -> None:
    assert list(a.columns) == list(b.columns) and a.units == b.units and a.meta == b.meta
    for one, other in ((a.columns, b.columns), (a.defined, b.defined), (a.flags, b.flags)):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_array_equal(a.event_ids, b.event_ids)
    np.testing.assert_array_equal(a.weights, b.weights)


def test_cut_in_pieces_and_joined_again() -> None:
    """Fails if a mask is lost where a piece has no undefined value."""
    t = table()
    same(Table.joined([t[:1], t[1:2], t[2:]]), t)
    with pytest.raises(DataError, match="different units cannot be joined"):
        Table.joined([t, table(units={"pt": "MeV", "z_g": "1"})])
    with pytest.raises(DataError, match="different weights"):
        Table.joined([t, table(weights=None)])
    with pytest.raises(DataError, match="no tables"):
        Table.joined([])


def test_file_gives_back_what_it_was_given(tmp_path: Path) -> None:
    path, both = tmp_path / "t.h5", {"particle": table(), "detector": table()[:2]}
    save_tables(both, path, manifest={"command": "x", "n": 3})
    back = load_tables(path)
    assert list(back) == ["particle", "detector"]
    for name in both:
        same(back[name], both[name])
    assert read_tables_manifest(path) == {"command": "x", "n": 3}
    assert list(load_tables(path, ["detector"])) == ["detector"]
    with pytest.raises(DataError, match="there is no table 'reco'; the file has: "):
        load_tables(path, ["reco"])
    with pytest.raises(OutputError, match="exists already"):
        save_tables(both, path)
    same(load_tables(path)["particle"], both["particle"])
    save_tables(both, tmp_path / "u.h5", manifest={"command": "x", "n": 3})
    assert path.read_bytes() == (tmp_path / "u.h5").read_bytes()


def test_file_says_which_provenance_it_has(tmp_path: Path) -> None:
    save_tables({"a": table()}, tmp_path / "t.h5", meta={"settings": ["x = 1", "y = 2"]})
    meta = load_tables(tmp_path / "t.h5")["a"].meta
    assert meta == {"settings": ["x = 1", "y = 2"], "seed": 3}
    assert read_tables_manifest(tmp_path / "t.h5") is None
    assert read_tables_manifest(tmp_path / "none.h5") is None


def test_names_that_hdf5_does_not_take(tmp_path: Path) -> None:
    slash = Table.from_columns({"a/b": [1.0]}, {"a/b": "1"})
    for tables in ({"t": slash}, {"a/b": table()}, {"": table()}):
        with pytest.raises(DataError, match="is no name of a dataset"):
            save_tables(tables, tmp_path / "t.h5")
    with pytest.raises(DataError, match="there are no tables"):
        save_tables({}, tmp_path / "t.h5")
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    with pytest.raises(DataError, match="there is no such file"):
        load_tables(path)
    with h5py.File(path, "w") as file:
        file["showers"] = np.zeros(3)
    with pytest.raises(DataError, match="is no file of event tables"):
        load_tables(path)
    save_tables({"a": table()}, path, overwrite=True)
    with h5py.File(path, "r+") as file:
        del file["a/columns/pt"].attrs["unit"]
    with pytest.raises(DataError, match="column 'pt' of table 'a' has no attribute 'unit'"):
        load_tables(path)
    save_tables({"a": table()}, path, overwrite=True)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(DataError, match="has version 2 of hepbridge-tables"):
        load_tables(path)
    save_tables({"a": table()}, path, overwrite=True)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="truncated or damaged"):
        load_tables(path)
