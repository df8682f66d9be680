"""docs/results/cylinder.md from what was measured."""

from __future__ import annotations

from typing import Any

from page import table

from hepbridge.report.text import p_value


def page(found: dict[str, Any]) -> str:
    names = list(found["models"])
    errors = [t["se"] for m in found["models"].values() for t in m["auc"]["trees"].values()]
    floors = next(iter(found["models"].values()))["auc"]["trees"]
    levels = list(floors)
    rows = []
    for name in names:
        model = found["models"][name]
        verdict = model["verdict"]
        worst = ", ".join(f"{row} {ratio:.0f}×" for row, ratio in model["worst"])
        rows.append([
            f"`{name.replace('_', '-')}`",
            f"{verdict['above']} of {verdict['of']} ({p_value(verdict)})",
            f"{model['ratio']:.2f}",
            *(f"{model['auc']['trees'][level]['auc']:.3f}" for level in levels),
            worst,
            f"{model['seconds']:,.0f}",
        ])  # fmt: skip
    parts = [
        "# A bigger calorimeter: 6,480 voxels",
        f"Made by `make results-cylinder` (`tools/results/cylinder.py`) on {found['date'][:10]}. Electrons of 1 "
        f"to 10 GeV in the second detector of the CaloChallenge, {found['cells']:,} voxels of which a shower hits "
        f"{100 * found['hit']:.1f} %; {found['simulation']}. {found['train']:,} showers of Geant4 to train on "
        f"(`data/README.md`), each with a GFLASH shower of the same particle; {found['n']:,} to compare with, and a "
        "second full simulation of the same particles for the floor. `squirels` is the recipe of the 10×10 crystals "
        f"with {found['steps']:,} steps in place of 25,000 and no other change: nothing was tuned on this "
        "detector.",
        table(
            ["", "rows above the floor's 95 % quantile", "geometric-mean floor ratio",
             *(f"AUC, {level}" for level in levels), "farthest from the floor", "training (s)"],
            rows,
        ),
        "`gflash` is the fast simulation as it is, `quantile` the refiner without a network. "
        f"AUC of boosted trees on shower shapes (floor {floors[levels[0]]['floor_auc']:.3f}, "
        f"standard error up to {max(errors):.3f}); single voxels are too many for it "
        "([evaluation](../evaluation.md#any-calorimeter-point-clouds)).",
        "![Energy against depth, radius, and energy sums](cylinder-showers.png)",
        "## Time per shower",
        f"CPU time on one pinned core ({found['speed']['machine']['cpu']}), in turn.",
        table(["chain", "µs/shower"], [[n, f"{us:,.0f}"] for n, us in found["speed"]["us"].items()]),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"
