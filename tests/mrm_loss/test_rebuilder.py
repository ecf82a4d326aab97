import math
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mrm_loss import Rebuilder
from mrm_loss.layers import Attention, ChannelNorm, Projector, sincos_position

SMALL = {"embed_dim": 16, "num_heads": 2, "grid_size": 4}


def level_mask(mask, size):
    return F.interpolate(mask.float(), size, mode="nearest").bool()


# ------------------------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 7, 8, 16, 19])
def test_projector_layers(factor):
    layers = Projector(32, 7, factor)
    ups = [layer for layer in layers if isinstance(layer, nn.ConvTranspose2d)]
    assert len(ups) == math.floor(math.log2(factor))
    widths = [32, 16, 8, 8, 8][: len(ups) + 1]
    assert [(up.in_channels, up.out_channels) for up in ups] == list(zip(widths, widths[1:]))
    assert all((up.kernel_size, up.stride, up.padding) == ((4, 4), (2, 2), (1, 1)) for up in ups)
    assert layers(torch.randn(1, 32, 3, 5)).shape == (1, 7, 3 * 2 ** len(ups), 5 * 2 ** len(ups))
    expected = []
    for i in range(len(ups)):
        expected += [nn.ConvTranspose2d] if i == 0 else [ChannelNorm, nn.GELU, nn.ConvTranspose2d]
    assert [type(layer) for layer in layers] == [*expected, nn.Conv2d, ChannelNorm]
    assert {layer.eps for layer in layers if isinstance(layer, ChannelNorm)} == {1e-6}


def test_default_scale_factors():
    assert Rebuilder([8, 8, 8, 8], **SMALL).scale_factors == [8, 4, 2, 1]
    assert Rebuilder(8, **SMALL).scale_factors == [4]
    assert Rebuilder([None, 8, 8], **SMALL).scale_factors[1:] == [2, 1]


def test_position_table_entry_by_entry():
    rows, cols, dim = 3, 5, 24
    table = sincos_position((rows, cols), dim)
    assert table.dtype == torch.float32
    quarter = dim // 4
    for r in range(rows):
        for c in range(cols):
            for i in range(quarter):
                frequency = 10000 ** (-i / quarter)
                expected = [math.sin(r * frequency), math.cos(r * frequency)]
                expected += [math.sin(c * frequency), math.cos(c * frequency)]
                found = table[0, r * cols + c, i::quarter].double()
                torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=6e-8)


def test_attention_is_softmax_attention():
    attention, x = Attention(12, 3).double(), torch.randn(2, 7, 12, dtype=torch.float64)
    q, k, v = attention.qkv(x).reshape(2, 7, 3, 3, 4).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / 2).softmax(-1)
    expected = attention.proj((weights @ v).transpose(1, 2).reshape(2, 7, 12))
    torch.testing.assert_close(attention(x), expected)


