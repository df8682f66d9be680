"""Make the events, train and judge every method of unfolding, and write docs/results/unfolding.md.

    python tools/results/unfolding.py [--work results-work/unfolding] [--n 200000] [--again PART]
        [--from-json]

The events (extra pythia) take about 45 minutes of two cores for each million without, and 90 minutes
with multiparton interactions; the trainings and the rest an hour of one core. Every part is kept in
``WORK/results.json`` as soon as it is known, and not measured again, unless ``--again`` names it
(``closure``, ``monash``, ``vincia``, the same with ``-few``, ``calibration``, ``prior``, ``acceptance``,
``speed``).
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import unfolding_studies as studies
from unfolding_figures import figures
from unfolding_page import page
from unfolding_samples import STUDIES, Sample, make

from hepbridge.core.files import write_text

DOCS = Path(__file__).parents[2] / "docs" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("results-work/unfolding"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--n", type=int, default=200_000, help="events of each sample")
    parser.add_argument("--again", action="append", default=[], metavar="PART")
    parser.add_argument("--only", action="append", default=[], metavar="PART")
    parser.add_argument("--from-json", action="store_true", help="write the page, measure nothing")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    kept = args.work / "results.json"
    found = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    parts = {
        **{study: partial(studies.many, args.work, args.docs, study) for study in STUDIES},
        **{f"{study}-few": partial(studies.few, args.work, study) for study in STUDIES},
        "calibration": partial(studies.calibration, args.work),
        "prior": partial(studies.prior, args.work),
        "acceptance": partial(studies.acceptance, args.work),
        "speed": partial(studies.speed, args.work),
    }
    if not args.from_json:
        make(args.work, args.n)
        studies.models(args.work)
        for name, measure in parts.items():
            if (name in found and name not in args.again) or (args.only and name not in args.only):
                continue
            before = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
            value = measure()
            # another process may have measured another part meanwhile
            before = json.loads(kept.read_text("utf-8")) if kept.exists() else before
            found = {**found, **before, name: value}
            found |= {"n": args.n, "date": datetime.now(UTC).isoformat(timespec="seconds")}
            write_text(kept, json.dumps(found, indent=1))
    if {"closure", "calibration", "prior", "acceptance", "speed"} <= found.keys():
        names = dict.fromkeys(name for pair in STUDIES.values() for name in pair)
        found["samples"] = {
            name: Sample(args.work, name).whole.describe()
            for name in names
            if (args.work / f"{name}.h5").exists()
        }
        figures(found, args.work, args.docs)
        write_text(args.docs / "unfolding.md", page(found))


if __name__ == "__main__":
    main()
