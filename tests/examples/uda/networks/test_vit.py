"""Vision transformers and pyramids of timm as encoders, and MRM on them."""

from __future__ import annotations

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from pages import ROOT
from torch import nn
from uda.networks import LightHead, Segmentor, ViTEncoder, build_encoder, build_network
from uda.networks.backbones import make_body
from uda.networks.small import SmallViT

from mrm_loss import MRM

SMALL = {"depth": 4, "embed_dim": 48, "num_heads": 2}  # in place of 12 or more blocks of width 384 or more


def vit(name: str, levels: int = 1, **options) -> ViTEncoder:
    pytest.importorskip("timm", minversion="1.0.20")
    from uda.networks.vit import timm_vit

    torch.manual_seed(0)
    return timm_vit(name, levels=levels, **(SMALL | options))


def small_vit(levels: int = 1) -> ViTEncoder:
    torch.manual_seed(0)
    return ViTEncoder(SmallViT(), SmallViT.patch_size, levels)


@pytest.mark.parametrize(
    ("name", "crop", "grid"),
    [
        ("vit_small_patch14_dinov2", 471, 37),  # 518 pixels, for which its positions are
        ("vit_base_patch14_dinov2", 1024, 80),
        ("vit_small_patch16_dinov3", 256, 17),
        ("eva02_small_patch14_224", 256, 20),
    ],
)
def test_mrm(name, crop, grid):
    """Finite loss, gradients everywhere, and the share of cells that is to be masked."""
    options = {"depth": 1} if crop == 1024 else {}
    encoder = vit(name, **options)
    network = Segmentor(encoder, LightHead(encoder.out_channels, 5))
    rows = [int(crop / stride) for stride in encoder.strides]
    assert encoder.grid((crop, crop)) == (grid, grid)
    assert rows == [grid]
    mrm = MRM(network.used_channels, scale_factors=[row // 16 for row in rows], embed_dim=32, num_heads=4)
    images = torch.randn(1, 3, crop, crop)
    labels = torch.randint(5, (1, crop, crop))
    hidden = torch.rand(1, grid, grid) < 0.7
    feats = network.encode(images)
    rebuilt, mask = mrm.rebuild(feats, mask=torch.rand(1, 1, 16, 16) < 0.4)
    changed = (rebuilt[0] != feats[0]).any(1)
    cells = F.interpolate(mask.float(), feats[0].shape[-2:])[:, 0].bool()
    assert torch.equal(changed, cells)
    loss = mrm(feats, network.decode, labels, torch.ones(1, crop, crop), mask=mask)
    loss.backward()
    network.loss(network.encoder(images, hidden), labels).backward()  # for the mask token
    assert loss.isfinite()
    for key, p in [*network.named_parameters(), *mrm.named_parameters()]:
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), key
    many = torch.randn(40, *feats[0].shape[1:])
    with torch.no_grad():
        (again,), _ = mrm.rebuild([many], generator=torch.Generator().manual_seed(0))
    assert (again != many).any(1).float().mean().item() == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize(("size", "grid"), [((96, 192), (13, 26)), ((80, 80), (11, 11)), ((5, 40), (1, 5))])
def test_images_are_enlarged_and_cut_to_whole_patches(size, grid):
    encoder = small_vit(levels=2)
    levels = encoder(torch.randn(2, 3, *size))
    assert encoder.grid(size) == grid
    assert [tuple(level.shape) for level in levels] == [(2, 64, *grid)] * 2


@pytest.mark.parametrize("name", ["small_vit", "vit_small_patch14_dinov2", "eva02_small_patch14_224"])
def test_hidden_patches_are_not_seen(name):
    """All hidden: the image does not matter. One visible: it does, and only its own patch's content."""
    encoder = (small_vit() if name == "small_vit" else vit(name)).eval()
    nn.init.normal_(encoder.mask_token)
    a, b = torch.randn(2, 1, 3, 64, 64)
    every = torch.ones(1, *encoder.grid((64, 64)), dtype=torch.bool)
    torch.testing.assert_close(encoder(a, every)[0], encoder(b, every)[0])
    one = every.clone()
    one[0, 1, 2] = False
    assert not torch.allclose(encoder(a, one)[0], encoder(b, one)[0], atol=1e-3)
    none = torch.zeros_like(every)
    torch.testing.assert_close(encoder(a, none)[0], encoder(a)[0])
    with pytest.raises(ValueError, match=r"masked: expected bool \(1, "):
        encoder(a, every[:, :1])


@pytest.mark.parametrize("levels", [1, 4])
def test_levels_are_normalised_outputs_of_blocks(levels):
    encoder = vit("vit_small_patch14_dinov2", levels).eval()
    assert encoder.blocks == ([3] if levels == 1 else [0, 1, 2, 3])
    images = torch.randn(1, 3, 42, 42)
    x = F.interpolate(images, (42, 42), mode="bilinear")  # 46.2 pixels hold 3 patches
    tokens = encoder.body.forward_features(x)[:, 1:]
    torch.testing.assert_close(encoder(images)[-1], tokens.mT.unflatten(-1, (3, 3)))


def test_the_final_norm_of_eva02_is_kept():
    """timm has it behind the pooling over tokens, which is not there."""
    encoder = vit("eva02_small_patch14_224")
    assert isinstance(encoder.body.norm, nn.LayerNorm)
    level = encoder(torch.randn(1, 3, 64, 64))[0]
    torch.testing.assert_close(level.mean(1), torch.zeros(1, 5, 5), atol=1e-5, rtol=0)


def test_dinov2_positions():
    """As DINOv2's code has them: as they are at 518 pixels, else bicubic, scaled to a tenth of a patch more."""
    body = vit("vit_small_patch14_dinov2").body
    table = body.pos_embed.detach()
    tokens = lambda grid: body._pos_embed(torch.zeros(1, *grid, 48)).detach()  # noqa: E731
    native = tokens((37, 37))
    torch.testing.assert_close(native[:, 1:], table[:, 1:])
    torch.testing.assert_close(native[:, :1], body.cls_token + table[:, :1])
    maps = table[:, 1:].mT.unflatten(-1, (37, 37))
    expected = F.interpolate(maps, scale_factor=(80.1 / 37, 20.1 / 37), mode="bicubic")
    torch.testing.assert_close(tokens((80, 20))[:, 1:], expected.flatten(2).mT)
    again = copy.deepcopy(body)
    again.pos_embed.data.zero_()
    assert again._pos_embed(torch.zeros(1, 2, 2, 48))[:, 1:].abs().max() == 0


@pytest.mark.parametrize("decoder", ["light", "daformer"])
def test_small_vit_network(decoder):
    network = build_network("small_vit", decoder, 7)
    assert network.predict(torch.randn(2, 3, 40, 56)).shape == (2, 7, 40, 56)
    assert len(network.used_channels) == (1 if decoder == "light" else 4)


def test_light_head():
    head = LightHead([16, 32], 5)
    assert head.used_channels == [None, 32]
    assert head([torch.randn(2, 16, 9, 9), torch.randn(2, 32, 3, 4)]).shape == (2, 5, 12, 16)
    assert all(p.ndim == 1 or name.endswith("weight") for name, p in head.named_parameters())
    assert head.classify.weight.std().item() == pytest.approx(0.1, rel=0.4)


@pytest.mark.parametrize(("decoder", "strides"), [("daformer", [4, 8, 16, 32]), ("deeplabv2", [4, 8, 8, 8])])
def test_pyramid(decoder, strides):
    pytest.importorskip("timm")
    encoder = build_encoder("convnext_atto", decoder)
    levels = encoder(torch.randn(1, 3, 64, 96))
    assert encoder.strides == strides
    assert [level.shape[-2] for level in levels] == [64 // stride for stride in strides]
    assert [level.shape[1] for level in levels] == encoder.out_channels
    sum(level.sum() for level in levels).backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_weights_from_a_file(tmp_path):
    encoder = vit("vit_small_patch14_dinov2.lvd142m")
    state = {key: value + 1 for key, value in encoder.body.state_dict().items()}
    torch.save(state | {"mask_token": torch.full((1, 48), 0.5)}, tmp_path / "own.pth")  # as DINOv2's own files
    loaded = vit("vit_small_patch14_dinov2.lvd142m", weights=str(tmp_path / "own.pth"))
    assert all(torch.equal(value, state[key]) for key, value in loaded.body.state_dict().items())
    assert torch.equal(loaded.mask_token, torch.full((1, 48), 0.5))
    del state["norm.bias"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"short.pth does not fit vit_small_patch14_dinov2: .*norm.bias"):
        vit("vit_small_patch14_dinov2", weights=str(tmp_path / "short.pth"))
    with pytest.raises(ValueError, match=r"short.pth does not fit convnext_atto: "):
        build_encoder("convnext_atto", "daformer", str(tmp_path / "short.pth"))


def test_wrong_names_and_weights(monkeypatch):
    timm = pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"name: expected an encoder of timm or .*, got 'vit_x'"):
        build_encoder("vit_x", "light")
    with pytest.raises(ValueError, match="decoder: expected light or daformer with vit_small_patch14_dinov2"):
        build_encoder("vit_small_patch14_dinov2", "deeplabv2")
    with pytest.raises(ValueError, match="hrda: expected one resolution with the vision transformer small_vit"):
        build_network("small_vit", "light", hrda=True)
    with pytest.raises(FileNotFoundError, match=r"found no file nowhere\.pth"):
        make_body("vit_small_patch14_dinov2", "nowhere.pth")

    for weights in (None, "hub"):
        with pytest.raises(ValueError, match=r"encoder vit_small_patch14_dinov2\.x: Invalid pretrained tag \(x\)"):
            make_body("vit_small_patch14_dinov2.x", weights)
        with pytest.raises(ValueError, match=r"encoder vit_relpos_small_patch16_224: cannot be .*dynamic_img_size"):
            build_encoder("vit_relpos_small_patch16_224", "light", weights)
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda name: None)
    with pytest.raises(ValueError, match=r"timm has none for vit_small_patch14_dinov2 on the hub"):
        make_body("vit_small_patch14_dinov2", "hub")


@pytest.mark.parametrize("tag", ["", ".lvd142m"])
def test_an_unreachable_hub_names_the_file(tag, monkeypatch):
    timm = pytest.importorskip("timm")

    def offline(name, pretrained, **_):
        if pretrained:
            raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", offline)
    url = r"no connection\); download https://huggingface.co/timm/vit_base_patch14_dinov2.lvd142m/resolve/main/model"
    with pytest.raises(ConnectionError, match=url):
        make_body(f"vit_base_patch14_dinov2{tag}", "hub")


def test_the_page_names_encoders_of_timm():
    timm = pytest.importorskip("timm", minversion="1.0.20")
    names = re.findall(r"^\| `([\w.]+)`", (ROOT / "examples" / "vfm.md").read_text(), re.MULTILINE)
    assert names
    assert all(timm.models.get_pretrained_cfg(name).hf_hub_id == f"timm/{name}" for name in names)
