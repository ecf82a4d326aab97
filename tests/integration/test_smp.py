"""segmentation_models_pytorch: every decoder on a ResNet and on a MiT encoder, with the levels that it uses."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from integration.contract import CHECKS, NUM_CLASSES, Case
from mrm_loss import MRM

smp = pytest.importorskip("segmentation_models_pytorch", minversion="0.5")
pytestmark = pytest.mark.integration

# Levels of model.encoder(images) that each decoder uses, as the README's table has them. Level 0 is the image, level l
# has stride 2^l (the last ones 16 where the decoder asks the encoder for dilation). MiT's level 1 is empty.
USED = {
    ("Unet", "resnet18"): [1, 2, 3, 4, 5],
    ("FPN", "resnet18"): [2, 3, 4, 5],
    ("DeepLabV3Plus", "resnet18"): [2, 5],
    ("Segformer", "resnet18"): [1, 2, 3, 4, 5],
    ("UPerNet", "resnet18"): [2, 3, 4, 5],
    ("PAN", "resnet18"): [2, 3, 4, 5],
    ("Unet", "mit_b0"): [2, 3, 4, 5],
    ("FPN", "mit_b0"): [2, 3, 4, 5],
    ("DeepLabV3Plus", "mit_b0"): [2, 5],
    ("Segformer", "mit_b0"): [2, 3, 4, 5],
    ("UPerNet", "mit_b0"): [2, 3, 4, 5],
    ("PAN", "mit_b0"): [2, 3, 4, 5],
}
CHANNELS = {"resnet18": [3, 64, 64, 128, 256, 512], "mit_b0": [3, 0, 32, 64, 160, 256]}
# Rows of level l / rows of the default grid at a 512 crop, where it is not the default 2^(5-l)
SCALE_FACTORS = {"DeepLabV3Plus": [None, None, 8, None, None, 2], "PAN": [None, None, 8, 4, 2, 2]}

architectures = pytest.mark.parametrize(("architecture", "encoder"), list(USED))


def build(architecture, encoder):
    return getattr(smp, architecture)(encoder, encoder_weights=None, classes=NUM_CLASSES)


def decode(model, feats):
    return model.segmentation_head(model.decoder(feats))


def channels_to_give(architecture, encoder):
    """None for the levels that the decoder ignores, the image and the empty level among them."""
    return [c if level in USED[architecture, encoder] else None for level, c in enumerate(CHANNELS[encoder])]


def case(architecture, encoder):
    model = build(architecture, encoder)
    return Case(
        model=model,
        encoder=model.encoder,
        decoder=nn.ModuleList([model.decoder, model.segmentation_head]),
        encode=model.encoder,
        decode=partial(decode, model),
        forward=model,
        encoder_channels=channels_to_give(architecture, encoder),
        scale_factors=SCALE_FACTORS.get(architecture),
    )


@architectures
@pytest.mark.parametrize("check", CHECKS)
def test_contract(architecture, encoder, check):
    check(case(architecture, encoder))


@architectures
def test_table_of_levels(architecture, encoder):
    """The table above is what the gradients of the logits say; a release of smp that changes it is noticed here."""
    model = build(architecture, encoder).eval()
    assert list(model.encoder.out_channels) == CHANNELS[encoder]
    feats = [level.detach().requires_grad_() for level in model.encoder(torch.randn(2, 3, 128, 128))]
    gradients = torch.autograd.grad(decode(model, feats).square().sum(), feats, allow_unused=True)
    used = [level for level, gradient in enumerate(gradients) if gradient is not None and gradient.any()]
    assert used == USED[architecture, encoder]


@architectures
def test_scale_factors_at_training_crop(architecture, encoder):
    """With them every Projector comes out at its level's size at a 512 crop: nothing is left to the resize."""
    model = build(architecture, encoder).eval()
    with torch.no_grad():
        feats = model.encoder(torch.zeros(1, 3, 512, 512))
    scale_factors = MRM(
        channels_to_give(architecture, encoder), scale_factors=SCALE_FACTORS.get(architecture), embed_dim=16
    ).rebuilder.scale_factors
    for level in USED[architecture, encoder]:
        assert feats[level].shape[-1] == 16 * scale_factors[level]


@pytest.mark.parametrize("encoder", CHANNELS)
def test_all_channels_of_the_encoder(encoder):
    """MRM(model.encoder.out_channels) works too; it rebuilds levels that nobody looks at, and says so."""
    wired = case("FPN", encoder)
    wired.encoder_channels = wired.model.encoder.out_channels
    mrm = wired.mrm()
    levels = "0, 1" if encoder == "resnet18" else "0"
    with pytest.warns(UserWarning, match=rf"level\(s\) {levels} of feats, rebuilt in vain"):
        loss = mrm(wired.encode(wired.images()), wired.decode, wired.labels())
    loss.backward()
    unused = {name.split(".")[2] for name, p in mrm.named_parameters() if p.grad is None}
    assert unused == set(levels.split(", "))


def test_bfloat16_autocast():
    wired = case("DeepLabV3Plus", "resnet18")
    mrm = wired.mrm()
    with torch.autocast("cpu", torch.bfloat16):
        feats = wired.encode(wired.images())
        loss = wired.loss(mrm, feats)
    loss.backward()
    assert feats[-1].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in [*wired.model.parameters(), *mrm.parameters()])


@pytest.mark.slow
def test_default_settings_at_512():
    wired = case("Segformer", "mit_b0")
    wired.options, wired.image_size = {}, 512
    mrm = wired.mrm()
    loss = wired.loss(mrm, wired.encode(wired.images()))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in mrm.parameters())
