"""Density distillation: exact inverses in closed form, densities, students of trained teachers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Density, Pairs, Phase, Transport
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports.discrepancies import energy_distance
from hepbridge.transports.inverse_flow import InverseFlow
from hepbridge.transports.spline_flow import SplineFlow

ALONE = {"condition_on_source": False}


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(stream(seed, "test").standard_normal((n, d), np.float32))


def rough(dim: int, size: float = 0.3, **options: object) -> InverseFlow:
    """A student with random weights, far from the identity."""
    torch.manual_seed(0)
    flow = InverseFlow(dim, {"c": 1}, teacher_options={"width": 16, **options})
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(size * torch.randn_like(p))
    return flow.double().eval()


# -- a Gaussian teacher: its exact inverse is a student -------------------------------------------

MEAN, SLOPE = np.array([0.5, -1.0, 0.2]), np.array([0.3, 0.8, -0.5])
COVARIANCE = np.array([[0.6, -0.3, 0.2], [-0.3, 1.2, 0.4], [0.2, 0.4, 0.9]])
ROOT = np.linalg.cholesky(COVARIANCE)
GAUSSIAN = {**ALONE, "transforms": 1, "width": 6, "depth": 1}


def set_linear(one: torch.nn.Module, matrix: np.ndarray, slope: np.ndarray, at: np.ndarray) -> None:
    """An affine map with shift (strict lower part of matrix) h + slope c + at, scale its diagonal.

    A pair of hidden columns hands on a number: silu(a) - silu(-a) = a.
    """
    dim = len(matrix)
    first, last = one.hyper[0], one.hyper[-1]
    for p in one.parameters():
        p.data.zero_()
    values = np.column_stack(
        [slope, np.tril(matrix, -1)]
    )  # what the context says, then coordinates
    inputs = [dim, *range(dim)]
    seen = first.mask[:, :dim].sum(dim=1)
    for j in range(dim):
        for unit, sign in zip((seen == j).nonzero()[:, 0], (1.0, -1.0), strict=True):
            first.weight.data[unit, inputs[j]] = sign
            last.weight.data[0::2, unit] = sign * torch.from_numpy(values[:, j])
    log_scale = np.log(np.diag(matrix))
    squashed = log_scale / (1 - np.abs(log_scale) / -math.log(1e-3))  # zuko's bound on slopes
    last.bias.data[0::2] = torch.from_numpy(at)
    last.bias.data[1::2] = torch.from_numpy(squashed)


def gaussian_teacher() -> SplineFlow:
    """z = R^-1 (x - mean - slope c) with the Cholesky root R; its spline map does nothing."""
    flow = SplineFlow(3, {"c": 1}, **GAUSSIAN).double()
    inverse = np.linalg.inv(ROOT)
    set_linear(flow.network.transforms[0], inverse, -inverse @ SLOPE, -inverse @ MEAN)
    for p in flow.network.transforms[1].parameters():
        p.data.zero_()
    return flow


def gaussian_student(**options: object) -> InverseFlow:
    """x = R z + mean + slope c, solved for z as a student's map is."""
    flow = InverseFlow(3, {"c": 1}, teacher_options=GAUSSIAN, **options).double()
    d = np.diag(ROOT)
    matrix = -ROOT / d[:, None]
    np.fill_diagonal(matrix, 1 / d)
    set_linear(flow.network.transforms[-1], matrix, -SLOPE / d, -MEAN / d)
    for p in flow.network.transforms[0].parameters():
        p.data.zero_()
    return flow


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("blend", [0.0, 1.0])
def test_the_exact_inverse_has_no_loss_and_the_density_of_the_teacher(
    guided: bool, blend: float
) -> None:
    """Fails if maps or the orders in them are not those of the teacher backwards."""
    student, teacher = gaussian_student(guided=guided, blend=blend), gaussian_teacher()
    x, z, c = (normal(50, d, k).double() for k, d in enumerate((3, 3, 1)))
    apart = student._apart(teacher.network, student.network, x, z, c)
    assert float(apart.detach()) < 1e-24
    drawn, density = student.sample_and_log_prob({"c": c}, z)
    mean = torch.from_numpy(MEAN + c.numpy() * SLOPE)
    torch.testing.assert_close(drawn, mean + z @ torch.from_numpy(ROOT.T), rtol=1e-9, atol=1e-9)
    truth = multivariate_normal(cov=COVARIANCE).logpdf((drawn - mean).detach().numpy())
    for found in (density, student.log_prob(drawn, {"c": c}), teacher.log_prob(drawn, {"c": c})):
        np.testing.assert_allclose(found.detach().numpy(), truth, atol=1e-9)


