"""Passes: parts of a batch, autocast where networks compute and nowhere else, fp16's loss scale."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from uda.networks.sliding import Box
from uda.runtime.passes import Passes

CPU = torch.device("cpu")


def losses_of(layer, seen, name, x, others, box):
    """Two losses of the mean over a batch, and what this function was given."""
    seen.append((x, others, box, torch.is_autocast_enabled("cpu")))
    y = layer(x)
    yield name, y.float().square().mean()
    assert torch.is_autocast_enabled("cpu") == (y.dtype != torch.float32)
    yield "other", layer(others[0]).float().mean()


def run(passes, layer):
    x, other, seen = torch.randn(4, 3), torch.randn(4, 3), []
    layer.zero_grad()
    counted = partial(losses_of, layer, seen)
    found = passes.backward(counted, "first", x, [other], Box(1, 2, 3, 4), factors={"other": 0.5})
    return found, [p.grad.clone() for p in layer.parameters()], seen, (x, other)


def test_parts_of_a_batch_give_its_gradients():
    layer = nn.Linear(3, 2)
    torch.manual_seed(1)
    whole, expected, seen, (x, other) = run(Passes(CPU), layer)
    assert len(seen) == 1
    torch.testing.assert_close(whole, {"first": layer(x).square().mean(), "other": 0.5 * layer(other).mean()})
    assert not any(loss.requires_grad for loss in whole.values())
    torch.manual_seed(1)
    parts, found, seen, _ = run(Passes(CPU, parts=2), layer)
    for i, (share, [others], box, autocast) in enumerate(seen):
        assert torch.equal(share, x[2 * i : 2 * i + 2]) and torch.equal(others, other[2 * i : 2 * i + 2])
        assert box == Box(1, 2, 3, 4) and isinstance(box, Box) and not autocast
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_ends_before_the_backward(precision):
    layer, passes, during = nn.Linear(3, 2), Passes(CPU, precision), []
    layer.weight.register_hook(lambda grad: during.append(torch.is_autocast_enabled("cpu")))
    losses, grads, seen, _ = run(passes, layer)
    assert [autocast for *_, autocast in seen] == [True]
    assert during == [False, False]
    assert not torch.is_autocast_enabled("cpu")
    assert {loss.dtype for loss in losses.values()} == {torch.float32} == {grad.dtype for grad in grads}
    logits = passes.predict(layer, torch.randn(4, 3))
    assert logits.dtype == passes.half and not logits.requires_grad


def test_predictions_of_parts_are_joined():
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    assert torch.equal(Passes(CPU).predict(layer, x), layer(x))
    torch.testing.assert_close(Passes(CPU, parts=2).predict(layer, x), layer(x).detach())


def test_fp16_scales_losses_and_leaves_out_updates_that_overflow():
    layer, passes = nn.Linear(3, 2), Passes(CPU, "fp16")
    trained, idle = torch.optim.SGD(layer.parameters(), lr=1.0), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    torch.manual_seed(1)
    _, scaled, *_ = run(passes, layer)
    torch.manual_seed(1)
    _, expected, *_ = run(Passes(CPU, "fp32"), layer)
    for p, g, e in zip(layer.parameters(), scaled, expected):
        torch.testing.assert_close(g / 65536, e, rtol=1e-2, atol=1e-3)
        p.grad = g.clone()
    before = [p.detach().clone() for p in layer.parameters()]
    passes.step([trained, idle])
    for p, b, g in zip(layer.parameters(), before, scaled):
        torch.testing.assert_close(p.detach(), b - g / 65536)
    before = [p.detach().clone() for p in layer.parameters()]
    layer.weight.grad[0, 0] = torch.inf
    passes.step([trained, idle])
    assert all(torch.equal(p, b) for p, b in zip(layer.parameters(), before))
    assert passes.scaler.get_scale() == 32768
