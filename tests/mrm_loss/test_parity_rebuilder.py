"""The authors' Rebuilder, number by number in float64."""

import pytest
import torch
from official_rebuilder import from_official, to_official
from parity import Parity

from mrm_loss import Rebuilder

VARIANTS = {"rebuilder_daformer_hash": [64, 128, 320, 512], "rebuilder_dlv2_hash": [256]}


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_and_gradients(name):
    parity, channels = Parity(name), VARIANTS[name]
    rebuilder = Rebuilder(channels).double()
    missing = rebuilder.load_state_dict(from_official(parity.weights()), strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (["pos_embed"], [])
    sizes = parity.meta["config"]["sizes"]
    feats = [
        parity.wave((2, c, s, s), shift=0.1 * level).requires_grad_()
        for level, (c, s) in enumerate(zip(channels, sizes))
    ]
    mask = parity["mask"].reshape(2, 1, 16, 16) == 0  # 1 = keep there

    embedded = torch.nn.functional.interpolate(
        rebuilder.embed(feats[-1].movedim(1, -1)).movedim(-1, 1), (16, 16), mode="bilinear", align_corners=False
    )
    parity.check("inter.embedding", embedded)
    parity.check("inter.transformer", rebuilder.make_tokens(feats[-1], mask))
    rebuilt, _ = rebuilder(feats, mask)
    for level, out in enumerate(rebuilt):
        parity.check(f"out.{level}", out)

    loss = sum((out * parity.cotangent(out.shape, 0.7 * level)).sum() for level, out in enumerate(rebuilt))
    assert loss.item() == pytest.approx(parity.meta["loss"]["f64"], rel=1e-12)
    loss.backward()
    gradients = {
        "mask_token": rebuilder.mask_token,
        "linear_embed_weight": rebuilder.embed.weight,
        "linear_embed_bias": rebuilder.embed.bias,
        "input_last": feats[-1],
        "qkv0_weight": rebuilder.blocks[0].attn.qkv.weight,
        "projector1_fpn0_weight": rebuilder.projectors[0][0].weight,
    }
    assert {f"grad.{key}" for key in gradients} == {key for key in parity.meta["tensors"] if key.startswith("grad.")}
    for key, tensor in gradients.items():
        parity.check(f"grad.{key}", tensor.grad)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("with_positions", [False, True])
def test_key_maps_are_inverse(name, with_positions):
    official = Parity(name).weights()
    if with_positions:
        official["transformer.pos_embed"] = torch.randn(1, 256, 512)
    ours = from_official(official)
    Rebuilder(VARIANTS[name]).load_state_dict(ours, strict=with_positions)
    back = to_official(ours)
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], official[key]) for key in official)


def test_unknown_keys_are_named():
    with pytest.raises(KeyError, match=r"decode_head\.weight"):
        from_official({"decode_head.weight": torch.zeros(1)})
