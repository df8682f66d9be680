"""Files of generated showers: of any beam, resumable, complete or not there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge import __version__
from hepbridge.core.errors import ConfigError, DomainError
from hepbridge.core.jobs import Chunk, Request, cores
from hepbridge.core.units import GEV
from hepbridge.data.geometry import Geometry
from hepbridge.deploy.trained import Trained
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.beam_file import Outcome, checked_number, checked_output, write_beam_file
from hepbridge.simulate.gun import Gun
from hepbridge.systems.generation.draw import draw_cells, outside
from hepbridge.systems.generation.granted import check_beam, particles_of
from hepbridge.systems.generation.model_file import GeneratorModel, load_generator
from hepbridge.systems.tiles import TILE

__all__ = ["generate_file", "gun_for"]

log = logging.getLogger(__name__)

CHUNK = 16 * TILE  # rows of one piece of work, at most: minutes of a slow generator
_LOOK = 1 << 16  # rows of the beam that are compared with the trained ranges at once

_BEAM = ("incident_energy", "theta_rad", "phi_rad", "x_mm", "y_mm", "pdg_id")


def generate_file(
    model: str | Path,
    energies: str,
    n: int | None,
    output: str | Path,
    *,
    particle: str | None = None,
    theta: str = "fixed:0",
    phi: str = "uniform:0-360",
    impact: str = "axis",
    seed: int = 0,
    beam_seed: int | None = None,
    chunk: int | None = None,
    workers: int | None = None,
    executor: str = "local",
    shard: tuple[int, int] = (0, 1),
    strict: bool = False,
    device: str = "cpu",
    overwrite: bool = False,
) -> Outcome:
    """Generate ``n`` showers of a beam into a file.

    Event ids, energies and conditions are those of `produce` with an equal beam, so that row i of both
    files is the same particle. Every shower depends on the model, the seed and its row of the beam
    alone: neither pieces, nor workers, shards or interruptions change a bit of the file. It holds a
    manifest of the request; if a file with an equal one is there, nothing is done.

    Args:
        energies: GeV, as `hepbridge.simulate.energies.energies` takes them.
        particle, theta, phi, impact: see `gun_for`.
        n: number of showers; None: as many as the file of energies has.
        seed: of the noise, and of the beam unless ``beam_seed``.
        chunk: showers in one piece of work.
        workers: processes (default: `cores`, or one with a GPU).
        shard: (i, N), i from 0: only part i of N; the last one puts the file together.
        strict: refuse particles outside the trained range; otherwise there is a warning, and they are
            flagged in the column ``outside_domain``.

    Returns:
        ``"made"``, ``"complete"`` (it was there), or ``"left"`` (to the other shards).

    Raises:
        ModelFileError, ConfigError, DataError, DomainError, OutputError: as the message says.
    """
    from hepbridge.training.devices import choose_device

    output = checked_output(output, "generated showers")
    trained = Trained.of(str(model), load_generator)
    loaded: GeneratorModel = trained.load()
    gun = gun_for(
        loaded,
        energies,
        particle=particle,
        theta=theta,
        phi=phi,
        impact=impact,
        seed=seed if beam_seed is None else beam_seed,
    )
    n = checked_number(n, gun)
    if workers is None:
        workers = cores() if choose_device(device).type == "cpu" else 1
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    request = Request(
        {
            "command": "generate",
            "model": trained.digest,
            "beam": gun.record(),
            "n": n,
            "seed": seed,
            "hepbridge": __version__,
        }
    )
    return write_beam_file(
        _Generated(trained, loaded.geometry, seed, device, strict, CHUNK),
        gun,
        n,
        output,
        request,
        _provenance(loaded, trained, gun, seed),
        chunk=chunk,
        workers=workers,
        executor=executor,
        shard=shard,
        overwrite=overwrite,
        title="generate",
    )


def gun_for(
    model: GeneratorModel,
    energies: str,
    *,
    particle: str | None = None,
    theta: str = "fixed:0",
    phi: str = "uniform:0-360",
    impact: str = "axis",
    seed: int = 0,
) -> Gun:
    """The gun of the options of the command line, for a model that knows what it shoots.

    Args:
        particle: default: that of the training.
        theta, phi, impact: as in `Gun.of`.

    Raises:
        ConfigError: an option that is not understood, or a beam that the model knows nothing of.
        ModelFileError: another particle than that of the training.
    """
    if particle is None:
        particle = ",".join(particles_of(model)) or "e-"
    gun = Gun.of(
        model.geometry, energies, particle=particle, theta=theta, phi=phi, impact=impact, seed=seed
    )
    names = model.recipe.model.named_conditions()
    if other := [name for name in names if name not in _BEAM]:
        raise ConfigError(
            f"the model needs the condition{'s' if len(other) > 1 else ''} {', '.join(other)}, which "
            "no beam has; generate in Python: hepbridge.load_generator(…).generate(conditions)"
        )
    check_beam(model, gun)
    return gun


@dataclass(frozen=True)
class _Generated:
    """A generator as a `Maker`."""

    trained: Trained
    geometry: Geometry
    seed: int
    device: str
    strict: bool
    chunk: int
    name: str = "the generator"

    @property
    def model(self) -> GeneratorModel:
        found: GeneratorModel = self.trained.load()
        return found

    def begin(self, gun: Gun, rows: Chunk) -> None:
        """Warn of particles outside the trained range, or refuse them (``strict``)."""
        count, first = 0, ""
        for start in range(rows.start, rows.stop, _LOOK):
            named = self._conditions(gun.beam(start, min(start + _LOOK, rows.stop)))
            beyond = outside(self.model, named, warn=False)
            if beyond.any() and not first:
                row = int(np.flatnonzero(beyond)[0])
                values = {name: values[row] for name, values in named.items()}
                energy = values.pop("incident_energy") / GEV
                further = "".join(f", {name} {value:.4g}" for name, value in values.items())
                first = f"first: row {start + row}, {energy:g} GeV{further}"
            count += int(beyond.sum())
            if first and self.strict:
                raise DomainError(
                    f"showers are outside the trained range ({_range(self.model)}; {first}); train a "
                    "model that covers them, or drop --strict (strict=True in Python)"
                )
        if count:
            log.warning(
                "%d of %d showers are outside the trained range (%s; %s); they are generated and "
                "flagged in the column 'outside_domain'",
                count,
                len(rows),
                _range(self.model),
                first,
            )

    def cells(self, beam: Beam) -> NDArray[np.float32]:
        conditions = self._conditions(beam)
        return draw_cells(
            self.model, conditions, beam.event_ids, seed=self.seed, device=self.device
        )

    def columns(self, beam: Beam) -> dict[str, NDArray[Any]]:
        return {"outside_domain": outside(self.model, self._conditions(beam), warn=False)}

    def _conditions(self, beam: Beam) -> dict[str, NDArray[np.float64]]:
        return beam.conditions(tuple(self.model.recipe.model.named_conditions()))


def _range(model: GeneratorModel) -> str:
    low, high = model.domain.energy_min / GEV, model.domain.energy_max / GEV
    spans = "".join(f", {k} {a:.4g} to {b:.4g}" for k, (a, b) in model.domain.conditions.items())
    return f"incident energy {low:g} to {high:g} GeV{spans}"


def _provenance(model: GeneratorModel, trained: Trained, gun: Gun, seed: int) -> dict[str, Any]:
    """Everything that defines the sample, for the attributes of its file."""
    beam = gun.record()
    of_training = {k: v for k, v in model.domain.full.items() if k.startswith("detector")}
    return {
        "simulation": f"generator of hepbridge {__version__}",
        "hepbridge": __version__,
        "generated_by": model.method,
        "generated_model": trained.digest,
        **of_training,
        "particle": beam.pop("particle"),
        "beam_seed": beam.pop("seed"),
        **beam,
        "seed": seed,
    }
