"""The training loop against hand-written training, and through every kind of interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hepbridge.core.errors import ConfigError, HepbridgeError, OutputError, TrainingInterrupted
from hepbridge.core.protocols import Phase
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit

DIM = 3


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(DIM, 8), nn.SiLU(), nn.Linear(8, DIM))


def draw(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    x = torch.from_numpy(rng.standard_normal((16, DIM), dtype=np.float32))
    return {"x": x, "y": 2 * x.flip(1) + 1}


def square(module: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return (module(batch["x"]) - batch["y"]).square().mean()


def phase(name: str = "a", module: nn.Module | None = None, steps: int = 20, **more) -> Phase:
    given = {"batch": draw, "loss": square, "learning_rate": 0.01} | more
    return Phase(name, network() if module is None else module, steps=steps, **given)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name


def without_seconds(history) -> list[dict]:
    return [{k: v for k, v in r.items() if k != "seconds"} for r in history.records]


# ---------------------------------------------------------------- what one step does


def test_loop_is_the_textbook_loop():
    """AdamW, clipping, warm-up, cosine and average written out with torch's slow parts."""
    settings = TrainingSettings(
        ema_decay=0.9, warmup=0.2, clip_norm=0.5, weight_decay=0.1, betas=(0.8, 0.95), log_every=7
    )
    trained = network()
    history = fit([phase(module=trained, steps=25)], settings, seed=4)

    module = network()
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=1.0, betas=(0.8, 0.95), weight_decay=0.1, foreach=False, fused=False
    )
    average = [p.detach().clone() for p in module.parameters()]
    losses = []
    for step in range(25):
        cosine = 0.5 * (1 + np.cos(np.pi * (step - 5) / 20))
        rate = 0.01 * ((step + 1) / 6 if step < 5 else cosine)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = square(module, draw(step, stream(4, "train", "a", step, 0)))
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 0.5, foreach=False)
        optimizer.step()
        losses.append(loss.item())
        decay = min(0.9, (2 + step) / (11 + step))
        for mean, p in zip(average, module.parameters(), strict=True):
            mean.mul_(decay).add_(p.detach(), alpha=1 - decay)
    for mean, p in zip(average, trained.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), mean, rtol=1e-5, atol=1e-6)
    got = history.losses("a")
    assert [step for step, _ in got] == [7, 14, 21, 25]
    windows = [losses[:7], losses[7:14], losses[14:21], losses[21:]]
    np.testing.assert_allclose([v for _, v in got], [np.mean(w) for w in windows], rtol=1e-5)
    assert history.records[-1]["learning_rate"] == pytest.approx(rate)


