"""Every wrong call says which argument, what was expected and what came."""

import pytest
import torch
from toy import CHANNELS, ToyDecoder, ToyModel, images, labels, small_mrm

from mrm_loss import MRM, Rebuilder, random_mask, weighted_cross_entropy

CONSTRUCTION = [
    ("encoder_channels", dict(channels=[]), ValueError, "at least one level, got an empty sequence"),
    ("encoder_channels", dict(channels="64"), TypeError, "list or tuple of ints and None, got '64'"),
    ("encoder_channels", dict(channels=64.0), TypeError, "list or tuple of ints and None, got 64.0"),
    ("encoder_channels", dict(channels=0), ValueError, "at least 1, got 0"),
    ("encoder_channels[1]", dict(channels=[8, -8, 8]), ValueError, "at least 0, got -8"),
    ("encoder_channels", dict(channels=[64, None]), ValueError, "last (coarsest) level"),
    ("scale_factors", dict(scale_factors=[2, 1]), ValueError, "one int per level (3), got a list of 2"),
    ("scale_factors[2]", dict(scale_factors=[4, 2, 0]), ValueError, "at least 1, got 0"),
    ("scale_factors[0]", dict(scale_factors=[0.5, 2, 1]), TypeError, "expected an int, got 0.5"),
    ("mask_ratio", dict(mask_ratio=0.0), ValueError, "in (0, 1), got 0.0"),
    ("mask_ratio", dict(mask_ratio=40), ValueError, "in (0, 1), got 40"),
    ("mask_ratio", dict(mask_ratio=float("nan")), ValueError, "got nan"),
    ("mask_ratio", dict(mask_ratio="0.4"), TypeError, "expected a number, got '0.4'"),
    ("block_size", dict(block_size=0), ValueError, "at least 1, got 0"),
    ("block_size", dict(block_size=64), ValueError, "at most 4 cells of the grid (cells, not pixels), got 64"),
    ("grid_size", dict(grid_size=(8, 8, 8)), ValueError, "(rows, cols), got a tuple of 3"),
    ("grid_size rows", dict(grid_size=(0, 8)), ValueError, "at least 1, got 0"),
    ("grid_size", dict(grid_size=16.0), TypeError, "expected an int, got 16.0"),
    ("embed_dim", dict(embed_dim=18, num_heads=2), ValueError, "multiple of 4"),
    ("num_heads", dict(embed_dim=16, num_heads=3), ValueError, "divisor of embed_dim=16, got 3"),
    ("depth", dict(depth=0), ValueError, "at least 1, got 0"),
    ("depth", dict(depth=True), TypeError, "expected an int, got True"),
    ("mlp_ratio", dict(mlp_ratio=0), ValueError, "greater than 0, got 0"),
    ("mlp_ratio", dict(mlp_ratio=0.01), ValueError, "at least one hidden unit"),
    ("loss_weight", dict(loss_weight=-1), ValueError, "at least 0, got -1"),
    ("loss_weight", dict(loss_weight=torch.tensor(1.0)), TypeError, "expected a number, got a float32 tensor"),
    ("ignore_index", dict(ignore_index=None), TypeError, "expected an int, got None"),
    ("reduction", dict(reduction="sum"), ValueError, 'expected "mean" or "valid", got \'sum\''),
    ("decoder_fn", dict(decoder_fn=torch.zeros(1)), TypeError, "expected a callable"),
]


@pytest.mark.parametrize(("argument", "options", "error", "message"), CONSTRUCTION)
def test_construction(argument, options, error, message):
    with pytest.raises(error) as caught:
        small_mrm(**options)
    text = str(caught.value)
    assert text.startswith(argument + ":")
    assert message in text


def feats():
    return ToyModel().encoder(images())


def decoder_giving(result):
    return lambda feats: result


