"""Masking without rebuilding: `MRM(rebuild=False)` and its `MaskTokens`."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import CHANNELS, ToyModel, images, labels, learn

from mrm_loss import MRM, MaskTokens, Rebuilder, weighted_cross_entropy


def test_masked_cells_hold_the_levels_vector_and_the_rest_is_untouched():
    tokens = MaskTokens([8, None, 16], grid_size=4)
    feats = (torch.randn(2, 8, 16, 12), "anything", torch.randn(2, 16, 4, 3))
    with pytest.warns(UserWarning, match=r"coarser than the mask's grid"):
        filled, mask = tokens(feats)
    assert type(filled) is tuple
    assert filled[1] == "anything"
    for level, out, token in ((feats[0], filled[0], tokens.token0), (feats[2], filled[2], tokens.token2)):
        hidden = F.interpolate(mask.float(), level.shape[-2:], mode="nearest").bool().expand_as(level)
        assert torch.equal(out[~hidden], level[~hidden])
        assert torch.equal(out[hidden], token[None, :, None, None].expand_as(level)[hidden])


def test_what_is_masked_is_hidden():
    """The loss is the same whatever stands in masked cells, and its gradient there is zero."""
    mrm = MRM(6, rebuild=False, grid_size=4)
    mask = torch.rand(2, 1, 4, 4) < 0.5
    hidden = F.interpolate(mask.float(), (8, 8), mode="nearest").bool()
    feats = torch.randn(2, 6, 8, 8, requires_grad=True)
    decoder = torch.nn.Conv2d(6, 3, 1)
    target = torch.randint(3, (2, 8, 8))
    loss = mrm(feats, decoder, target, mask=mask)
    loss.backward()
    assert feats.grad is not None
    assert not feats.grad[hidden.expand_as(feats)].any()
    assert feats.grad[~hidden.expand_as(feats)].all()
    other = torch.where(hidden, torch.randn_like(feats), feats)
    assert torch.equal(mrm(other, decoder, target, mask=mask), loss)


def test_closed_form_and_gradient_of_the_vector():
    """One level, a linear decoder: loss and gradients of the same arithmetic written out, in float64."""
    mrm = MRM(5, rebuild=False, grid_size=3, loss_weight=1.5).double()
    feats = torch.randn(2, 5, 6, 9, dtype=torch.float64, requires_grad=True)
    decoder = torch.nn.Conv2d(5, 4, 1).double()
    target, weights = torch.randint(4, (2, 6, 9)), torch.rand(2, 6, 9, dtype=torch.float64)
    mask = torch.rand(2, 1, 3, 3) < 0.5
    token = mrm.rebuilder.token0
    (found,) = torch.autograd.grad(loss := mrm(feats, decoder, target, weights, mask=mask), token)
    share = F.interpolate(mask.double(), (6, 9), mode="nearest")
    logits = decoder(feats * (1 - share) + share * token.reshape(1, 5, 1, 1))
    (expected,) = torch.autograd.grad(plain := 1.5 * weighted_cross_entropy(logits, target, weights), token)
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_gradients_reach_encoder_decoder_and_vectors():
    model, mrm = ToyModel(), MRM(CHANNELS, rebuild=False, grid_size=4)
    mrm(model.encoder(images()), model.decoder, labels()).backward()
    for parameter in (*model.parameters(), *mrm.parameters()):
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    assert all(p.grad.any() for p in mrm.parameters())
    assert sum(p.numel() for p in mrm.parameters()) == sum(CHANNELS)


def test_masks_and_draws_are_the_rebuilders():
    feats = [torch.randn(3, c, 8, 8) for c in (4, 6)]
    both = [MRM([4, 6], grid_size=4, embed_dim=16, num_heads=2, block_size=2, rebuild=r) for r in (True, False)]
    masks = [mrm.rebuild(feats, generator=torch.Generator().manual_seed(3))[1] for mrm in both]
    assert torch.equal(*masks)
    assert [type(mrm.rebuilder) for mrm in both] == [Rebuilder, MaskTokens]


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    grid=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    ratio=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
@pytest.mark.filterwarnings("ignore:feats. the last level")
def test_any_size_comes_back_as_it_went_in(batch, size, grid, ratio, seed):
    torch.manual_seed(seed)
    tokens = MaskTokens([3, 4], grid_size=grid, mask_ratio=ratio)
    feats = [torch.randn(batch, 3, *(2 * s for s in size)), torch.randn(batch, 4, *size).half()]
    filled, mask = tokens(feats)
    assert mask.shape == (batch, 1, *grid)
    assert [(f.shape, f.dtype) for f in filled] == [(f.shape, f.dtype) for f in feats]


def test_state_and_copies():
    mrm = MRM([8, None, 16], rebuild=False)
    assert list(mrm.state_dict()) == ["rebuilder.token0", "rebuilder.token2"]
    MRM([8, None, 16], rebuild=False).load_state_dict(mrm.state_dict())
    clone = copy.deepcopy(mrm)
    assert torch.equal(clone.rebuilder.token0, mrm.rebuilder.token0)
    assert clone.rebuilder.token0 is not mrm.rebuilder.token0
    assert "mask_ratio=0.4" in repr(mrm)


@pytest.mark.slow
def test_compiles_in_one_graph():
    torch._dynamo.reset()
    model, mrm = ToyModel().eval(), MRM(CHANNELS, rebuild=False, grid_size=4)
    feats, target, mask = model.encoder(images()), labels(), torch.rand(2, 1, 4, 4) < 0.4
    expected = mrm(feats, model.decoder, target, mask=mask)
    compiled = torch.compile(mrm, fullgraph=True, backend="aot_eager")
    found = compiled(feats, model.decoder, target, mask=mask)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(p.grad.any() for p in mrm.parameters())


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match=r"rebuild: expected True or False, got 0"):
        MRM(8, rebuild=0)
    with pytest.raises(ValueError, match=r"mask_ratio: expected a number in \(0, 1\), got 1.0"):
        MRM(8, rebuild=False, mask_ratio=1.0)
    with pytest.raises(ValueError, match=r"feats: expected 1 level\(s\)"):
        MRM(8, rebuild=False)([torch.zeros(1, 8, 4, 4)] * 2, lambda f: f, labels())


def test_it_can_be_learnt():
    """The loss falls, and the vectors move."""
    torch.manual_seed(0)
    model, mrm = ToyModel(), MRM(CHANNELS, rebuild=False, grid_size=4)
    before = copy.deepcopy(mrm)
    losses = learn(model, mrm, images(), labels(), steps=15, lr=1e-2)
    assert losses[-1] < losses[0]
    assert all(not torch.equal(a, b) for a, b in zip(mrm.parameters(), before.parameters()))


@pytest.mark.parametrize("rebuild", [True, False])
def test_a_replica_without_parameters_runs(rebuild):
    """DataParallel and FSDP1 leave plain tensors as attributes in the parameters' place."""
    mrm = MRM(8, rebuild=rebuild, scale_factors=1, grid_size=4, embed_dim=16, num_heads=2)
    feats, mask = torch.randn(2, 8, 4, 4), torch.rand(2, 1, 4, 4) < 0.5
    expected = mrm.rebuild(feats, mask)[0]
    for module in mrm.rebuilder.modules():
        for name in list(module._parameters):
            tensor = module._parameters.pop(name)
            setattr(module, name, None if tensor is None else tensor.detach())
    assert torch.equal(mrm.rebuild(feats, mask)[0], expected)


def test_made_on_meta_and_filled_later():
    with torch.device("meta"):
        mrm = MRM([8, 16], rebuild=False)
    mrm.to_empty(device="cpu").rebuilder.reset_parameters()
    assert all(0 < p.abs().max() < 0.2 for p in mrm.parameters())