def test_training_learns_and_leaves_no_gradient_behind():
    module = network()
    history = fit([phase(module=module, steps=400, learning_rate=0.03)], seed=0)
    losses = [loss for _, loss in history.losses("a")]
    assert losses[-1] < 0.1 * losses[0]
    assert not module.training
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize(
    "changes", [{"ema_decay": None}, {"clip_norm": None}, {"optimizer": "adam"}, {"threads": 1}]
)
def test_settings_can_be_switched_off(changes):
    module, before = network(), weights(network())
    fit([phase(module=module)], TrainingSettings(**changes), seed=0)
    assert any(not torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_schedule_shapes():
    settings = TrainingSettings(warmup=0.1)
    factors = [settings.learning_rate_factor(s, 1000) for s in range(1000)]
    assert factors[0] == pytest.approx(1 / 101) and factors[100] == 1.0
    assert max(factors) == 1.0 and 0 < factors[-1] < 1e-4
    assert np.all(np.diff(factors[100:]) < 0)
    constant = TrainingSettings(schedule="constant", warmup=0.0)
    assert {constant.learning_rate_factor(s, 10) for s in range(10)} == {1.0}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"ema_decay": 1.0}, "less than 1"),
        ({"ema": 0.9}, "Extra inputs"),
        ({"precision": "half"}, "float32"),
        ({"log_every": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**bad)


def test_bf16_trains_close_to_float32():
    """Autocast reaches the loss (the output is bfloat16) while the weights stay float32."""
    seen = set()

    def loss(module, batch):
        out = module(batch["x"])
        seen.add(out.dtype)
        return (out.float() - batch["y"]).square().mean()

    a, b = network(), network()
    fit([phase(module=a, loss=loss, steps=50)], TrainingSettings(precision="bf16"), seed=0)
    fit([phase(module=b, steps=50)], seed=0)
    assert seen == {torch.bfloat16}
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert p.dtype == torch.float32
        torch.testing.assert_close(p, q, rtol=0, atol=0.02)
    with pytest.raises(ConfigError, match="needs a CUDA GPU"):
        fit([phase()], TrainingSettings(precision="fp16"), seed=0)


def test_global_random_state_is_untouched_and_irrelevant():
    """Dropout draws from the keyed stream: fails if torch's generator is never seeded."""

    def run(global_seed: int) -> nn.Module:
        torch.manual_seed(global_seed)
        module = nn.Sequential(network(), nn.Dropout(0.5), nn.Linear(DIM, DIM, bias=False))
        module.load_state_dict({k: torch.ones_like(v) for k, v in module.state_dict().items()})
        before = torch.random.get_rng_state()
        fit([phase(module=module)], seed=1)
        assert torch.equal(torch.random.get_rng_state(), before)
        return module

    with torch.random.fork_rng(devices=[]):
        assert_same(run(1), run(2))


def test_seed_matters():
    a, b = network(), network()
    fit([phase(module=a)], seed=0)
    fit([phase(module=b)], seed=1)
    assert not torch.equal(a[0].weight, b[0].weight)


def test_prepare_gets_its_own_generator_before_the_first_batch():
    drawn: list[float] = []
    fit(
        [phase("x", prepare=lambda rng: drawn.append(rng.random())), phase("y")],
        seed=3,
    )
    assert drawn == [stream(3, "prepare", "x").random()]


# ---------------------------------------------------------------- validation and early stopping


def staircase(values):
    """A held-out number that follows a script; remembers the weights it saw."""
    seen = []

    def validate(module):
        assert not module.training and not torch.is_grad_enabled()
        seen.append(weights(module))
        return values[len(seen) - 1]

    return validate, seen


def test_early_stopping_keeps_the_best_averaged_weights():
    """Fails if the raw weights, or those at the stop, are kept."""
    validate, seen = staircase([5.0, 3.0, 4.0, 3.5, 1.0])
    module = network()
    settings = TrainingSettings(validate_every=10, patience=2, ema_decay=0.9)
    history = fit([phase(module=module, steps=500, validate=validate)], settings, seed=0)
    assert history.validations("a") == [(10, 5.0), (20, 3.0), (30, 4.0), (40, 3.5)]
    assert history.kept == {"a": 20}
    for name, value in seen[1].items():
        assert torch.equal(value, module.state_dict()[name])


def test_validation_without_patience_keeps_the_last_weights():
    validate, seen = staircase([1.0, 2.0, 3.0])
    module = network()
    settings = TrainingSettings(validate_every=10)
    history = fit([phase(module=module, steps=25, validate=validate)], settings, seed=0)
    assert [step for step, _ in history.validations("a")] == [10, 20, 25]
    assert history.kept == {}
    for name, value in seen[-1].items():
        assert torch.equal(value, module.state_dict()[name])


# ---------------------------------------------------------------- interruptions


class Alternating:
    """Like proportional fitting: two networks in turn, each learning from the other's samples."""

    def __init__(self, *, steps: int = 14, rounds: int = 3, dropout: float = 0.1) -> None:
        self.nets = [network(1), network(2)]
        self.steps, self.rounds, self.dropout = steps, rounds, dropout
        self.late: nn.Module | None = None
        self.cache: torch.Tensor | None = None
        self.calls = 0
        self.crash_at: int | None = None

    def phases(self):
        for index in range(self.rounds):
            yield self.one(f"round-{index}", self.nets[index % 2], self.nets[(index + 1) % 2])
        # a module that does not exist before the others are trained, and starts from one of them
        self.late = nn.Sequential(nn.Linear(DIM, DIM), nn.Dropout(0.2), network(3))
        self.late[2].load_state_dict(self.nets[0].state_dict())
        yield self.one("late", self.late, self.nets[1])

    def one(self, name: str, net: nn.Module, other: nn.Module) -> Phase:
        def prepare(rng):
            with torch.no_grad():
                x = torch.from_numpy(rng.standard_normal((64, DIM), dtype=np.float32))
                self.cache = torch.cat([x, other(x) + 0.1 * torch.randn(64, DIM)], dim=1)

        def batch(step, rng):
            self.calls += 1
            if self.calls == self.crash_at:
                raise RuntimeError("power cut")
            return (self.cache[torch.from_numpy(rng.integers(0, 64, 8))],)

        def loss(module, batch):
            return (module(batch[0][:, DIM:]) - batch[0][:, :DIM]).square().mean()

        def validate(module):  # jumps up and down, so that some phases stop early
            return torch.cat([p.flatten() for p in module.parameters()]).sum().mul(60).sin().item()

        return Phase(name, net, batch, loss, self.steps, 0.02, prepare, validate)

    def modules(self) -> list[nn.Module]:
        return [*self.nets, self.late]


SETTINGS = TrainingSettings(
    validate_every=4, patience=2, log_every=3, checkpoint_every=5, ema_decay=0.8
)


@pytest.fixture(scope="module")
def uninterrupted():
    problem = Alternating()
    history = fit(problem.phases(), SETTINGS, seed=9)
    return problem, history


@pytest.mark.parametrize("crash_at", [1, 7, 12, 15, 21, 35, 39, 41, 46, 52])
def test_resumed_training_is_bitwise_uninterrupted_training(uninterrupted, tmp_path, crash_at):
    """Crash anywhere: weights, history and log are those of an undisturbed run.

    Fails if any of these is left out of the checkpoint: optimizer state, average, its count, best
    weights, validations since the best, losses since the last record; or if torch's generator is
    not seeded at every step and phase.
    """
    reference, history = uninterrupted
    keep = {"checkpoint": tmp_path / "state.ckpt", "log": tmp_path / "log.jsonl"}
    first = Alternating()
    first.crash_at = crash_at
    with pytest.raises(RuntimeError, match="power cut"):
        fit(first.phases(), SETTINGS, seed=9, **keep)
    torch.manual_seed(crash_at)  # another process would have another global state
    second = Alternating()
    resumed = fit(second.phases(), SETTINGS, seed=9, resume=True, **keep)
    for a, b in zip(second.modules(), reference.modules(), strict=True):
        assert_same(a, b)
    assert without_seconds(resumed) == without_seconds(history)
    assert resumed.kept == history.kept
    lines = [json.loads(line) for line in keep["log"].read_text().splitlines()]
    assert lines == resumed.records


def test_resuming_repeatedly_and_after_the_end(uninterrupted, tmp_path):
    reference, history = uninterrupted
    checkpoint = tmp_path / "state.ckpt"
    for _ in range(20):
        problem = Alternating()
        problem.crash_at = 8
        try:
            fit(problem.phases(), SETTINGS, seed=9, checkpoint=checkpoint, resume=True)
        except RuntimeError:
            continue
        break
    assert_same(problem.late, reference.late)
    again = Alternating()
    ended = fit(again.phases(), SETTINGS, seed=9, checkpoint=checkpoint, resume=True)
    assert again.calls == 0
    for a, b in zip(again.modules(), reference.modules(), strict=True):
        assert_same(a, b)
    assert without_seconds(ended) == without_seconds(history)


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_training_loop import Alternating, SETTINGS, fit, weights
from safetensors.torch import save_file
checkpoint, out, kill_at, resume = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1"
problem = Alternating()
inner = problem.one
def one(*args):
    phase = inner(*args)
    batch = phase.batch
    def deadly(step, rng):
        if problem.calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(step, rng)
    phase.batch = deadly
    return phase
problem.one = one
fit(problem.phases(), SETTINGS, seed=9, checkpoint=checkpoint, resume=resume)
found = {{f"{{i}}.{{k}}": v for i, m in enumerate(problem.modules())
          for k, v in weights(m).items()}}
save_file(found, out)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.slow
def test_killed_process_resumes_bitwise(uninterrupted, tmp_path):
    from safetensors.torch import load_file

    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(SCRIPT.format(tests=str(Path(__file__).parent))))
    checkpoint, out = tmp_path / "state.ckpt", tmp_path / "weights.safetensors"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}

    def run(kill_at: int, resume: int) -> int:
        arguments = [str(checkpoint), str(out), str(kill_at), str(resume)]
        return subprocess.run(
            [sys.executable, str(script), *arguments], env=environment, check=False
        ).returncode

    assert run(24, 0) == -signal.SIGKILL
    assert checkpoint.exists() and not out.exists()
    assert run(-1, 1) == 0
    got = load_file(out)
    for index, module in enumerate(uninterrupted[0].modules()):
        for name, value in module.state_dict().items():
            assert torch.equal(got[f"{index}.{name}"], value)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signals_save_and_stop(uninterrupted, tmp_path, name):
    if not hasattr(signal, name):
        pytest.skip(f"no {name} here")
    number, checkpoint = getattr(signal, name), tmp_path / "state.ckpt"
    before = signal.getsignal(number)
    problem = Alternating()
    inner = problem.one

    def one(*arguments):
        found = inner(*arguments)
        loss = found.loss

        def loud(module, batch):
            if problem.calls == 17:
                signal.raise_signal(number)
            return loss(module, batch)

        found.loss = loud
        return found

    problem.one = one
    with pytest.raises(
        TrainingInterrupted, match=f"{name} in phase 'round-1' after 3 of 14"
    ) as stop:
        fit(problem.phases(), SETTINGS, seed=9, checkpoint=checkpoint)
    assert "--resume" in str(stop.value) and stop.value.exit_code == 130
    assert problem.calls == 17  # the step was finished, no other begun
    assert signal.getsignal(number) is before
    resumed = Alternating()
    fit(resumed.phases(), SETTINGS, seed=9, checkpoint=checkpoint, resume=True)
    for a, b in zip(resumed.modules(), uninterrupted[0].modules(), strict=True):
        assert_same(a, b)