def test_blocks_are_stock_pre_norm_encoder_layers():
    rebuilder = Rebuilder(8, **SMALL).double()
    stock = nn.TransformerEncoderLayer(16, 2, 64, 0.0, "gelu", batch_first=True, norm_first=True).double()
    ours = rebuilder.blocks[0]
    stock.load_state_dict(
        {
            "self_attn.in_proj_weight": ours.attn.qkv.weight,
            "self_attn.in_proj_bias": ours.attn.qkv.bias,
            "self_attn.out_proj.weight": ours.attn.proj.weight,
            "self_attn.out_proj.bias": ours.attn.proj.bias,
            **{f"linear{1 + i // 2}.{name}": p for i in (0, 2) for name, p in ours.mlp[i].named_parameters()},
            **{f"norm{i}.{name}": p for i in (1, 2) for name, p in getattr(ours, f"norm{i}").named_parameters()},
        }
    )
    x = torch.randn(2, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(ours(x), stock(x))


def test_linear_and_resize_commute():
    rebuilder = Rebuilder(8, **SMALL).double()
    last, nothing = torch.randn(2, 8, 9, 13, dtype=torch.float64), torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    embedded = F.linear(last.permute(0, 2, 3, 1), rebuilder.embed.weight, rebuilder.embed.bias).permute(0, 3, 1, 2)
    small = F.interpolate(embedded, (4, 4), mode="bilinear", align_corners=False)
    x = small.flatten(2).transpose(1, 2) + rebuilder.pos_embed
    for block in rebuilder.blocks:
        x = block(x)
    expected = rebuilder.norm(x).transpose(1, 2).reshape(2, 16, 4, 4)
    torch.testing.assert_close(rebuilder.make_tokens(last, nothing), expected)


def test_initialisation():
    rebuilder = Rebuilder([64, 128])
    assert rebuilder.mask_token.std().item() == pytest.approx(0.02, rel=0.2)
    for linear in [rebuilder.embed, *(m for m in rebuilder.blocks.modules() if isinstance(m, nn.Linear))]:
        bound = math.sqrt(6 / (linear.in_features + linear.out_features))
        assert linear.weight.abs().max() <= bound
        assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert not linear.bias.any()


# -------------------------------------------------------------------------------------------------- what comes back


@settings(max_examples=80)
@pytest.mark.filterwarnings("ignore:feats. the last level")
@given(data=st.data())
def test_every_size_comes_back_as_it_went_in(data):
    draw = data.draw
    levels = draw(st.integers(1, 6), "levels")
    batch = draw(st.integers(1, 3), "batch")
    channels = [draw(st.sampled_from([None, 0, 1, 3, 8])) for _ in range(levels - 1)] + [draw(st.integers(1, 8))]
    sizes = [(draw(st.integers(1, 40)), draw(st.integers(1, 40))) for _ in range(levels)]
    grid = (draw(st.integers(1, 20)), draw(st.integers(1, 20)))
    factors = draw(st.one_of(st.none(), st.lists(st.integers(1, 9), min_size=levels, max_size=levels)))
    rebuilder = Rebuilder(
        channels,
        scale_factors=factors,
        grid_size=grid,
        embed_dim=8,
        num_heads=2,
        mask_ratio=draw(st.floats(0.05, 0.95)),
        block_size=draw(st.integers(1, min(4, max(grid)))),
    )
    feats = [torch.randn(batch, c or 0, *size) for c, size in zip(channels, sizes)]
    rebuilt, mask = rebuilder(feats)
    assert type(rebuilt) is list
    assert mask.shape == (batch, 1, *grid)
    for c, given_level, level in zip(channels, feats, rebuilt):
        if not c:
            assert level is given_level
            continue
        assert level.shape == given_level.shape
        assert level.dtype == given_level.dtype
        masked = level_mask(mask, level.shape[-2:]).expand_as(level)
        assert torch.equal(level[~masked], given_level[~masked])
        assert torch.isfinite(level).all()
        # one channel: LayerNorm leaves its bias, zero
        assert c == 1 or (level[masked] != given_level[masked]).float().mean() > 0.9 or not masked.any()


def test_a_wide_crop():
    rebuilder = Rebuilder([4, 8, 8, 16], embed_dim=32, num_heads=4)
    feats = [torch.randn(1, c, 512 // s, 1024 // s) for c, s in zip([4, 8, 8, 16], [4, 8, 16, 32])]
    rebuilt, _ = rebuilder(feats)
    assert [f.shape for f in rebuilt] == [f.shape for f in feats]


def test_one_mask_for_all_levels():
    rebuilder = Rebuilder([8, 8], **SMALL)
    feats = [torch.randn(2, 8, 8, 8), torch.randn(2, 8, 4, 4)]
    rebuilt, mask = rebuilder(feats)
    for f, r in zip(feats, rebuilt):
        changed = (f != r).any(1, keepdim=True)
        assert torch.equal(changed, level_mask(mask, f.shape[-2:]))


def test_what_is_masked_is_hidden():
    """Values at masked positions of any level do not reach the output."""
    rebuilder = Rebuilder([8, 8], **SMALL)
    feats = [torch.randn(2, 8, 8, 8), torch.randn(2, 8, 4, 4)]
    expected, mask = rebuilder(feats)
    other = [torch.where(level_mask(mask, f.shape[-2:]), torch.full_like(f, 1e3), f) for f in feats]
    found, _ = rebuilder(other, mask)
    for e, f in zip(expected, found):
        assert torch.equal(e, f)


def test_containers():
    pair = namedtuple("pair", "fine coarse")
    feats = [torch.randn(2, 8, 8, 8), torch.randn(2, 8, 4, 4)]
    rebuilder, single = Rebuilder([8, 8], **SMALL), Rebuilder(8, **SMALL)
    assert type(rebuilder(feats)[0]) is list
    assert type(rebuilder(tuple(feats))[0]) is tuple
    assert type(rebuilder(pair(*feats))[0]) is pair
    assert type(single(feats[0])[0]) is torch.Tensor
    assert type(single([feats[0]])[0]) is list
    assert type(Rebuilder([8], **SMALL)(feats[0])[0]) is torch.Tensor


def test_levels_that_pass_through_may_be_anything():
    image = torch.zeros(2, 3, 99, 1, dtype=torch.uint8)
    rebuilt, _ = Rebuilder([None, 0, 8], **SMALL)([image, None, torch.randn(2, 8, 4, 4)])
    assert rebuilt[0] is image
    assert rebuilt[1] is None


def test_what_is_given_is_not_written_to():
    feats = [torch.randn(2, 8, 8, 8), torch.randn(2, 8, 4, 4)]
    copies = [f.clone() for f in feats]
    Rebuilder([8, 8], **SMALL)(feats)
    assert all(torch.equal(f, c) for f, c in zip(feats, copies))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_of_features_and_of_weights(dtype):
    feats = [torch.randn(2, 8, 8, 8, dtype=dtype), torch.randn(2, 8, 4, 4, dtype=dtype)]
    for weights in (torch.float32, dtype):
        rebuilt, _ = Rebuilder([8, 8], **SMALL).to(weights)(feats)
        assert [f.dtype for f in rebuilt] == [dtype, dtype]
    rebuilder = Rebuilder([8, 8], **SMALL)
    for p in rebuilder.parameters():  # and no buffers, as FSDP lowers them
        p.data = p.data.to(dtype)
    assert [f.dtype for f in rebuilder(feats)[0]] == [dtype, dtype]


def test_mask_and_generator_reproduce():
    rebuilder, feats = Rebuilder(8, **SMALL), torch.randn(3, 8, 4, 4)
    first, mask = rebuilder(feats)
    assert torch.equal(first, rebuilder(feats, mask)[0])
    drawn = [rebuilder(feats, generator=torch.Generator().manual_seed(5))[0] for _ in range(2)]
    assert torch.equal(*drawn)


def test_nothing_masked_returns_the_features():
    feats = torch.randn(2, 8, 4, 4)
    rebuilt, _ = Rebuilder(8, **SMALL)(feats, torch.zeros(2, 1, 4, 4, dtype=torch.bool))
    assert torch.equal(rebuilt, feats)


def test_warns_once_of_a_level_coarser_than_the_grid():
    rebuilder = Rebuilder([8, 8], **SMALL)
    feats = [torch.randn(1, 8, 6, 8), torch.randn(1, 8, 3, 4)]
    with pytest.warns(
        UserWarning, match=r"3 x 4.*coarser than the mask's grid \(4 x 4\).*grid_size=\(3, 4\)"
    ) as caught:
        rebuilder(feats)
        rebuilder(feats)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_keys_are_frozen():
    linear = [".weight", ".bias"]
    block = [f"{n}{p}" for n in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.0", "mlp.2") for p in linear]
    layers = {0: [0, 1, 3, 4, 6, 7, 8], 1: [0, 1, 3, 4, 5], 2: [0, 1, 2], 3: [0, 1]}
    expected = {"mask_token", "pos_embed", "embed.weight", "embed.bias", "norm.weight", "norm.bias"}
    expected |= {f"blocks.{i}.{key}" for i in range(2) for key in block}
    expected |= {f"projectors.{level}.{i}{p}" for level, indices in layers.items() for i in indices for p in linear}
    assert set(Rebuilder([64, 128, 320, 512], **SMALL).state_dict()) == expected


def test_visible_positions_pass_gradients_on():
    rebuilder, feats = Rebuilder(8, **SMALL), torch.randn(2, 8, 4, 4, requires_grad=True)
    nn.init.zeros_(rebuilder.norm.weight)  # cuts off what flows through the tokens
    rebuilt, mask = rebuilder(feats)
    rebuilt.sum().backward()
    assert torch.equal(feats.grad, (~mask).float().expand_as(feats))
