"""Does the ONNX file of a generator make the showers that torch makes?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepbridge.core.errors import ModelFileError
from hepbridge.core.rng import stream
from hepbridge.deploy.onnx.check import Agreement
from hepbridge.deploy.onnx.generator_contract import GeneratorContract
from hepbridge.deploy.onnx.generator_form import kept_inside, trained
from hepbridge.deploy.onnx.hosts import Host
from hepbridge.systems.conditioning import ENERGY
from hepbridge.systems.generation.generator import Generator
from hepbridge.systems.generation.model_file import GeneratorModel

__all__ = ["by_torch", "generator_agreement", "trial_conditions"]

# a file that differs by more than these is wrong, not rounded: see `Agreement`
_WORST, _CELL_999 = 1e-3, 1e-2
_BATCHES = (1, 37, 1000)
_SINGLE = 37  # calls of a file for one shower
_BEYOND = 30.0  # how far outside the trained energies some trial showers are, a factor
_CELLS = 2_000_000  # of the largest batch, at most
_PATIENCE = 60.0  # seconds that torch may take for it

Array = NDArray[np.float32]


def generator_agreement(
    model: GeneratorModel, host: Host, session: Any, contract: GeneratorContract
) -> Agreement:
    """Run the file at several batch sizes, and torch on the same conditions and noise.

    Batches of 1, 37 and 1000 showers; the last one is smaller for a model of many cells or many
    evaluations. A file for one shower a call is called 37 times. Raises ModelFileError if a cell
    differs by more than 1e-3 of the energy of its shower, or more than one cell in a thousand by more
    than 1 % of itself.
    """
    import onnxruntime as ort

    original = kept_inside(model.generator, trained(model.domain))
    single = not isinstance(contract.inputs[0].shape[0], str)
    apart, sums, relative, flips, count, showers = 0.0, 0.0, [np.zeros(0)], 0, 0, 0
    spent = 0.0
    for k, most in enumerate((1,) * _SINGLE if single else _BATCHES):
        n = most if most < 100 else _affordable(most, model.generator.n_cells, spent)
        conditions, noise = trial_conditions(model, n, seed=k)
        made = _run(session, host.pack(conditions, noise))
        if host.drawn:
            noise = made["noise"]
        began = time.perf_counter()
        ours = by_torch(original, conditions, noise)
        spent = (time.perf_counter() - began) / n
        theirs = host.unpack(made, conditions[ENERGY])
        total = ours.sum(axis=1, dtype=np.float64)
        scale = np.where(total > 0, total, conditions[ENERGY])
        difference = np.abs(theirs.astype(np.float64) - ours)
        worst = (difference / scale[:, None]).max()
        if not worst <= _WORST:
            row, cell = np.unravel_index(
                np.argmax(~(difference <= _WORST * scale[:, None])), ours.shape
            )
            raise ModelFileError(
                f"the ONNX file does not compute what torch does: in a batch of {n}, cell {cell} of "
                f"shower {row} is {theirs[row, cell]:.7g} MeV instead of {ours[row, cell]:.7g}"
            )
        apart = max(apart, float(worst))
        off = np.abs(theirs.sum(axis=1, dtype=np.float64) - total) / scale
        sums = max(sums, float(off.max()))
        both = (ours > 0) & (theirs > 0)
        relative.append(difference[both] / ours[both])
        flips += int(((ours > 0) != (theirs > 0)).sum())
        count, showers = count + ours.size, showers + n
    cells = np.concatenate(relative)
    median, high = np.quantile(cells, [0.5, 0.999]) if len(cells) else (0.0, 0.0)
    if not high <= _CELL_999:
        raise ModelFileError(
            "the ONNX file does not compute what torch does: of a thousand cells, more than one "
            f"differs by {high:.1%} of itself"
        )
    version = f"ONNX Runtime {ort.__version__}"
    return Agreement(apart, sums, float(median), float(high), flips, count, showers, version)


def trial_conditions(model: GeneratorModel, n: int, seed: int) -> tuple[dict[str, Array], Array]:
    """Conditions by name (n,), and noise (n, width).

    Of more than 20 showers, some lie far outside the trained range, and some have no noise.
    """
    rng = stream(seed, "onnx-generator-trial", n)
    spans = trained(model.domain)
    low, high = spans.pop(ENERGY)
    energy: NDArray[np.float64] = low * (high / low) ** rng.random(n)
    conditions = {ENERGY: energy}
    conditions |= {name: rng.uniform(a, b, n) for name, (a, b) in spans.items()}
    noise = rng.standard_normal((n, model.generator.noise_dim), dtype=np.float32)
    if n > 20:
        energy[5::20] *= _BEYOND
        energy[6::20] /= _BEYOND
        noise[7::20] = 0.0
        for name, (a, b) in spans.items():
            conditions[name][8::20] += 0.5 * (b - a)
    return {name: v.astype(np.float32) for name, v in conditions.items()}, noise


def by_torch(generator: Generator, conditions: Mapping[str, Array], noise: Array) -> Array:
    """What a generator makes in torch, of conditions (n,) and noise (n, width)."""
    tensors = {name: torch.from_numpy(v) for name, v in conditions.items()}
    with torch.inference_mode():
        out: Array = generator.generate(tensors, torch.from_numpy(noise)).numpy()
    return out


def _affordable(most: int, cells: int, seconds: float) -> int:
    """Showers of the largest batch, if one takes torch so many seconds."""
    return min(most, max(_SINGLE, _CELLS // cells), max(_SINGLE, int(_PATIENCE / seconds)))


def _run(session: Any, inputs: dict[str, Array]) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