def test_signal_without_checkpoint_says_so():
    def batch(step, rng):
        if step == 3:
            signal.raise_signal(signal.SIGTERM)
        return draw(step, rng)

    with pytest.raises(TrainingInterrupted, match="nothing of it was saved"):
        fit([phase(batch=batch)], seed=0)


def test_training_runs_in_another_thread():
    module = network()
    thread = threading.Thread(target=lambda: fit([phase(module=module)], seed=0))
    thread.start()
    thread.join()
    alone = network()
    fit([phase(module=alone)], seed=0)
    assert_same(module, alone)


# ---------------------------------------------------------------- what can go wrong


def test_divergence_is_an_error_that_leaves_the_checkpoint(tmp_path):
    checkpoint = tmp_path / "state.ckpt"

    def loss(module, batch):
        return square(module, batch) * (float("nan") if batch["step"] == 23 else 1.0)

    def batch(step, rng):
        return draw(step, rng) | {"step": torch.tensor(step)}

    settings = TrainingSettings(checkpoint_every=10, log_every=50)
    with pytest.raises(HepbridgeError, match="diverged") as error:
        fit(
            [phase("flow", steps=100, batch=batch, loss=loss)],
            settings,
            seed=0,
            checkpoint=checkpoint,
        )
    message = str(error.value)
    assert "phase 'flow' is nan at step 24 of 100" in message
    assert "Lower the learning rate" in message and str(checkpoint) in message
    module = network()
    fit(
        [phase("flow", module, steps=100, batch=batch)],
        settings,
        seed=0,
        checkpoint=checkpoint,
        resume=True,
    )
    assert all(p.isfinite().all() for p in module.parameters())