@pytest.mark.parametrize("where", ["data", "noise", "between"])
def test_the_loss_sees_what_is_wrong(where: str) -> None:
    """One wrong number in a map of the exact student: both directions notice, guided or not."""
    x, z, c = (normal(50, d, k).double() for k, d in enumerate((3, 3, 1)))
    for blend in (0.0, 1.0):
        for guided in (True, False):
            student = gaussian_student(guided=guided, blend=blend)
            maps = student.network.transforms
            if where == "between":  # an error that the next map takes back
                maps[0].hyper[-1].bias.data[0] += 0.5
                maps[1].hyper[-1].bias.data[0] += 0.1
            else:
                maps[-1 if where == "data" else 0].hyper[-1].bias.data[0] += 0.1
            apart = student._apart(gaussian_teacher().network, student.network, x, z, c)
            assert float(apart.detach()) > 1e-6


@pytest.mark.slow
def test_a_student_learns_a_gaussian() -> None:
    """Of the exact teacher: the divergence between the two closed forms' densities is small.

    Fails if the noise of the loss is not that of the teacher's end, or with a student that is turned
    round in the wrong order.
    """
    torch.manual_seed(0)
    options = {"width": 32, "train_steps": 500, "learning_rate": 4e-3}
    student = InverseFlow(3, {"c": 1}, teacher_options=GAUSSIAN, **options)
    student.adopt(gaussian_teacher().float())
    assert student.planned_steps == 500
    c = normal(4000, 1, 1)
    x = (
        torch.from_numpy(MEAN + c.numpy() * SLOPE).float()
        + normal(4000, 3, 2) @ torch.from_numpy(ROOT.T).float()
    )
    pairs = Pairs(torch.zeros_like(x), x, {"c": c})
    fit(student.phases(pairs, 0), TrainingSettings(ema_decay=0.98, threads=1), seed=0)
    n = 20_000
    c, z = normal(n, 1, 3), normal(n, 3, 4)
    with torch.no_grad():
        drawn, density = student.eval().sample_and_log_prob({"c": c}, z)
    off = drawn.double().numpy() - MEAN - c.double().numpy() * SLOPE
    divergence = density.double().numpy() - multivariate_normal(cov=COVARIANCE).logpdf(off)
    assert divergence.mean() < 0.02
    width = np.diag(COVARIANCE) ** 0.5
    assert np.all(np.abs(off.mean(axis=0)) < (5 / n**0.5 + 0.06) * width)
    error = (5 * (2 / n) ** 0.5 + 0.1) * np.outer(width, width)
    assert np.all(np.abs(np.cov(off.T) - COVARIANCE) < error)


# -- densities of any student ---------------------------------------------------------------------


def test_the_density_of_a_draw_is_that_of_its_map() -> None:
    """ln N(z) - ln |dx/dz| with autograd's Jacobian, and the same by the inverse in many passes."""
    flow = rough(3, order="random")
    source, c, noise = (normal(6, d, k).double() for k, d in enumerate((3, 1, 3)))
    given = {"source": source, "c": c}
    x, density = flow.sample_and_log_prob(given, noise)
    torch.testing.assert_close(x, flow.apply(source, {"c": c}, noise), rtol=0, atol=0)
    torch.testing.assert_close(flow.log_prob(x, given), density, rtol=1e-6, atol=1e-6)
    for i in range(6):
        row = {name: value[i : i + 1] for name, value in given.items()}
        jacobian = torch.autograd.functional.jacobian(
            lambda z, row=row: flow.sample(row, z[None])[0], noise[i]
        )
        truth = norm.logpdf(noise[i].numpy()).sum() - float(torch.linalg.slogdet(jacobian)[1])
        assert float(density[i].detach()) == pytest.approx(truth, abs=1e-8)


def test_the_density_is_normalised() -> None:
    flow = rough(2, 0.2, transforms=2, **ALONE)
    g = torch.linspace(-12, 12, 241, dtype=torch.float64)
    plane = torch.cartesian_prod(g, g)
    with torch.no_grad():
        density = flow.log_prob(plane, {"c": torch.full((len(plane), 1), 0.3).double()})
    assert float(density.exp().sum()) * 0.01 == pytest.approx(1.0, abs=3e-3)


# -- a student of a trained teacher ---------------------------------------------------------------


