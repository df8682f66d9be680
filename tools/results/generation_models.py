"""The generators that the results compare, trained once and kept in the work folder."""

from __future__ import annotations

from pathlib import Path

import hepbridge as hb
from hepbridge.data.showers import Showers
from hepbridge.systems.generation.model_file import GeneratorModel, load_generator
from hepbridge.systems.generation.train import train_generator

# the first null removes the options of the recipe's own frame
QUANTILE = [
    "model.frame=quantile",
    "model.frame_options=null",
    "model.frame_options={shares: true}",
]
# name in the tables -> recipe, overrides, teacher
MODELS: dict[str, tuple[str, list[str], str | None]] = {
    "marginals": ("marginals", [], None),
    "calo-cfm-teacher": ("calo-cfm-teacher", [], None),
    "calo-cfm": ("calo-cfm", [], "calo-cfm-teacher"),
    "caloflow-teacher": ("caloflow-teacher", [], None),
    "caloflow-student": ("caloflow-student", [], "caloflow-teacher"),
    "caloinn": ("caloinn", [], None),
    "caloinn-bayesian": ("caloinn-bayesian", [], None),
    "calo-diffusion": ("calo-diffusion", [], None),
    # the published transports in the frame of calo-cfm: how much is the frame's?
    "calo-diffusion-quantile": ("calo-diffusion", [*QUANTILE, "model.match_marginals=true"], None),
    "caloflow-teacher-quantile": ("caloflow-teacher", QUANTILE, None),
    "caloflow-student-quantile": ("caloflow-student", QUANTILE, "caloflow-teacher-quantile"),
}


def showers(data: Path, sample: str, part: str) -> Showers:
    """``sample``: calogan-eplus, calogan-gamma …; ``part``: train, test or test2."""
    return hb.load(data / f"{sample}-{part}.h5")


def trained(name: str, folder: Path, full: Showers) -> GeneratorModel:
    """The generator of that name: from its file, or trained and written there.

    A file of another recipe or other showers is refused."""
    recipe, overrides, teacher = MODELS[name]
    path = folder / f"{name}.safetensors"
    before = path.exists()
    model = train_generator(
        full,
        recipe=recipe,
        overrides=overrides,
        teacher=None if teacher is None else trained(teacher, folder, full),
        output=path,
        resume=True,
        device="cpu",
    )
    if not before:
        print(f"{name}: trained, {model.provenance['training_seconds']} s", flush=True)
    return model


if __name__ == "__main__":  # python tools/results/generation_models.py DATA WORK SAMPLE NAME...
    import sys

    data, work, sample, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
    (work / sample).mkdir(parents=True, exist_ok=True)
    for chosen in names or list(MODELS):
        trained(chosen, work / sample, showers(data, sample, "train"))
        print(load_generator(work / sample / f"{chosen}.safetensors").metrics["auc"], flush=True)