def test_weights_that_are_not_numbers_are_never_saved(tmp_path):
    """The last loss before a checkpoint may be finite while its gradient is not."""
    checkpoint = tmp_path / "state.ckpt"

    def loss(module, batch):
        value = square(module, batch)
        bad = batch["step"] == 9  # the tenth step, after which a checkpoint is due
        return value + (module[0].weight.sum() * 0).sqrt() if bad else value

    def batch(step, rng):
        return draw(step, rng) | {"step": torch.tensor(step)}

    settings = TrainingSettings(checkpoint_every=10, clip_norm=None)
    with pytest.raises(HepbridgeError, match="weight of phase 'a' is nan at step 10 of 20"):
        fit([phase(batch=batch, loss=loss)], settings, seed=0, checkpoint=checkpoint)
    assert not checkpoint.exists()


def test_validation_that_is_not_a_number_is_an_error():
    with pytest.raises(HepbridgeError, match="validation of phase 'a' is nan at step 20 of 20"):
        fit([phase(validate=lambda module: float("nan"))], seed=0)


def test_existing_checkpoint_is_not_overwritten(tmp_path):
    checkpoint = tmp_path / "state.ckpt"
    fit([phase()], seed=0, checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(OutputError, match="continue it with --resume"):
        fit([phase()], seed=0, checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before


def test_resume_without_checkpoint_starts_from_the_beginning(tmp_path):
    a, b = network(), network()
    fit([phase(module=a)], seed=0, checkpoint=tmp_path / "new.ckpt", resume=True)
    fit([phase(module=b)], seed=0)
    assert_same(a, b)


def test_checkpoint_of_another_training_is_refused(tmp_path):
    checkpoint = tmp_path / "state.ckpt"
    fit([phase("a"), phase("b")], seed=0, checkpoint=checkpoint, fingerprint="mine")

    def again(phases, settings=None, seed=0, fingerprint="mine"):
        return lambda: fit(
            phases, settings, seed=seed, checkpoint=checkpoint, resume=True, fingerprint=fingerprint
        )

    wide = nn.Sequential(nn.Linear(DIM, 9), nn.SiLU(), nn.Linear(9, DIM))
    both = [phase("a"), phase("b")]
    cases = [
        (again(both, fingerprint="other"), "its fingerprint is 'mine', now it is 'other'"),
        (again(both, seed=5), "its seed is 0, now it is 5"),
        (again(both, TrainingSettings(warmup=0.5)), "its settings.warmup is 0.02, now it is 0.5"),
        (again([phase("c")]), "its phase 0 is 'a' of 20 steps, now it is 'c'"),
        (again([phase("a", steps=30)]), "now it is 'a' of 30 steps"),
        (again([phase("a")]), "has reached phase 'b', but now there are only 1 phases"),
        (again([phase("a", wide)]), "another network"),
    ]
    for attempt, message in cases:
        with pytest.raises(ConfigError, match=message):
            attempt()
    # how often it logs and saves is nobody's identity
    again(both, TrainingSettings(log_every=1, checkpoint_every=3))()


def test_phases_that_cannot_be_trained():
    with pytest.raises(ConfigError, match="two phases are called 'a'"):
        fit([phase("a"), phase("a")], seed=0)
    with pytest.raises(ConfigError, match="without trainable parameters"):
        fit([phase(module=nn.Identity())], seed=0)


def test_phase_of_no_steps_changes_nothing(tmp_path):
    module = network()
    fit([phase(module=module, steps=0)], seed=0, checkpoint=tmp_path / "state.ckpt")
    assert_same(module, network())