def mixture(n: int, seed: int) -> Pairs:
    """Two blobs, 0.3 : 0.7, 2 apart each way and of different shapes; the condition moves one."""
    rng = stream(seed, "mixture")
    c = rng.uniform(-1, 1, (n, 1))
    few = rng.random((n, 1)) < 0.3
    a = rng.multivariate_normal([1.2, 1.2], [[0.15, 0.1], [0.1, 0.15]], n) + 0.4 * c
    b = rng.multivariate_normal([-0.8, -0.8], [[0.3, -0.15], [-0.15, 0.2]], n)
    x = torch.from_numpy(np.where(few, a, b)).float()
    return Pairs(torch.zeros_like(x), x, {"c": torch.from_numpy(c).float()})


@pytest.mark.slow
def test_a_student_draws_as_its_teacher_does() -> None:
    """Both trained here; draws with other noise agree, and the student's are those of the mixture.

    Fails if the student is not trained (the loss has the wrong sign, the phase is left out).
    """
    torch.manual_seed(0)
    options = {**ALONE, "transforms": 2, "width": 32, "train_steps": 600, "batch_size": 256}
    student = InverseFlow(2, {"c": 1}, teacher_options=options, train_steps=300)
    teacher = student._taught()
    settings = TrainingSettings(ema_decay=0.98, threads=1)
    fit(student.phases(mixture(8000, 0), 0), settings, seed=0)
    n = 4000
    fresh = mixture(n, 1)
    given = fresh.conditions
    with torch.no_grad():
        x, density = student.eval().sample_and_log_prob(given, normal(n, 2, 2))
        taught = teacher.eval().sample(given, normal(n, 2, 3))
        divergence = (density - teacher.log_prob(x, given)).double()
    assert float(divergence.mean()) < 0.03 + 4 * float(divergence.std()) / n**0.5
    near = torch.cat([taught, given["c"]], dim=1), torch.cat([x, given["c"]], dim=1)
    splits = [float(energy_distance(a[k::4], b[k::4])) for k in range(4) for a, b in [near]]
    # of 1000 against 1000 rows each, their spread is that of equal distributions
    null = [float(energy_distance(taught[k::8], taught[k + 4 :: 8]).detach()) for k in range(4)]
    slack = 4 * max(np.std(null), 1e-3) + 0.003
    assert np.mean(splits) < slack
    share = float((x.sum(dim=1) > 0.6).double().mean())
    truth = float((fresh.target.sum(dim=1) > 0.6).double().mean())
    assert abs(share - truth) < 5 * (0.21 * 2 / n) ** 0.5 + 0.03
    mirrored = float(energy_distance(x, -taught))
    assert mirrored > 15 * slack, "the distance sees nothing"


# -- the contract ---------------------------------------------------------------------------------

TINY = {"width": 8, "depth": 1, "transforms": 2, "dropout": 0.1}
TINY |= {"train_steps": 5, "batch_size": 16, "learning_rate": 2e-3}


def pairs(n: int = 100) -> Pairs:
    return Pairs(normal(n, 3, 1), normal(n, 3, 2), {"c": normal(n, 1, 3)})


def test_one_pass_for_any_number_of_coordinates() -> None:
    flow = rough(5, transforms=2)
    assert isinstance(flow, Transport) and isinstance(flow, Density)
    assert (flow.noise_dim, flow.nfe) == (5, 3)
    calls: list[int] = []
    for one in flow.network.transforms:
        one.hyper[1].register_forward_hook(lambda *_: calls.append(1))
    given = {"c": normal(7, 1, 2).double()}
    flow.apply(normal(7, 5, 1).double(), given, normal(7, 5, 3).double())
    assert len(calls) == flow.nfe


def test_the_teacher_answers_while_it_is_trained_and_is_then_forgotten() -> None:
    torch.manual_seed(0)
    student = InverseFlow(3, {"c": 1}, teacher_options=TINY, train_steps=7, batch_size=16)
    assert student.planned_steps == 12
    keys, data, seen = set(student.state_dict()), pairs(), []
    noise = normal(100, 3, 5)
    for phase in student.phases(data, 0):
        fit([phase], TrainingSettings(threads=1), seed=0)
        taught = student._teacher[0].apply(data.source, data.conditions, noise)
        seen.append(
            (phase.name, torch.equal(student.apply(data.source, data.conditions, noise), taught))
        )
    assert seen == [("teacher/flow", True), ("student", False)]
    assert set(student.state_dict()) == keys and student._teacher == []


