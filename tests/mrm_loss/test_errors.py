"""Every wrong call says which argument, what was expected and what came."""

import pytest
import torch
from toy import CHANNELS, CLASSES, ToyDecoder, ToyModel, images, labels, small_mrm

from mrm_loss import MRM, Rebuilder, random_mask, weighted_cross_entropy

CONSTRUCTION = [
    ("encoder_channels", dict(channels=[]), ValueError, "last (coarsest) level, got a list of 0"),
    ("encoder_channels", dict(channels=[64, None]), ValueError, "last (coarsest) level, got a list of 2: (64, None)"),
    ("encoder_channels", dict(channels=0), ValueError, "last (coarsest) level, got 0"),
    ("encoder_channels[0]", dict(channels="64"), TypeError, "expected an int, got '6'"),
    ("encoder_channels[0]", dict(channels=64.0), TypeError, "expected an int, got 64.0"),
    ("encoder_channels[1]", dict(channels=[8, -8, 8]), ValueError, "at least 0, got -8"),
    ("scale_factors", dict(scale_factors=[2, 1]), ValueError, "one int per level (3), got a list of 2"),
    ("scale_factors[2]", dict(scale_factors=[4, 2, 0]), ValueError, "at least 1, got 0"),
    ("scale_factors[0]", dict(scale_factors=[0.5, 2, 1]), TypeError, "expected an int, got 0.5"),
    ("mask_ratio", dict(mask_ratio=0.0), ValueError, "in (0, 1), got 0.0"),
    ("mask_ratio", dict(mask_ratio="0.4"), ValueError, "in (0, 1), got '0.4'"),
    ("mask_ratio", dict(mask_ratio=40), ValueError, "in (0, 1), got 40"),
    ("mask_ratio", dict(mask_ratio=float("nan"), mask_only=True), ValueError, "got nan"),
    ("block_size", dict(block_size=0), ValueError, "at least 1, got 0"),
    ("block_size", dict(block_size=64), ValueError, "at most 4 cells of the grid, got 64"),
    ("grid_size", dict(grid_size=(8, 8, 8)), ValueError, "(rows, cols), got a tuple of 3"),
    ("grid_size", dict(grid_size=(0, 8)), ValueError, "at least 1, got 0"),
    ("grid_size", dict(grid_size=16.0), TypeError, "expected an int, got 16.0"),
    ("embed_dim", dict(embed_dim=18, num_heads=2), ValueError, "multiple of 4, got 18"),
    ("embed_dim", dict(embed_dim=2, mask_only=True), ValueError, "multiple of 4, got 2"),
    ("num_heads", dict(embed_dim=16, num_heads=3), ValueError, "divisor of embed_dim=16, got 3"),
    ("num_heads", dict(num_heads=0), ValueError, "at least 1, got 0"),
    ("embed_dim", dict(embed_dim=16.0), TypeError, "expected an int, got 16.0"),
    ("depth", dict(depth=-1), ValueError, "at least 0, got -1"),
    ("ignore_index", dict(ignore_index=None), TypeError, "expected an int, got None"),
    ("mlp_ratio", dict(mlp_ratio=0.01), ValueError, "at least one hidden unit"),
    ("loss_weight", dict(loss_weight=-1), ValueError, "at least 0, got -1"),
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


FINE, MIDDLE, COARSE = (torch.randn(2, c, size, size) for c, size in zip(CHANNELS, (16, 8, 4)))
LEVELS = [FINE, MIDDLE, COARSE]
ELSEWHERE = torch.zeros(2, 32, 32, device="meta")

FEATS = [
    ("feats", {"low": 1, "high": 2}, TypeError, "keys ['low', 'high']; give list(feats.values())"),
    ("feats", LEVELS[:2], ValueError, "3 level(s) of [8, 12, 16] channels, got a list of 2"),
    ("feats", COARSE, ValueError, "got a float32 tensor of shape (2, 16, 4, 4)"),
    ("feats[0]", LEVELS[::-1], ValueError, "shape (B, 8, H, W), got a float32 tensor of shape (2, 16, 4, 4)"),
    ("feats[0]", [level.movedim(1, -1) for level in LEVELS], ValueError, "of shape (2, 16, 16, 8)"),
    ("feats[0]", [level.flatten(2) for level in LEVELS], ValueError, "of shape (2, 8, 256)"),
    ("feats[0]", [level.int() for level in LEVELS], TypeError, "got a int32 tensor"),
    ("feats[1]", [FINE, None, COARSE], TypeError, "got None"),
    ("feats[2]", [FINE, MIDDLE, COARSE[..., :0]], ValueError, "(2, 16, 4, 0)"),
    ("feats", [FINE[:1], MIDDLE, COARSE], ValueError, "as many images in each level, got a list of 3"),
    ("feats[0]", [level.to("meta") for level in LEVELS], ValueError, "move it there: mrm.to('meta')"),
]
LOGITS = [
    ({"out": 1}, TypeError, 'decoder(feats)["out"]'),
    ((1, 2), TypeError, "decoder(feats)[0]"),
    ({"loss": None, "logits": torch.zeros(2, 5, 4, 4)}, TypeError, 'decoder(feats)["logits"]'),
    ((None, torch.zeros(2, 5, 4, 4)), TypeError, "decoder(feats)[1]"),
    (None, TypeError, "logits (B, K, h, w), got None"),
    (torch.zeros(2, 5, 4, 4).int(), TypeError, "got a int32 tensor"),
    (torch.zeros(2, 32, 32), ValueError, "with B=2, got a float32 tensor of shape (2, 32, 32)"),
    (torch.zeros(2, 1, 32, 32), ValueError, "cross-entropy over one class is always 0"),
]
LABELS = [
    (None, TypeError, "got None"),
    ([0], TypeError, "got a list of 1"),
    (torch.rand(2, CLASSES, 32, 32), TypeError, "logits.argmax(1)"),
    (torch.ones(2, 32, 32).bool(), TypeError, "got a bool tensor"),
    (torch.zeros(32, 32).long(), ValueError, "of shape (32, 32)"),
    (torch.zeros(3, 32, 32).long(), ValueError, "of 2 image(s), got a int64 tensor of shape (3, 32, 32)"),
    (ELSEWHERE.long(), ValueError, "got one on meta"),
    (torch.full((2, 32, 32), CLASSES), ValueError, f"ids in [0, {CLASSES}), as many as the decoder returns"),
    (torch.arange(20).repeat(2, 20, 1), ValueError, "got 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, ..."),
    (torch.full((2, 32, 32), -1), ValueError, "got -1"),
]
WEIGHTS = [
    ([1.0], TypeError, "got a list of 1"),
    ("1", TypeError, "got '1'"),
    (torch.ones(2, 32, 32).long(), TypeError, "got a int64 tensor"),
    (-0.5, ValueError, "number >= 0, or a float tensor (B, H, W), (B, 1, H, W) or (B, 1, 1), got -0.5"),
    (float("nan"), ValueError, "got nan"),
    (torch.rand(2), ValueError, "for labels (2, 32, 32), got a float32 tensor of shape (2,)"),
    (torch.rand(2, 3, 32, 32), ValueError, "(2, 3,"),
    (torch.rand(2, 16, 16), ValueError, "(2, 16, 16)"),
    (ELSEWHERE, ValueError, "got one on meta"),
    (torch.full((2, 1, 1), -1.0), ValueError, "finite numbers >= 0"),
    (torch.full((2, 1, 1), torch.inf), ValueError, "finite numbers >= 0"),
]
MASKS = [
    (torch.ones(2, 1, 4, 4), TypeError, "mask == 0"),
    (torch.ones(2, 4, 4).bool(), ValueError, "expected shape (2, 1, 4, 4)"),
]
DECODERS = [
    (torch.zeros(2, 32, 32), TypeError, "got a float32 tensor of shape (2, 32, 32): mrm(feats, decoder, labels), or"),
    (None, TypeError, "got None: mrm(feats, decoder, labels), or"),
    (3, TypeError, "expected a callable features -> logits, got 3"),
]


def check_call(argument, error, message, *args, **options):
    mrm = small_mrm()
    with pytest.raises(error) as caught:
        mrm(*args, **options)
    text = str(caught.value)
    assert text.startswith(argument + ":")
    assert message in text
    assert torch.isfinite(mrm(ToyModel().encoder(images()), ToyDecoder(), labels()))  # as good as before


@pytest.mark.parametrize(("argument", "feats", "error", "message"), FEATS)
def test_features(argument, feats, error, message):
    check_call(argument, error, message, feats, ToyDecoder(), labels())


@pytest.mark.parametrize(("logits", "error", "message"), LOGITS)
def test_what_the_decoder_returns(logits, error, message):
    check_call("decoder_fn", error, message, LEVELS, lambda feats: logits, labels())


@pytest.mark.parametrize(("decoder", "error", "message"), DECODERS)
def test_decoders(decoder, error, message):
    check_call("decoder_fn", error, message, LEVELS, decoder, labels())


@pytest.mark.parametrize(("given", "error", "message"), LABELS)
def test_labels(given, error, message):
    check_call("pseudo_labels", error, message, LEVELS, ToyDecoder(), given)


@pytest.mark.parametrize(("weights", "error", "message"), WEIGHTS)
def test_weights(weights, error, message):
    check_call("pixel_weights", error, message, LEVELS, ToyDecoder(), labels(), weights)


@pytest.mark.parametrize(("mask", "error", "message"), MASKS)
def test_masks(mask, error, message):
    check_call("mask", error, message, LEVELS, ToyDecoder(), labels(), mask=mask)


def test_functions():
    with pytest.raises(ValueError, match=r"^mask_ratio: expected a number in \(0, 1\), got 1"):
        random_mask(2, mask_ratio=1)
    with pytest.raises(ValueError, match=r"^reduction"):
        weighted_cross_entropy(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3).long(), reduction="none")
    with pytest.raises(ValueError, match=r"^logits: expected \(B, K, H, W\) for labels \(1, 3, 3\)"):
        weighted_cross_entropy(torch.zeros(1, 2, 3, 4), torch.zeros(1, 3, 3).long())
    with pytest.raises(ValueError, match=r"^weights: expected a finite number >= 0"):
        weighted_cross_entropy(torch.zeros(4, 2, 3, 4), torch.zeros(4, 3, 4).long(), torch.ones(4))
    with pytest.raises(ValueError, match=r"^feats"):
        Rebuilder(CHANNELS)(COARSE)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'encoder_channels'"):
        MRM()
