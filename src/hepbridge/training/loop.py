"""The training loop: runs phases in order, and survives interruptions without a trace.

Every random number is keyed by (seed, phase, step, seat), and a checkpoint holds all weights, the
optimizer, the average, the best weights and the history; so an interrupted and resumed training
gives the weights of an uninterrupted one, bit for bit on a CPU.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hepbridge.core.errors import ConfigError, HepbridgeError, OutputError, TrainingInterrupted
from hepbridge.core.files import check_output
from hepbridge.core.progress import Bar, progress
from hepbridge.core.protocols import Phase
from hepbridge.core.rng import stream
from hepbridge.training.devices import map_tensors
from hepbridge.training.history import History, Logbook
from hepbridge.training.optimise import Optimisation
from hepbridge.training.seeds import seed_torch
from hepbridge.training.settings import TrainingSettings
from hepbridge.training.signals import StopRequest, stop_on_signals
from hepbridge.training.state import State, Store
from hepbridge.training.team import Team

__all__ = ["fit"]

_BAR_SECONDS = 0.2  # a progress bar moves at most this often


def fit(
    phases: Iterable[Phase],
    settings: TrainingSettings | None = None,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    resume: bool = False,
    log: str | Path | None = None,
    title: str = "train",
    fingerprint: str = "",
) -> History:
    """Train the modules of the phases, in order; they end on the device with averaged weights.

    The phases may be generated lazily. A generator may build new modules (torch's global generator
    is seeded before each request) and read modules trained by earlier phases; on resume, finished
    phases are requested but not run, and their modules come back with their *newest* weights. A
    module keeps its identity by the order in which the phases first name it, so the sequence of
    phases must be the same on every run.

    Args:
        checkpoint: file for the state of the training, written every
            ``settings.checkpoint_every`` steps, after each phase and on SIGTERM, SIGINT, SIGUSR1.
            The caller deletes it once the trained model is safe.
        resume: continue from ``checkpoint`` if it exists, else start from the beginning.
        log: file of JSON lines, see `History`.
        fingerprint: text that identifies configuration and data; a checkpoint with another one is
            refused.

    Raises:
        TrainingInterrupted: a signal arrived; the state is saved.
        HepbridgeError: the loss became NaN or infinite; the last checkpoint is untouched.
        ConfigError: the checkpoint belongs to another training, the device does not exist.
        ModelFileError: the checkpoint is damaged or no checkpoint.
        OutputError: ``checkpoint`` exists without ``resume``, or an output cannot be written.
    """
    settings = settings or TrainingSettings()
    checkpoint = None if checkpoint is None else check_output(checkpoint, overwrite=True)
    log = None if log is None else check_output(log, overwrite=True)
    if checkpoint is not None and checkpoint.exists() and not resume:
        raise OutputError(
            f"{checkpoint} holds the state of an unfinished training: continue it with --resume "
            "(resume=True in Python), or delete the file to start from the beginning"
        )
    team = Team.gather(device)
    with ExitStack() as stack:
        request = stack.enter_context(stop_on_signals())
        gpus = [team.device.index or 0] if team.device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(devices=gpus))
        if settings.threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(settings.threads)
        identity = {
            "fingerprint": fingerprint,
            "seed": seed,
            "processes": team.size,
            "settings": settings.decisive(),
        }
        store = Store(checkpoint, identity)
        state = store.read() if checkpoint is not None and checkpoint.exists() else State()
        team.sit(store.identity["processes"])
        logbook = Logbook(
            log if team.leads else None,
            state.history,
            tensorboard=settings.tensorboard and team.leads,
        )
        stack.callback(logbook.close)
        _Training(settings, seed, team, store, state, logbook, request, title).run(phases)
        return state.history


class _Training:
    def __init__(
        self,
        settings: TrainingSettings,
        seed: int,
        team: Team,
        store: Store,
        state: State,
        logbook: Logbook,
        request: StopRequest,
        title: str,
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.team = team
        self.store = store
        self.state = state
        self.logbook = logbook
        self.request = request
        self.title = title
        self.pending: list[Tensor] = []  # losses of the last steps, not looked at yet
        self.clock = time.perf_counter()

    def run(self, phases: Iterable[Phase]) -> None:
        state, store = self.state, self.store
        finished, entered = state.finished, len(state.entered)  # according to the checkpoint
        iterator = iter(phases)
        for index in itertools.count():
            self._seed_torch("phase", index)
            phase = next(iterator, None)
            if phase is None:
                break
            phase.module.to(self.team.device)
            store.add(phase.module)
            if index < entered:
                store.check(state, index, phase)
                store.restore()
            else:
                state.enter(phase)
            if index >= finished:
                self._train(phase, resumed=index < entered)
        if index < entered:
            raise ConfigError(
                f"{store.path} belongs to another training: it has reached phase "
                f"{state.entered[-1][0]!r}, but now there are only {index} phases"
            )
        self.logbook.finish()
        self._stop_if_asked(None)

    def _train(self, phase: Phase, *, resumed: bool) -> None:
        state, settings, module = self.state, self.settings, phase.module
        optimisation = Optimisation(phase, settings, self.team)
        if resumed:
            optimisation.load(self.store.tensors, self.store.numbers)
        self.team.share(module)
        if phase.prepare is not None:
            phase.prepare(stream(self.seed, "prepare", phase.name))
        module.train()
        patience = math.inf if settings.patience is None else settings.patience
        with progress(f"{self.title}: {phase.name}", phase.steps) as bar:
            meter = _Meter(bar if self.team.leads else Bar(), state.step)
            while state.step < phase.steps and state.stale < patience:
                self._stop_if_asked(optimisation)
                self.pending.append(optimisation.step(state.step, self._batches(phase)))
                state.step += 1
                last = state.step == phase.steps
                due = last or state.step % settings.validate_every == 0
                validation = self._validate(optimisation) if due else None
                if validation is not None or last or state.step % settings.log_every == 0:
                    self._record(optimisation, validation)
                    meter.note = f"loss {state.history.records[-1]['loss']:.4g}"
                if not last and state.step % settings.checkpoint_every == 0:
                    self._save(optimisation)
                meter.show(state.step)
            meter.show(phase.steps, force=True)
        self._check(optimisation)
        optimisation.finish()
        module.eval()
        self.team.share(module)
        if optimisation.best is not None:
            state.history.kept[phase.name] = state.best_step
        state.finished += 1
        self._save(None)

    def _batches(self, phase: Phase) -> Iterator[tuple[Any, int]]:
        """The batches of this process in this step, each with a seed for torch's generators."""
        for seat in self.team.mine:
            rng = stream(self.seed, "train", phase.name, self.state.step, seat)
            batch = phase.batch(self.state.step, rng)
            # what the loss draws by itself (dropout) comes from the same stream
            yield map_tensors(self._to_device, batch), rng.bit_generator.random_raw()

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.team.device, non_blocking=True)

    def _seed_torch(self, *purpose: str | int) -> None:
        key = stream(self.seed, "torch", *purpose).bit_generator.random_raw()
        seed_torch(key, self.team.device)

    def _validate(self, optimisation: Optimisation) -> float | None:
        """The held-out number of the averaged weights, and the bookkeeping of early stopping."""
        phase, state, value = optimisation.phase, self.state, math.nan
        if phase.validate is None:
            return None
        if self.team.leads:
            self._seed_torch("validate", phase.name, state.step)
            phase.module.eval()
            with optimisation.evaluated(), torch.no_grad():
                value = float(phase.validate(phase.module))
            phase.module.train()
        value = self.team.told(value)
        if not math.isfinite(value):
            raise self._diverged(optimisation, "validation", value, state.step)
        if state.best is None or value < state.best:
            state.best, state.best_step, state.stale = value, state.step, 0
            if self.settings.patience is not None:
                optimisation.keep_best()
        else:
            state.stale += 1
        return value

    def _look(self, optimisation: Optimisation) -> None:
        """Fetch the losses of the last steps (one wait for the device) and check them."""
        if not self.pending:
            return
        values = self.team.mean(torch.stack(self.pending)).tolist()
        self.pending = []
        for step, value in enumerate(values, self.state.step - len(values) + 1):
            if not math.isfinite(value):
                raise self._diverged(optimisation, "loss", value, step)
        self.state.window += values

    def _check(self, optimisation: Optimisation) -> None:
        """Raise HepbridgeError unless all losses and weights are numbers."""
        self._look(optimisation)
        if not optimisation.finite():
            raise self._diverged(optimisation, "largest weight", math.nan, self.state.step)

    def _diverged(
        self, optimisation: Optimisation, what: str, value: float, step: int
    ) -> HepbridgeError:
        phase, path = optimisation.phase, self.store.path
        kept = f"; the last checkpoint is kept in {path}" if path and path.exists() else ""
        return HepbridgeError(
            f"training diverged: the {what} of phase {phase.name!r} is {value} at step {step} of "
            f"{phase.steps} (learning rate {optimisation.learning_rate(step - 1):.3g}). Lower the "
            "learning rate, lengthen training.warmup or lower training.clip_norm, and look for "
            f"NaN or extreme values in the training data{kept}"
        )

    def _record(self, optimisation: Optimisation, validation: float | None) -> None:
        self._look(optimisation)
        state = self.state
        record: dict[str, Any] = {
            "phase": optimisation.phase.name,
            "step": state.step,
            "loss": sum(state.window) / len(state.window),
            "learning_rate": optimisation.learning_rate(state.step - 1),
            "seconds": round(self._seconds(), 3),
        }
        if validation is not None:
            record["validation"] = validation
        state.window = []
        state.history.records.append(record)
        self.logbook.write(record)

    def _seconds(self) -> float:
        now = time.perf_counter()
        self.state.history.seconds += now - self.clock
        self.clock = now
        return self.state.history.seconds

    def _save(self, optimisation: Optimisation | None) -> None:
        """Write a checkpoint inside the phase of the optimisation, or between two phases."""
        self._seconds()
        if optimisation is not None:
            self._check(optimisation)
        if self.store.path is None or not self.team.leads:
            return
        if optimisation is None:
            self.store.write(self.state, {}, {})
        else:
            self.store.write(self.state, optimisation.tensors(), optimisation.numbers())

    def _stop_if_asked(self, optimisation: Optimisation | None) -> None:
        """Save and raise TrainingInterrupted if a signal has arrived (in any process)."""
        step, asked = self.state.step, self.request.name is not None
        if self.team.size > 1:  # the processes agree at common steps only: it costs a message
            if optimisation is not None and step % self.settings.log_every:
                return
            asked = self.team.any(asked)
        if not asked:
            return
        where = "after its last step"
        if optimisation is not None:
            self._save(optimisation)
            phase = optimisation.phase
            where = f"in phase {phase.name!r} after {step} of {phase.steps} steps"
        kept = "nothing of it was saved: it keeps no checkpoint"
        if self.store.path is not None:
            kept = "nothing was saved, because there were no steps"
            if self.store.path.exists():
                kept = (
                    f"its state is in {self.store.path}: repeat the command with --resume "
                    "(resume=True in Python)"
                )
        raise TrainingInterrupted(
            f"training was interrupted by {self.request.name or 'a signal'} {where}; {kept}"
        )


class _Meter:
    """Moves a progress bar now and then, because drawing it costs more than a small step."""

    def __init__(self, bar: Bar, step: int) -> None:
        self.bar, self.shown, self.note = bar, 0, ""
        self.next = time.perf_counter() + _BAR_SECONDS
        self.show(step, force=True)

    def show(self, step: int, *, force: bool = False) -> None:
        now = time.perf_counter()
        if force or now >= self.next:
            self.bar.advance(step - self.shown, note=self.note)
            self.shown, self.next = step, now + _BAR_SECONDS