def test_a_student_resumes_to_the_same_weights(tmp_path: Path) -> None:
    """Killed in its fourth step: it comes back with its own weights, not those of the teacher."""
    settings = TrainingSettings(threads=1, checkpoint_every=1)

    def trained(stop: bool, **how: object) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        student = InverseFlow(3, {"c": 1}, teacher_options=TINY, train_steps=6, batch_size=16)

        def phases() -> Iterator[Phase]:
            for phase in student.phases(pairs(), 0):
                yield replace(phase, batch=partial(drawn, phase)) if stop else phase

        fit(phases(), settings, seed=0, **how)
        return student.state_dict()

    def drawn(phase: Phase, step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        if phase.name == "student" and step == 3:
            raise InterruptedError
        return phase.batch(step, rng)

    truth, kept = trained(False), tmp_path / "kept"
    with pytest.raises(InterruptedError):
        trained(True, checkpoint=kept)
    found = trained(False, checkpoint=kept, resume=True)
    assert all(torch.equal(found[name], truth[name]) for name in truth)


def test_a_student_of_the_same_size_starts_from_its_teacher() -> None:
    """Each map from its own: fails if they are paired in the order of the teacher."""
    teacher = SplineFlow(3, {"c": 1}, **TINY)
    for width, same in ((None, True), (9, False)):
        student = InverseFlow(3, {"c": 1}, teacher_options=TINY, width=width)
        student.adopt(teacher)
        (_,) = list(student.phases(pairs(), 0))[-1:]
        for mine, its in zip(
            student.network.transforms, reversed(teacher.network.transforms), strict=True
        ):
            found, truth = mine.hyper[0].weight, its.hyper[0].weight
            assert (found.shape == truth.shape and torch.equal(found, truth)) == same


def test_options_of_training_are_its_own() -> None:
    student = InverseFlow(3, {"c": 1}, teacher_options=TINY, train_steps=7, learning_rate=3e-4)
    taught, own = student.phases(pairs(), 0)
    assert (taught.steps, taught.learning_rate) == (5, 2e-3)
    assert (own.steps, own.learning_rate) == (7, 3e-4)
    assert len(own.batch(0, stream(0, "batch"))["x"]) == 256
    assert not any(isinstance(m, torch.nn.Dropout) for m in student.modules())


def test_whether_the_source_is_seen_is_that_of_the_teacher() -> None:
    noise, c = normal(6, 3, 1).double(), {"c": normal(6, 1, 2).double()}
    for seen in (True, False):
        flow = rough(3, condition_on_source=seen)
        a, b = (flow.apply(normal(6, 3, k).double(), c, noise) for k in (3, 4))
        assert torch.equal(a, b) != seen
        assert flow.claims.posterior == seen


def test_only_the_student_is_trained_in_its_phase_and_on_symmetry_images() -> None:
    student = InverseFlow(2, {}, teacher_options={**TINY, **ALONE}, batch_size=400)
    target = normal(300, 2, 1).sort(dim=1).values
    data = Pairs(normal(300, 2, 2), target, symmetries=torch.tensor([[0, 1], [1, 0]]))
    student.adopt(SplineFlow(2, {}, **TINY, **ALONE))
    phase = next(iter(student.phases(data, 0)))
    batch = phase.batch(0, stream(0, "batch"))
    share = float((batch["x"][:, 0] < batch["x"][:, 1]).float().mean())
    assert abs(share - 0.5) < 4 * 0.5 / 400**0.5
    phase.loss(phase.module, batch).backward()
    assert all(p.grad is not None for p in student.parameters())
    assert not any(p.requires_grad for p in student._teacher[0].parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blend": 1.5}, "blend must be from 0 to 1, got 1.5"),
        ({"teacher_options": {"kind": "coupling"}}, "of kind 'coupling' draws in few passes"),
        ({"teacher_options": {"widht": 3}}, "no option 'widht'; did you mean 'width'"),
        ({"width": 0}, "width must be a whole number"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InverseFlow(3, {}, **options)


def test_other_teachers_are_refused() -> None:
    student = InverseFlow(3, {"c": 1}, teacher_options=TINY)
    with pytest.raises(
        ConfigError, match=r"transforms 2, the teacher 1; bound 5\.0, the teacher 9\.0"
    ):
        student.adopt(SplineFlow(3, {"c": 1}, **{**TINY, "transforms": 1, "bound": 9.0}))
    with pytest.raises(ConfigError, match="not from Linear"):
        student.adopt(torch.nn.Linear(3, 3))
    with pytest.raises(ConfigError, match="not from InverseFlow"):
        student.adopt(student)
    with pytest.raises(ConfigError, match="for 3 coordinates got 2"):
        next(student.phases(Pairs(torch.zeros(9, 2), torch.zeros(9, 2)), 0))
