"""Put the trained default model into the package, with its model card.

    python tools/results/ship.py [--work results-work]

Run after `squirels.py`: the card's figures are those of the last line of docs/results/squirels.jsonl,
which must be of this very model.
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("results-work"))
    path = parser.parse_args().work / "squirels.safetensors"
    lines = (ROOT / "docs" / "results" / "squirels.jsonl").read_text("utf-8").splitlines()
    record = json.loads(lines[-1])
    if record["models"].get("squirels") != file_digest(path):
        raise SystemExit(f"the last results are not of {path}: run squirels.py first")
    if path.stat().st_size > LIMIT:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {LIMIT}")
    MODELS.mkdir(exist_ok=True)
    shutil.copy(path, MODELS / path.name)
    write_text(MODELS / "squirels.md", card(load(str(path)), record, path.stat().st_size))


def card(model: Model, record: dict[str, Any], size: int) -> str:
    """The model card."""
    domain, made, held = model.domain, model.provenance, model.metrics
    rows = []
    for label in ("fixed", "mixed"):
        for sample in record["sets"][label]:
            tests = sample["classifier"]["squirels"]
            ratios = [row["candidates"]["squirels"]["ratio"] for row in sample["rows"]]
            text = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            aucs = " | ".join(
                f"{tests[name][level]['auc']:.3f} ({tests[name][level]['floor_auc']:.3f})"
                for name in ("trees", "mlp")
                for level in ("low", "high")
            )
            rows.append(f"| {sample['label']} | {sample['n']:,} | {text} | {aucs} |")
    names = ", ".join(row["observable"] for row in record["sets"]["fixed"][0]["rows"])
    return "\n".join(
        [
            "# Model card: squirels",
            "",
            "Refines an electron shower of GFLASH to one of full simulation (Geant4), with one network",
            "evaluation. `hepbridge refine squirels fast.h5 -o refined.h5`.",
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
            f"| digest of the file | `{record['models']['squirels']}` |",
            "",
            "## What it reaches",
            "",
            "On samples that it never saw, against full simulation. Floor ratios: distance divided by "
            "that of two samples of full simulation, 1 is a perfect model;",
            f"in the order {names} (e_ratio for e_sum at mixed energies). AUC (that of two samples of "
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