CALLS = [
    ("decoder_fn", lambda m: m(feats(), labels()), TypeError, "got a int64 tensor"),
    ("decoder_fn", lambda m: m(feats(), labels()), TypeError, "mrm(feats, decoder, pseudo_labels)"),
    ("decoder_fn", lambda m: m(feats(), pseudo_labels=labels()), TypeError, "got None; call it as"),
    ("decoder_fn", lambda m: m(feats(), 3, labels()), TypeError, "expected a callable features -> logits, got 3"),
    ("decoder_fn", lambda m: m(feats(), decoder_giving({"out": 1}), labels()), TypeError, 'decoder(feats)["out"]'),
    ("decoder_fn", lambda m: m(feats(), decoder_giving((1, 2)), labels()), TypeError, "decoder(feats)[0]"),
    ("decoder_fn", lambda m: m(feats(), decoder_giving(labels()), labels()), TypeError, "floating-point tensor"),
    ("decoder_fn", lambda m: m(feats(), decoder_giving(None), labels()), TypeError, "logits (B, K, h, w), got None"),
    (
        "generator",
        lambda m: m(feats(), ToyDecoder(), labels(), generator=3),
        TypeError,
        "torch.Generator or None, got 3",
    ),
    ("feats", lambda m: m.to("meta")(feats(), ToyDecoder(), labels()), ValueError, "mrm.to('cpu')"),
    (
        "feats[0]",
        lambda m: m([f.flatten(2).transpose(1, 2) for f in feats()], ToyDecoder(), labels()),
        ValueError,
        "feats.transpose(1, 2).reshape(B, 8, H, W)",
    ),
    (
        "pixel_weights",
        lambda m: m(feats(), ToyDecoder(), labels(), torch.ones(2, 32, 32, device="meta")),
        ValueError,
        "got one on meta",
    ),
    ("pixel_weights", lambda m: m(feats(), ToyDecoder(), labels(), [1.0]), TypeError, "got a list of 1"),
    (
        "pixel_weights",
        lambda m: m(feats(), ToyDecoder(), labels(), torch.full((2, 1, 1), torch.inf)),
        ValueError,
        "finite numbers >= 0",
    ),
    (
        "decoder_fn",
        lambda m: m(feats(), decoder_giving(torch.zeros(2, 32, 32)), labels()),
        ValueError,
        "(B, K, h, w) with B=2, got a float32 tensor of shape (2, 32, 32)",
    ),
    (
        "decoder_fn",
        lambda m: m(feats(), decoder_giving(torch.zeros(2, 1, 32, 32)), labels()),
        ValueError,
        "cross-entropy over one class is always 0",
    ),
    ("pseudo_labels", lambda m: m(feats(), ToyDecoder()), TypeError, "got None; call it as"),
    ("pseudo_labels", lambda m: m(feats(), ToyDecoder(), [0]), TypeError, "got a list of 1"),
    ("pseudo_labels", lambda m: m(feats(), ToyDecoder(), torch.rand(2, 5, 32, 32)), TypeError, "logits.argmax(1)"),
    ("pseudo_labels", lambda m: m(feats(), ToyDecoder(), labels() > 0), TypeError, "got a bool tensor"),
    ("pseudo_labels", lambda m: m(feats(), ToyDecoder(), labels()[0]), ValueError, "of shape (32, 32)"),
    ("pseudo_labels", lambda m: m(feats(), ToyDecoder(), labels(3)), ValueError, "expected 2 image(s)"),
    ("pseudo_labels", lambda m: m(feats(), ToyDecoder(), labels().to("meta")), ValueError, "got one on meta"),
    ("pseudo_labels", lambda m: m(feats(), ToyDecoder(), labels() + 3), ValueError, "got 5, 6, 7"),
    ("pseudo_labels", lambda m: m(feats(), ToyDecoder(), labels() - 1), ValueError, "got -1"),
    ("pixel_weights", lambda m: m(feats(), ToyDecoder(), labels(), "1"), TypeError, "got '1'"),
    ("pixel_weights", lambda m: m(feats(), ToyDecoder(), labels(), -0.5), ValueError, "at least 0, got -0.5"),
    ("pixel_weights", lambda m: m(feats(), ToyDecoder(), labels(), labels()), TypeError, "use weights.float()"),
    ("pixel_weights", lambda m: m(feats(), ToyDecoder(), labels(), torch.rand(2)), ValueError, "of shape (2,)"),
    ("pixel_weights", lambda m: m(feats(), ToyDecoder(), labels(), torch.rand(2, 3, 32, 32)), ValueError, "(2, 3,"),
    ("pixel_weights", lambda m: m(feats(), ToyDecoder(), labels(), torch.rand(2, 16, 16)), ValueError, "(2, 32, 32)"),
    ("pixel_weights", lambda m: m(feats(), ToyDecoder(), labels(), torch.full((2, 1, 1), -1.0)), ValueError, ">= 0"),
    ("feats", lambda m: m({"low": 1, "high": 2}, ToyDecoder(), labels()), TypeError, "give list(feats.values())"),
    ("feats", lambda m: m({"out": 1}, ToyDecoder(), labels()), TypeError, "give feats['out']"),
    ("feats", lambda m: m({"hidden_states": 1, "last": 2}, ToyDecoder(), labels()), TypeError, "feats.hidden_states"),
    ("feats", lambda m: m(feats()[:2], ToyDecoder(), labels()), ValueError, "3 level(s)"),
    ("feats", lambda m: m(feats()[2], ToyDecoder(), labels()), ValueError, "got 1: a float32 tensor"),
    ("feats[0]", lambda m: m(feats()[::-1], ToyDecoder(), labels()), ValueError, "shape (B, 8, H, W)"),
    (
        "feats[0]",
        lambda m: m([f.movedim(1, -1) for f in feats()], ToyDecoder(), labels()),
        ValueError,
        "feats.permute(0, 3, 1, 2)",
    ),
    ("feats[1]", lambda m: m([*feats()[:1], None, None], ToyDecoder(), labels()), TypeError, "got None"),
    ("feats[0]", lambda m: m([f.int() for f in feats()], ToyDecoder(), labels()), TypeError, "got a int32 tensor"),
    ("feats[0]", lambda m: m([feats()[0][:1], *feats()[1:]], ToyDecoder(), labels()), ValueError, "got 1 on cpu"),
    ("feats[2]", lambda m: m([*feats()[:2], feats()[2][..., :0]], ToyDecoder(), labels()), ValueError, "(2, 16, 4, 0)"),
    ("mask", lambda m: m(feats(), ToyDecoder(), labels(), mask=torch.ones(2, 1, 4, 4)), TypeError, "mask == 0"),
    (
        "mask",
        lambda m: m(feats(), ToyDecoder(), labels(), mask=torch.ones(2, 4, 4).bool()),
        ValueError,
        "expected shape (2, 1, 4, 4)",
    ),
]


