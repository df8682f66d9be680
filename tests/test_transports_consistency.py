"""Consistency distillation against paths that are known: normal distributions and a mixture."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs, Transport
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports.consistency import Consistency
from hepbridge.transports.edm import EDM
from sampler_problems import (
    COVARIANCE,
    MEAN,
    mixture_draw,
    mixture_path,
    normal_denoise,
    normal_path,
)

TINY: dict[str, Any] = {"width": 16, "depth": 1, "train_steps": 5}
SMALL: dict[str, Any] = {"width": 32, "depth": 2, "train_steps": 800, "learning_rate": 3e-3}
TOP, FLOOR = 80.0, 0.002


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.from_numpy(stream(seed, "test").standard_normal((n, d), np.float32))


def tiny(dim: int = 2, conditions: dict[str, int] | None = None, **options: Any) -> Consistency:
    """With random weights, of a size at which everything matters."""
    torch.manual_seed(0)
    given = {"teacher_options": TINY, "train_steps": 5} | options
    model = Consistency(dim, conditions or {}, **given)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


class Known(torch.nn.Module):
    """A denoiser in closed form, in the place of the network of an EDM: F of D as in the paper."""

    def __init__(self, denoise: Any) -> None:
        super().__init__()
        self.denoise = denoise

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None) -> Tensor:
        sigma = (4.0 * t).exp().expand(len(x), 1)
        x = x * (sigma**2 + 1).sqrt()
        parts = [self.denoise(row, float(s)) for row, s in zip(x.split(1), sigma, strict=True)]
        return (torch.cat(parts) - x / (sigma**2 + 1)) * (sigma**2 + 1).sqrt() / sigma


def jump(floor: float) -> Any:
    """The denoiser of a student that knows the path of normal data: from D to its end at the floor."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        end = normal_path(x, sigma, floor)
        return (end - floor / sigma * x) / (1 - floor / sigma)

    return denoise


# -- the function and its levels -------------------------------------------------------------------


@pytest.mark.parametrize("teacher", ["edm", "diffusion"])
def test_at_the_lowest_level_nothing_moves(teacher: str) -> None:
    """The boundary condition, to the last bit; fails if it is left out. Elsewhere points do move."""
    model = tiny(teacher=teacher)
    x, source = normal(20, 2, 1), normal(20, 2, 2)
    floor = torch.full((20, 1), 0.3)
    at = model.end(model.student, x, floor, floor, source, None)
    assert torch.equal(at, x)
    above = model.end(model.student, x, 2 * floor, floor, source, None)
    assert (above - x).abs().min() > 1e-4
    # half of the way from sigma to the floor, straight to the denoised value
    away = model.student.denoised(x, 2 * floor, source, None) - x
    torch.testing.assert_close(above, x + 0.5 * away)


