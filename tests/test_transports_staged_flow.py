"""Two flows, one after the other: what is carried, what is whose symmetry, what the second one sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports import staged_flow as module
from hepbridge.transports.staged_flow import StagedFlow

SMALL = {"width": 16, "depth": 1, "window": 32, "windows": 2, "train_steps": 20, "steps": 1}


def pairs(n: int = 256, symmetries: torch.Tensor | None = None) -> Pairs:
    rng = stream(0, "staged")
    source, target = (
        torch.from_numpy(rng.standard_normal((n, 5)).astype(np.float32)) for _ in range(2)
    )
    target = target + torch.arange(5.0)
    c = torch.from_numpy(rng.uniform(-1, 1, (n, 1)).astype(np.float32))
    return Pairs(source, target, {"c": c}, order="c", symmetries=symmetries)


def trained(data: Pairs, **options: object) -> StagedFlow:
    torch.manual_seed(0)
    flow = StagedFlow(5, {"c": 1}, lead=2, **options, first=SMALL, then=SMALL)
    fit(flow.phases(data, 0), TrainingSettings(), seed=0, device="cpu")
    return flow.eval()


def test_second_stage_keeps_the_leading_coordinates_and_sees_them_moved():
    data = pairs()
    flow = trained(data, carried=1)
    out = flow.apply(data.source, data.conditions)
    lead = flow.first.apply(data.source[:, 3:], data.conditions)
    torch.testing.assert_close(out[:, 3:], lead, rtol=0, atol=0)
    torch.testing.assert_close(out[:, 4], data.source[:, 4], rtol=0, atol=0)
    assert (out[:, 3] - data.source[:, 3]).abs().max() > 0
    *_, rest = flow.phases(data, 0)
    assert rest.prepare is not None
    rest.prepare(stream(0, "prepare"))
    batch = rest.batch(0, stream(0, "batch"))
    # every leading coordinate that the second stage starts from is one that the first has made
    gap = (batch["x0"][:, None, 3:] - lead).abs().amax(dim=2).min(dim=1).values
    assert gap.max() < 1e-5


@pytest.mark.parametrize("framed", [6, 5])
def test_inverse_undoes_apply(monkeypatch: pytest.MonkeyPatch, framed: int):
    """With frames, and without, as for very many coordinates; here they are 2 times 3."""
    monkeypatch.setattr(module, "_FRAMED", framed)
    data = pairs()
    flow = trained(data)
    assert (flow.before is None) == (flow.after is None) == (framed < 6)
    flow.first.steps = flow.then.steps = 50
    back = flow.inverse(flow.apply(data.source, data.conditions), data.conditions)
    torch.testing.assert_close(back, data.source, rtol=0, atol=1e-3)


def test_symmetry_of_the_leading_coordinates_is_renumbered():
    swap = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 2, 3, 4]])
    trained(pairs(symmetries=swap))
    mixing = torch.tensor([[0, 1, 2, 3, 4], [3, 1, 2, 0, 4]])
    with pytest.raises(ConfigError, match="exchanges leading coordinates"):
        trained(pairs(symmetries=mixing))


def test_coordinates_in_one_orbit_are_alike():
    """By the images of the others alone, if the leading ones stay; else each is by itself."""
    flow = StagedFlow(5, {"c": 1}, lead=2)
    turns = torch.tensor([[0, 1, 2, 3, 4], [2, 1, 0, 3, 4]])
    assert flow._alike(pairs(symmetries=turns)).tolist() == [0, 1, 0]
    swaps = torch.tensor([[0, 1, 2, 3, 4], [2, 1, 0, 4, 3]])
    assert flow._alike(pairs(symmetries=swaps)) is None
    assert flow._alike(pairs()) is None


def test_bad_lead():
    with pytest.raises(ConfigError, match="lead must be from 1 to 4, got 5"):
        StagedFlow(5, {}, lead=5)
    with pytest.raises(ConfigError, match="5 coordinates got 4"):
        next(StagedFlow(5, {"c": 1}).phases(Pairs(torch.zeros(9, 4), torch.zeros(9, 4)), 0))
