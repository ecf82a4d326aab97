"""Masking without rebuilding: `MRM(rebuild=False)` and its `MaskTokens`."""

import copy

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import CHANNELS, ToyModel, images, labels, learn

from mrm_loss import MRM, MaskTokens, Rebuilder, weighted_cross_entropy
from mrm_loss.masking import resize

OPTIONS = {"grid_size": 4, "embed_dim": 16}


def hidden_of(mask, level):
    return F.interpolate(mask.float(), level.shape[-2:], mode="nearest").bool().expand_as(level)


def test_masked_cells_hold_the_projected_token_and_the_rest_is_untouched():
    tokens = MaskTokens([8, None, 16], **OPTIONS)
    feats = (torch.randn(2, 8, 16, 12), "anything", torch.randn(2, 16, 4, 3))
    with pytest.warns(UserWarning, match=r"coarser than the mask's grid"):
        filled, mask = tokens(feats)
    assert type(filled) is tuple
    assert filled[1] == "anything"
    grid = F.layer_norm(tokens.mask_token, (16,)).reshape(1, 16, 1, 1).expand(2, -1, 4, 4)
    for i in (0, 2):
        hidden, projected = hidden_of(mask, feats[i]), resize(tokens.projectors[i](grid), feats[i].shape[-2:])
        assert torch.equal(filled[i][~hidden], feats[i][~hidden])
        torch.testing.assert_close(filled[i][hidden], projected[hidden])


def test_inner_cells_are_filled_alike():
    """Whatever is visible, and in every image: only cells at the grid's edge lack a neighbour."""
    mrm = MRM([8, 16], rebuild=False, scale_factors=[4, 1], grid_size=5, embed_dim=16)
    fine, coarse = mrm.rebuild([torch.randn(2, 8, 20, 20), torch.randn(2, 16, 5, 5)], torch.ones(2, 1, 5, 5) > 0)[0]
    cells = rearrange(fine, "b c (r h) (s w) -> (b r s) (c h w)", h=4, w=4).reshape(2, 5, 5, -1)[:, 1:-1, 1:-1]
    torch.testing.assert_close(cells, cells[:1, :1, :1].expand_as(cells))
    assert cells[0, 0, 0].reshape(8, 16).std(1).max() > 0.1  # a pattern, not a constant
    torch.testing.assert_close(coarse, coarse[:1, :, :1, :1].expand_as(coarse))


def test_what_is_masked_is_hidden():
    """The loss is the same whatever stands in masked cells, and its gradient there is zero."""
    mrm = MRM(6, rebuild=False, **OPTIONS)
    mask = torch.rand(2, 1, 4, 4) < 0.5
    feats = torch.randn(2, 6, 8, 8, requires_grad=True)
    hidden = hidden_of(mask, feats)
    decoder = torch.nn.Conv2d(6, 3, 1)
    target = torch.randint(3, (2, 8, 8))
    loss = mrm(feats, decoder, target, mask=mask)
    loss.backward()
    assert feats.grad is not None
    assert not feats.grad[hidden].any()
    assert feats.grad[~hidden].all()
    other = torch.where(hidden, torch.randn_like(feats), feats)
    assert torch.equal(mrm(other, decoder, target, mask=mask), loss)


def test_closed_form():
    """One level, the projector a 1 x 1 convolution and a norm, a linear decoder: all written out, in float64."""
    mrm = MRM(5, rebuild=False, scale_factors=1, grid_size=3, embed_dim=8, loss_weight=1.5).double()
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
    whole, tokens = Rebuilder(CHANNELS, num_heads=2, **options).double(), MaskTokens(CHANNELS, **options).double()
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


def test_gradients_reach_encoder_decoder_and_token():
    model, mrm = ToyModel(), MRM(CHANNELS, rebuild=False, **OPTIONS)
    mrm(model.encoder(images()), model.decoder, labels()).backward()
    for parameter in (*model.parameters(), *mrm.parameters()):
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    assert all(p.grad.any() for p in mrm.parameters())


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
    tokens = MaskTokens([3, 4], grid_size=grid, mask_ratio=ratio, embed_dim=8)
    feats = [torch.randn(batch, 3, *(2 * s for s in size)), torch.randn(batch, 4, *size).half()]
    filled, mask = tokens(feats)
    assert mask.shape == (batch, 1, *grid)
    assert [(f.shape, f.dtype) for f in filled] == [(f.shape, f.dtype) for f in feats]


def test_state_and_copies():
    mrm = MRM([8, None, 16], rebuild=False, **OPTIONS)
    rebuilder = MRM([8, None, 16], num_heads=2, **OPTIONS)
    assert mrm.state_dict().keys() < rebuilder.state_dict().keys()
    MRM([8, None, 16], rebuild=False, **OPTIONS).load_state_dict(mrm.state_dict())
    clone = copy.deepcopy(mrm)
    assert torch.equal(clone.rebuilder.mask_token, mrm.rebuilder.mask_token)
    assert clone.rebuilder.mask_token is not mrm.rebuilder.mask_token
    assert "scale_factors=[4, 2, 1], grid_size=(4, 4), mask_ratio=0.4" in repr(mrm)


@pytest.mark.slow
def test_compiles_in_one_graph():
    torch._dynamo.reset()
    model, mrm = ToyModel().eval(), MRM(CHANNELS, rebuild=False, **OPTIONS)
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
    with pytest.raises(ValueError, match=r"embed_dim: expected an int of at least 4, got 2"):
        MRM(8, rebuild=False, embed_dim=2)
    with pytest.raises(ValueError, match=r"feats: expected 1 level\(s\)"):
        MRM(8, rebuild=False)([torch.zeros(1, 8, 4, 4)] * 2, lambda f: f, labels())


def test_it_can_be_learnt():
    """The loss falls, and token and projectors move."""
    torch.manual_seed(0)
    model, mrm = ToyModel(), MRM(CHANNELS, rebuild=False, **OPTIONS)
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