@pytest.mark.parametrize("teacher", ["edm", "diffusion"])
def test_denoised_values_are_those_of_the_teacher(teacher: str) -> None:
    """Its own sampler, Euler with two levels, gives the value at the second; each row has its level.

    Fails if the network is asked at another time, or its output is scaled otherwise.
    """
    options = TINY | {"sampler": "euler", "levels": "karras", "steps": 2}
    model = tiny(teacher=teacher, teacher_options=options, levels=2).double()
    noise, source = normal(5, 2, 1).double(), normal(5, 2, 2).double()
    start = noise * (TOP if teacher == "edm" else (1 + TOP**2) ** 0.5)
    top, low = (torch.full((5, 1), level, dtype=torch.float64) for level in (TOP, FLOOR))
    clean = model.student.denoised(start, top, source, None)
    below = start + (FLOOR - TOP) / TOP * (start - clean)
    rows = torch.arange(5)[:, None] < 2
    mixed = torch.where(rows, start, below), torch.where(rows, top, low)
    found = model.student.denoised(*mixed, source, None)
    torch.testing.assert_close(found[:2], clean[:2], rtol=1e-6, atol=1e-6)
    end = model.student.apply(source, {}, noise)
    torch.testing.assert_close(found[2:], end[2:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("evaluations", [1, 2, 4])
def test_stretches_follow_each_other_to_the_end(evaluations: int) -> None:
    """With the true end of each stretch the result is that of the path.

    Fails if a stretch begins or ends at another level than its neighbour.
    """
    model = tiny(evaluations=evaluations, levels=18).double()
    assert (model.nfe, model.noise_dim) == (evaluations, 2)
    cuts = [model._sigmas[cut] for cut in model._cuts]
    assert cuts[0] == TOP and cuts[-1] == FLOOR and len(set(cuts)) == evaluations + 1
    floors = iter(cuts[1:])
    model.student.network = Known(None)
    model.student.network.register_forward_pre_hook(
        lambda network, _: setattr(network, "denoise", jump(next(floors)))
    )
    noise = normal(50, 2, 3).double()
    found = model.apply(torch.zeros(50, 2), {}, noise)
    torch.testing.assert_close(found, normal_path(TOP * noise, TOP, FLOOR), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("evaluations", [1, 3])
def test_the_true_student_has_no_loss(evaluations: int) -> None:
    """Neighbours on the path have one end: what is left is the error of one step of Heun's method.

    Its square falls as levels^-6. Fails (1e-2 and more) for a step of Euler's method, for a student
    or a target at the level of the other, and for a floor of another stretch.
    """
    target = MEAN + normal(512, 2, 4).double() @ torch.linalg.cholesky(COVARIANCE).T
    pairs = Pairs(torch.zeros(512, 2), target.float(), from_noise=True)
    losses = []
    for levels in (19, 37):
        model = tiny(levels=levels, evaluations=evaluations, batch_size=256).double()
        teacher = copy.deepcopy(model.student)
        teacher.network = Known(normal_denoise)
        model._teacher[:], model._adopted = [teacher], True
        # a known denoiser has no weights to start the student from
        model.student.load_state_dict = lambda *_: None  # type: ignore[method-assign]
        phase = next(model.phases(pairs, 0))
        data = phase.batch(0, stream(0, "batch"))
        data = {k: v.double() if torch.is_tensor(v) else v for k, v in data.items()}
        assert set(data["sigma"].flatten().tolist()) <= set(map(float, torch.tensor(model._sigmas)))
        assert (data["floor"] <= data["then"]).all() and (data["then"] < data["sigma"]).all()
        floor = data["floor"]

        def end(_: Any, x: Tensor, sigma: Tensor, at: Tensor, *__: Any) -> Tensor:
            assert torch.equal(at, floor)  # noqa: B023  # called below, in this turn of the loop
            rows = zip(x.split(1), sigma[:, 0].tolist(), at[:, 0].tolist(), strict=True)
            return torch.cat([normal_path(*row) for row in rows])

        model.end = end  # type: ignore[method-assign]  # the exact path in place of the network
        losses.append(float(phase.loss(phase.module, data)))
    assert losses[0] < 1e-3
    assert losses[1] < losses[0] / 2**5


# -- training --------------------------------------------------------------------------------------


def test_the_average_follows_once_a_step() -> None:
    """mu average + (1 - mu) weights at the beginning of a step, however many batches that has."""
    model = tiny(average=0.75)
    pairs = Pairs(torch.zeros(100, 2), normal(100, 2, 5), from_noise=True)
    model.adopt(copy.deepcopy(model.student))
    phase = next(model.phases(pairs, 0))
    names = [name for name, _ in phase.module.named_parameters()]
    assert names and all(name.startswith("student.") for name in names)
    key = "network.leave.weight"

    def weights(which: str) -> Tensor:
        return phase.module.state_dict()[f"{which}.{key}"].clone()

    first = weights("student")
    assert torch.equal(weights("average"), first)
    expected = first
    for step in range(3):
        for seat in range(2):
            phase.loss(phase.module, phase.batch(step, stream(seat, "batch", step))).backward()
        if step:
            expected = 0.75 * expected + 0.25 * weights("student")
        torch.testing.assert_close(weights("average"), expected)
        assert all(p.grad is not None for p in phase.module.parameters())
        with torch.no_grad():
            for p in phase.module.parameters():
                p.add_(1.0)
    assert all(p.grad is None for p in model._teacher[0].parameters())


def test_resumed_training_is_bitwise_the_same(tmp_path: Path) -> None:
    """Broken off in the phase of the student; fails if the average is not in the checkpoint."""
    pairs = Pairs(torch.zeros(200, 2), normal(200, 2, 6), from_noise=True)
    settings = TrainingSettings(checkpoint_every=4)

    def until(last: int, draw: Any, step: int, rng: np.random.Generator) -> Any:
        if step == last:
            raise KeyError("broken off")
        return draw(step, rng)

    def run(last: int | None = None, **more: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = Consistency(2, {}, teacher_options=TINY, train_steps=10)

        def phases() -> Any:
            for phase in model.phases(pairs, 0):
                if phase.name == "student" and last is not None:
                    phase.batch = partial(until, last, phase.batch)
                yield phase

        fit(phases(), settings, seed=0, **more)
        return model.state_dict()

    whole = run()
    path = tmp_path / "state"
    with pytest.raises(KeyError, match="broken off"):
        run(6, checkpoint=path)
    resumed = run(checkpoint=path, resume=True)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.slow
def test_learned_map_is_the_path_of_a_mixture() -> None:
    """At two conditions, which move it, in one and in two evaluations.

    The teacher, of 800 steps, is 0.1 away; 0.13 and 0.09 are seen.
    """
    rng = stream(0, "mixture")
    c = torch.from_numpy(rng.choice([-1.0, 1.0], (40_000, 1))).float()
    target = mixture_draw(40_000, 0.0, rng).float() + 0.5 * c
    pairs = Pairs(torch.zeros_like(target), target, {"c": c}, from_noise=True)
    torch.manual_seed(0)
    teacher = EDM(1, {"c": 1}, **SMALL)
    fit(teacher.phases(pairs, 0), TrainingSettings(ema_decay=0.99), seed=0)
    noise = normal(2000, 1, 7)
    for evaluations, limit in ((1, 0.2), (2, 0.15)):
        model = Consistency(
            1, {"c": 1}, teacher_options=SMALL, evaluations=evaluations, train_steps=600,
            learning_rate=1e-3,
        )  # fmt: skip
        model.adopt(teacher)
        fit(model.phases(pairs, 0), TrainingSettings(ema_decay=0.99), seed=0)
        for at in (-1.0, 1.0):
            with torch.no_grad():
                found = model.eval().apply(noise, {"c": torch.full((2000, 1), at)}, noise)
            truth = mixture_path(TOP * noise.double() - 0.5 * at, TOP, FLOOR) + 0.5 * at
            assert (found - truth).square().mean().sqrt() < limit


# -- interface -------------------------------------------------------------------------------------


def test_interface() -> None:
    model = tiny(3, {"c": 2})
    assert isinstance(model, Transport)
    assert (model.noise_dim, model.nfe, model.planned_steps) == (3, 1, 10)
    assert model.source_free and not model.claims.posterior
    sees = tiny(teacher="diffusion")
    assert not sees.source_free and sees.claims.posterior
    sees.adopt(copy.deepcopy(sees.student))
    assert sees.planned_steps == 5


def test_the_teacher_answers_while_it_is_trained_and_is_then_forgotten() -> None:
    model = tiny()
    pairs = Pairs(torch.zeros(50, 2), normal(50, 2, 8), from_noise=True)
    names = []
    for phase in model.phases(pairs, 0):
        names.append(phase.name)
        noise = normal(5, 2, 9)
        if phase.name == "teacher/edm":
            (teacher,) = model._teacher
            found = model.apply(noise, {}, noise)
            assert torch.equal(found, teacher.apply(noise, {}, noise))
        fit([phase], TrainingSettings(), seed=0)
    assert names == ["teacher/edm", "student"]
    assert model._teacher == []
    assert all(key.startswith("student.") for key in model.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluations": 0}, "evaluations must be a whole number from 1 to 17, got 0"),
        ({"levels": 1}, "levels must be a whole number from 2"),
        ({"average": 1.0}, "average must be from 0 to below 1, got 1.0"),
        ({"teacher": "i2sb"}, "unknown teacher 'i2sb'; allowed: edm, diffusion"),
        ({"teacher_options": {"widht": 3}}, "teacher_options .*no option 'widht'; did you mean"),
        ({"teacher_options": {"sampler": "ddpm"}}, "choose a sampler without noise"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Consistency(2, {}, **options)


def test_other_teachers_and_pairs_are_refused() -> None:
    with pytest.raises(ConfigError, match="student of EDM starts from the weights of its teacher"):
        tiny().adopt(EDM(2, {}, width=17, depth=1))
    with pytest.raises(ConfigError, match="for 2 coordinates got 3"):
        next(tiny().phases(Pairs(torch.zeros(100, 3), torch.zeros(100, 3)), 0))
