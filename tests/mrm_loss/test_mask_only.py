"""Masking without rebuilding: `MRM(mask_only=True)`."""

import copy

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import CHANNELS, ToyModel, images, labels, learn, small_mrm

from mrm_loss import MRM, Rebuilder, weighted_cross_entropy

OPTIONS = {"grid_size": 4, "embed_dim": 16}


def hidden_of(mask, level):
    return F.interpolate(mask.float(), level.shape[-2:], mode="nearest").bool().expand_as(level)


def test_inner_cells_are_filled_alike():
    """Whatever is visible, and in every image: only cells at the grid's edge lack a neighbour."""
    mrm = MRM([8, 16], mask_only=True, scale_factors=[4, 1], grid_size=5, embed_dim=16)
    fine, coarse = mrm.rebuild([torch.randn(2, 8, 20, 20), torch.randn(2, 16, 5, 5)], torch.ones(2, 1, 5, 5) > 0)[0]
    cells = rearrange(fine, "b c (r h) (s w) -> (b r s) (c h w)", h=4, w=4).reshape(2, 5, 5, -1)[:, 1:-1, 1:-1]
    torch.testing.assert_close(cells, cells[:1, :1, :1].expand_as(cells))
    assert cells[0, 0, 0].reshape(8, 16).std(1).max() > 0.1  # a pattern, not a constant
    torch.testing.assert_close(coarse, coarse[:1, :, :1, :1].expand_as(coarse))


def test_what_is_masked_is_hidden():
    """The loss is the same whatever stands in masked cells, and its gradient there is zero."""
    mrm = MRM(6, mask_only=True, **OPTIONS)
    mask = torch.rand(2, 1, 4, 4) < 0.5
    feats = torch.randn(2, 6, 8, 8, requires_grad=True)
    hidden = hidden_of(mask, feats)
    decoder = torch.nn.Conv2d(6, 3, 1)
    target = torch.randint(3, (2, 8, 8))
    loss = mrm(feats, decoder, target, mask=mask)
    loss.backward()
    assert not feats.grad[hidden].any()
    assert feats.grad[~hidden].all()
    other = torch.where(hidden, torch.randn_like(feats), feats)
    assert torch.equal(mrm(other, decoder, target, mask=mask), loss)


def test_closed_form():
    """One level, the projector a 1 x 1 convolution and a norm, a linear decoder: all written out, in float64."""
    mrm = MRM(5, mask_only=True, scale_factors=1, grid_size=3, embed_dim=8, loss_weight=1.5).double()
    feats = torch.randn(2, 5, 6, 9, dtype=torch.float64, requires_grad=True)
    decoder = torch.nn.Conv2d(5, 4, 1).double()
    target, weights = torch.randint(4, (2, 6, 9)), torch.rand(2, 6, 9, dtype=torch.float64)
    mask = torch.rand(2, 1, 3, 3) < 0.5
    token, linear = mrm.rebuilder.mask_token, mrm.rebuilder.projectors[0][0]
    (found,) = torch.autograd.grad(loss := mrm(feats, decoder, target, weights, mask=mask), token)
    unit = (token - token.mean()) / (token.var(correction=0) + 1e-5).sqrt()
    vector = linear.weight[:, :, 0, 0] @ unit + linear.bias
    vector = (vector - vector.mean()) / (vector.var(correction=0) + 1e-6).sqrt()
    share = F.interpolate(mask.double(), (6, 9), mode="nearest")
    logits = decoder(feats * (1 - share) + share * vector.reshape(1, 5, 1, 1))
    (expected,) = torch.autograd.grad(plain := 1.5 * weighted_cross_entropy(logits, target, weights), token)
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("factors", [None, [8, 3, 1]])
def test_a_rebuilder_whose_tokens_are_the_mask_token(factors):
    """Equal to it with the same weights, outputs and gradients, in float64; it needs no other parameter of it."""
    options = {"scale_factors": factors, "grid_size": (3, 4), "embed_dim": 16}
    whole = Rebuilder(CHANNELS, num_heads=2, **options).double()
    tokens = Rebuilder(CHANNELS, mask_only=True, **options).double()
    missing, unexpected = tokens.load_state_dict(whole.state_dict(), strict=False)
    assert not missing
    assert {key.split(".")[0] for key in unexpected} == {"embed", "blocks", "pos_embed"}

    def blank(last, mask):
        return whole.norm(whole.mask_token)[:, None, None].expand(len(last), -1, 3, 4)

    whole.make_tokens = blank
    feats = [torch.randn(3, c, 3 * k, 4 * k).double().requires_grad_() for c, k in zip(CHANNELS, (8, 3, 1))]
    directions, mask = [torch.randn_like(f) for f in feats], torch.rand(3, 1, 3, 4) < 0.4
    pairs = [module(feats, mask)[0] for module in (whole, tokens)]
    for ours, theirs in zip(*pairs):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    names = [name for name, _ in tokens.named_parameters()]
    grads = [
        torch.autograd.grad(
            sum((out * way).sum() for out, way in zip(outs, directions)),
            [*feats, *(module.get_parameter(name) for name in names)],
        )
        for module, outs in zip((whole, tokens), pairs)
    ]
    for name, ours, theirs in zip(["", "", "", *names], *grads):
        assert (ours - theirs).abs().max() <= 1e-13 * ours.std(), name


