"""Checkpointed blocks: the same bits, less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from uda.networks.backbones import Encoder
from uda.networks.checkpointing import checkpoint_activations
from uda.networks.small import SmallEncoder

# blocks, and the most that may be kept for the backward, relative to what is kept without
ENCODERS = {"small": (5, 0.4), "mit_b0": (8, 0.2), "resnet18": (8, 0.6), "resnet50": (16, 0.4)}


def encoder_of(name):
    if name == "small":
        return SmallEncoder()
    pytest.importorskip("segmentation_models_pytorch")
    encoder = Encoder(name)
    for module in encoder.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.5
    return encoder


def run(encoder, images):
    """Outputs, gradients, buffers, and bytes kept for the backward; random numbers as drawn from here."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = encoder(images)
    for p in encoder.parameters():
        kept.pop(p.untyped_storage().data_ptr(), None)
    sum(y.square().mean() for y in outputs).backward()
    return [*outputs, *(p.grad for p in encoder.parameters()), *encoder.buffers()], sum(kept.values())


@pytest.mark.parametrize("name", ENCODERS)
def test_same_bits_less_memory(name):
    plain = encoder_of(name)
    keys, (blocks, ratio) = plain.state_dict().keys(), ENCODERS[name]
    encoder = copy.deepcopy(plain)
    assert checkpoint_activations(encoder) == blocks
    assert encoder.state_dict().keys() == keys
    encoder = copy.deepcopy(encoder)  # the copy runs its own blocks
    images = torch.randn(2, 3, 64, 128)
    expected, kept = run(plain, images)
    found, kept_less = run(encoder, images)
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert torch.equal(a, b)
    print(f"{name}: {kept_less / kept:.2f} of {kept / 2**20:.1f} MiB")
    assert kept_less < ratio * kept
    with torch.no_grad():
        torch.manual_seed(2)
        there = encoder(images)
        torch.manual_seed(2)
        assert all(torch.equal(a, b) for a, b in zip(there, plain(images)))


@pytest.mark.slow
def test_compiled_blocks_record_statistics_once():
    plain, encoder = (SmallEncoder() for _ in range(2))
    encoder.load_state_dict(plain.state_dict())
    checkpoint_activations(encoder)
    encoder.compile(backend="aot_eager", fullgraph=True)
    images = torch.randn(2, 3, 32, 64)
    expected, found = run(plain, images)[0], run(encoder, images)[0]
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b)
    torch._dynamo.reset()