@pytest.mark.parametrize(("argument", "call", "error", "message"), CALLS)
def test_calls(argument, call, error, message):
    mrm = small_mrm()
    with pytest.raises(error) as caught:
        call(mrm)
    text = str(caught.value)
    assert text.startswith(argument + ":")
    assert message in text
    if not mrm.rebuilder.mask_token.is_meta:
        assert torch.isfinite(mrm(feats(), ToyDecoder(), labels()))  # as good as before


def test_functions():
    with pytest.raises(ValueError, match="batch_size"):
        random_mask(-1)
    with pytest.raises(ValueError, match="reduction"):
        weighted_cross_entropy(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3).long(), reduction="none")
    with pytest.raises(ValueError, match=r"logits: expected \(B, K, H, W\) for labels \(1, 3, 3\)"):
        weighted_cross_entropy(torch.zeros(1, 2, 3, 4), torch.zeros(1, 3, 3).long())
    with pytest.raises(ValueError, match=r"^weights: expected a number >= 0"):
        weighted_cross_entropy(torch.zeros(4, 2, 3, 4), torch.zeros(4, 3, 4).long(), torch.ones(4))
    with pytest.raises(TypeError, match=r"^generator"):
        random_mask(2, generator=3)
    with pytest.raises(ValueError, match="feats"):
        Rebuilder(CHANNELS)(feats()[0])
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'encoder_channels'"):
        MRM()
