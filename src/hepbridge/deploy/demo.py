"""The demo: the main job from end to end on the bundled sample, in a few minutes."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hepbridge.core.files import file_digest
from hepbridge.data import io, sample
from hepbridge.data.join import join
from hepbridge.data.showers import Showers
from hepbridge.metrics import Evaluation, evaluate
from hepbridge.metrics.classifier import ClassifierSettings
from hepbridge.report import check_directory, write
from hepbridge.systems.gate import without_network
from hepbridge.systems.model_file import Model
from hepbridge.systems.train import split, train

__all__ = ["DemoResult", "run"]

log = logging.getLogger(__name__)

# A smaller teacher than the recipe's, fewer steps, and one thread: one to two minutes, also on a
# machine that is busy with other things.
_STEPS = 4200
_SMALL = ["model.options.teacher_options.then.width=256", "training.threads=1"]


@dataclass(frozen=True)
class DemoResult:
    """Where the report is, what it says, and how long it took (s)."""

    report: Path
    evaluation: Evaluation
    seconds: float

    def worse_rows(self) -> list[str]:
        """Rows in which the refined showers do not beat GFLASH beyond two standard deviations,
        although GFLASH is beyond two standard deviations of the floor."""
        out = []
        for record in self.evaluation.sets:
            for row in record["rows"]:
                fast, refined = row["candidates"]["gflash"], row["candidates"]["refined"]
                floor = row["floor"]
                visible = (
                    fast["emd"] - floor["mean"]
                    > 2 * (fast["sigma"] ** 2 + floor["std"] ** 2) ** 0.5
                )
                gain = fast["emd"] - refined["emd"]
                if visible and gain <= 2 * (fast["sigma"] ** 2 + refined["sigma"] ** 2) ** 0.5:
                    out.append(f"{row['observable']} at {record['label']}")
        return out


def run(output: Path, *, overwrite: bool = False, seed: int = 0, steps: int = _STEPS) -> DemoResult:
    """Train on the bundled sample, refine held-out showers at 20, 50 and 80 GeV, judge, report.

    Writes into the folder ``output``: ``model.safetensors``, ``refined_<E>gev.h5`` and ``report/``.
    Raises OutputError if the folder holds files already and ``overwrite`` is not set.
    """
    began = time.perf_counter()
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    check_directory(output / "report", overwrite=overwrite)
    fast, full = sample.load("train_fast"), sample.load("train_full")
    path = output / "model.safetensors"
    model = train(
        fast,
        full,
        recipe="squirels",
        overrides=[f"training.steps={steps}", *_SMALL],
        output=path,
        seed=seed,
        overwrite=overwrite,
    )
    baseline = without_network(model)
    assert baseline is not None  # the recipe has a network
    digest = file_digest(path)

    def refined_by(which: Model, showers: Showers) -> Showers:
        """Refined showers that say by which model file, and whether without its network."""
        out: Showers = which.refine(showers, seed=seed)
        by = f"{out.meta['refined_by']}{' without its network' if which is baseline else ''}"
        return replace(out, meta={**out.meta, "refined_by": by, "refined_model": digest})

    parts: dict[str, list[Showers]] = {
        name: [] for name in ("full", "full2", "gflash", "quantile", "refined")
    }
    for energy in sample.ENERGIES:
        gflash = sample.load("gflash", energy)
        refined = refined_by(model, gflash)
        io.save(refined, output / f"refined_{energy}gev.h5", overwrite=overwrite)
        for name, showers in {
            "full": sample.load("full", energy),
            "full2": sample.load("full2", energy),
            "gflash": gflash,
            "quantile": refined_by(baseline, gflash),
            "refined": refined,
        }.items():
            parts[name].append(showers)
    # the figure over all energies shows the pairs that the training held out
    held = split(len(fast), model.recipe.holdout, seed)[1]
    over_all = {
        "gflash": fast[held],
        "quantile": refined_by(baseline, fast[held]),
        "refined": refined_by(model, fast[held]),
    }
    joined: dict[str, Any] = {name: join(showers) for name, showers in parts.items()}
    ref, ref2 = joined.pop("full"), joined.pop("full2")
    evaluation = evaluate(
        ref,
        joined,
        ref2,
        seed=seed,
        classifier_settings=ClassifierSettings(seeds=5, folds=2, curve=()),
        paths={name: "bundled sample" for name in ("ref", "ref2", "gflash")}
        | {"refined": " ".join(f"refined_{energy}gev.h5" for energy in sample.ENERGIES)},
        command=f"hepbridge demo --seed {seed}",
    )
    report = write(
        evaluation,
        ref,
        joined,
        ref2,
        output / "report",
        fast="gflash",
        refined="refined",
        mixed=(full[held], over_all, None),
        overwrite=overwrite,
    )
    result = DemoResult(report, evaluation, time.perf_counter() - began)
    for row in result.worse_rows():
        log.warning(
            "the refined showers do not beat GFLASH beyond two standard deviations in %s", row
        )
    return result
