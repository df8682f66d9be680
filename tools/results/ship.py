"""Put the trained default model and the faster one into the package, with their model cards.

    python tools/results/ship.py [--work results-work]

Run after `squirels.py`: the cards' figures are those of the last line of docs/results/squirels.jsonl,
which must be of these very models.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from hepbridge.core.files import file_digest, write_text
from hepbridge.systems.model_file import Model, load

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "src" / "hepbridge" / "models"
LIMIT = 5_000_000  # bytes
SHIPPED = {
    "squirels": "the default",
    "squirels-small": "the faster one, with a smaller network",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("results-work"))
    work = parser.parse_args().work
    lines = (ROOT / "docs" / "results" / "squirels.jsonl").read_text("utf-8").splitlines()
    record = json.loads(lines[-1])
    for name in SHIPPED:
        path = work / f"{name}.safetensors"
        if record["models"].get(name) != file_digest(path):
            raise SystemExit(f"the last results are not of {path}: run squirels.py first")
        if path.stat().st_size > LIMIT:
            raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {LIMIT}")
    MODELS.mkdir(exist_ok=True)
    for name in SHIPPED:
        path = work / f"{name}.safetensors"
        shutil.copy(path, MODELS / path.name)
        text = card(name, load(str(path)), record, path.stat().st_size)
        write_text(MODELS / f"{name}.md", text)


def card(name: str, model: Model, record: dict[str, Any], size: int) -> str:
    """The model card."""
    domain, made, held = model.domain, model.provenance, model.metrics
    rows = []
    for label in ("fixed", "mixed"):
        for sample in record["sets"][label]:
            tests = sample["classifier"][name]
            ratios = [row["candidates"][name]["ratio"] for row in sample["rows"]]
            text = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            aucs = " | ".join(
                f"{tests[kind][level]['auc']:.3f} ({tests[kind][level]['floor_auc']:.3f})"
                if kind in tests
                else "not run"
                for kind in ("trees", "mlp")
                for level in ("low", "high")
            )
            rows.append(f"| {sample['label']} | {sample['n']:,} | {text} | {aucs} |")
    observables = ", ".join(row["observable"] for row in record["sets"]["fixed"][0]["rows"])
    return "\n".join(
        [
            f"# Model card: {name}, {SHIPPED[name]}",
            "",
            "Refines an electron shower of GFLASH to one of full simulation (Geant4), with one network",
            f"evaluation. `hepbridge refine {name} fast.h5 -o refined.h5`.",
            "",
            "| | |",
            "|---|---|",
            f"| detector | {model.geometry.name}: {'×'.join(map(str, model.geometry.shape))} crystals of "
            "PbWO4, 3×3×24 cm, beam on the axis |",
            f"| particle | {domain.particle} |",
            f"| valid for | {domain.energy_min / 1000:.4g} to {domain.energy_max / 1000:.4g} GeV; beyond, "
            "showers are flagged, or refused with `--strict` |",
            f"| full simulation | {domain.full.get('simulation')}; cross sections: "
            f"{domain.full.get('cross_sections')} |",
            f"| fast simulation | {domain.fast.get('simulation')} |",
            f"| trained | {made['date'][:10]}, {made['training_pairs']:,} pairs, "
            f"{made['training_seconds']:.0f} s on one core beside its teacher's training, seed "
            f"{made['request']['seed']} |",
            f"| size | {size:,} bytes, {sum(p.numel() for p in model.members[0].parameters()):,} "
            "parameters |",
            f"| made by | `make results`, then `python tools/results/ship.py`; {record['date'][:10]} |",
            f"| digest of the file | `{record['models'][name]}` |",
            "",
            "## What it reaches",
            "",
            "On samples that it never saw, against full simulation. Floor ratios: distance divided by "
            "that of two samples of full simulation, 1 is a perfect model;",
            f"in the order {observables} (e_ratio for e_sum at mixed energies). AUC (that of two samples of "
            "full simulation).",
            "",
            "| sample | n | floor ratios | trees, cells | trees, shapes | MLP, cells | MLP, shapes |",
            "|---|---:|---|---:|---:|---:|---:|",
            *rows,
            "",
            f"Held out in training, {held['n']:,} pairs: distance {held['distance']['refined']:.4f} "
            f"(GFLASH {held['distance']['fast']:.4f}), AUC {held['auc']['refined']:.3f} "
            f"(GFLASH {held['auc']['fast']:.3f}).",
            "",
            "All figures, and where it is not at the floor: docs/results/squirels.md.",
            "",
            "## What it is not for",
            "",
            "- Another detector, particle, beam position or physics list: train a model of your own "
            "(`hepbridge train squirels`).",
            "- Other settings of GFLASH: the refiner corrects the fast simulation that it has seen.",
            "- The cross sections are those of the table above, not of the official Geant4 data: for "
            "physics, train on your own full simulation.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
