"""Cut the bundled Z + jet events out of the samples of ``make results-unfolding``.

    python tools/make_zjets_sample.py [--work results-work/unfolding]

Writes src/hepbridge/data/bundled/zjets_{a14,vincia}.h5 from {a14,vincia}-nompi.h5: the events with the
first 50,000 pairs, as far as they pass at one level or the other, with the six observables and the
transverse momentum at both levels. To be small, values are rounded to 12 mantissa bits (relative error at
most 1.2e-4).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from hepbridge.data.formats.tables import load_tables, save_tables
from hepbridge.data.sample import ZJETS, zjets_path
from hepbridge.data.tables import Table

COLUMNS = ("pt", "mass", "width", "multiplicity", "ln_rho", "z_g", "tau21")
PAIRS = 50_000
DROPPED = 52 - 12  # of the mantissa of float64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("results-work/unfolding"))
    args = parser.parse_args()
    for name in ZJETS:
        source = args.work / f"{name}-nompi.h5"
        tables = load_tables(source)
        particle, detector = tables["particle"], tables["detector"]
        passes = particle.flag("pass"), detector.flag("pass")
        pairs = passes[0] & passes[1] & particle.flag("matched")
        last = int(np.flatnonzero(pairs)[PAIRS - 1]) + 1
        rows = np.flatnonzero((passes[0] | passes[1])[:last])
        note = {"source_file": source.name, "rounding": "12 bits of the mantissa"}
        save_tables(
            {level: cut(table[rows]) for level, table in tables.items()},
            zjets_path(name),
            meta={**particle.meta, **note},
            overwrite=True,
        )
        print(zjets_path(name).name, len(rows), "events,", zjets_path(name).stat().st_size, "bytes")


def cut(table: Table) -> Table:
    """The columns that are kept, rounded."""
    return replace(
        table,
        columns={name: rounded(table.columns[name]) for name in COLUMNS},
        units={name: table.units[name] for name in COLUMNS},
        defined={name: mask for name, mask in table.defined.items() if name in COLUMNS},
        meta={},
    )


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest numbers with 12 bits of the mantissa; NaN stays."""
    bits = np.ascontiguousarray(values).view(np.uint64)
    half = np.uint64(1 << (DROPPED - 1))
    near = ((bits + half) >> np.uint64(DROPPED)) << np.uint64(DROPPED)
    return np.where(np.isfinite(values), near.view(np.float64), values)


if __name__ == "__main__":
    main()