def test_masks_and_draws_are_the_rebuilders():
    feats = [torch.randn(3, c, 8, 8) for c in (4, 6)]
    both = [small_mrm([4, 6], block_size=2, mask_only=mask_only) for mask_only in (False, True)]
    masks = [mrm.rebuild(feats, generator=torch.Generator().manual_seed(3))[1] for mrm in both]
    assert torch.equal(*masks)


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
    rebuilder = Rebuilder([3, None, 4], mask_only=True, grid_size=grid, mask_ratio=ratio, embed_dim=8)
    feats = (torch.randn(batch, 3, *(2 * s for s in size)), "anything", torch.randn(batch, 4, *size).half())
    filled, mask = rebuilder(feats)
    assert mask.shape == (batch, 1, *grid)
    assert type(filled) is tuple and filled[1] == "anything"
    for before, after in zip(feats[::2], filled[::2]):
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        hidden = hidden_of(mask, before)
        assert torch.equal(after[~hidden], before[~hidden])


def test_keys_are_the_rebuilders():
    keys = small_mrm([8, None, 16], mask_only=True).state_dict().keys()
    assert keys < small_mrm([8, None, 16]).state_dict().keys()
    assert {key.split(".")[1] for key in keys} == {"mask_token", "norm", "projectors"}


@pytest.mark.slow
def test_compiles_in_one_graph():
    torch._dynamo.reset()
    model, mrm = ToyModel().eval(), MRM(CHANNELS, mask_only=True, **OPTIONS)
    feats, target, mask = model.encoder(images()), labels(), torch.rand(2, 1, 4, 4) < 0.4
    expected = mrm(feats, model.decoder, target, mask=mask)
    compiled = torch.compile(mrm, fullgraph=True, backend="aot_eager")
    found = compiled(feats, model.decoder, target, mask=mask)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(p.grad.any() for p in mrm.parameters())


def test_it_can_be_learnt():
    """The loss falls, and encoder, decoder, token and projectors move."""
    torch.manual_seed(0)
    model, mrm = ToyModel(), MRM(CHANNELS, mask_only=True, **OPTIONS)
    before = copy.deepcopy([model, mrm])
    losses = learn(model, mrm, images(), labels(), steps=15, lr=1e-2)
    assert losses[-1] < losses[0]
    for now, then in zip([model, mrm], before):
        assert all(not torch.equal(a, b) for a, b in zip(now.parameters(), then.parameters()))


@pytest.mark.parametrize("mask_only", [False, True])
def test_a_replica_without_parameters_runs(mask_only):
    """DataParallel and FSDP1 leave plain tensors as attributes in the parameters' place."""
    mrm = small_mrm(8, mask_only=mask_only, scale_factors=1)
    feats, mask = torch.randn(2, 8, 4, 4), torch.rand(2, 1, 4, 4) < 0.5
    expected = mrm.rebuild(feats, mask)[0]
    for module in mrm.rebuilder.modules():
        for name in list(module._parameters):
            tensor = module._parameters.pop(name)
            setattr(module, name, None if tensor is None else tensor.detach())
    assert torch.equal(mrm.rebuild(feats, mask)[0], expected)
