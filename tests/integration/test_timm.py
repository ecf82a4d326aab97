"""timm encoders under small heads: one dilated level, a pyramid, channels-last features, and a plain ViT."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from integration.contract import CHECKS, NUM_CLASSES, Case

timm = pytest.importorskip("timm", minversion="1.0")
pytestmark = pytest.mark.integration


class PyramidHead(nn.Module):
    """Projects every level (B, C, H, W) to one width, adds them up at the finest size, classifies."""

    def __init__(self, channels, width=32):
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.classify = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, NUM_CLASSES, 1))

    def forward(self, feats):
        size = feats[0].shape[-2:]
        return self.classify(sum(F.interpolate(conv(f), size) for conv, f in zip(self.project, feats, strict=True)))


class ChannelsLastHead(PyramidHead):
    """The same for levels (B, H, W, C)."""

    def forward(self, feats):
        return super().forward([f.permute(0, 3, 1, 2) for f in feats])


def case(encoder, head, encode, decode, **settings):
    return Case(
        model=nn.ModuleDict({"encoder": encoder, "head": head}),
        encoder=encoder,
        decoder=head,
        encode=encode,
        decode=decode,
        forward=lambda images: decode(encode(images)),  # timm has encoders alone
        **settings,
    )


def resnet50():
    encoder = timm.create_model("resnet50", pretrained=False, features_only=True, output_stride=8)
    head = nn.Conv2d(2048, NUM_CLASSES, 3, padding=6, dilation=6)
    return case(encoder, head, lambda images: encoder(images)[-1], head, encoder_channels=2048, image_size=64)


def convnext():
    encoder = timm.create_model("convnext_atto", pretrained=False, features_only=True)
    channels = encoder.feature_info.channels()
    head = PyramidHead(channels)
    return case(encoder, head, encoder, head, encoder_channels=channels)


def mobilenet():
    """Its norms are timm's own subclass of BatchNorm, with a forward of their own."""
    encoder = timm.create_model("mobilenetv3_small_050", pretrained=False, features_only=True)
    channels = encoder.feature_info.channels()
    head = PyramidHead(channels)
    return case(encoder, head, encoder, head, encoder_channels=channels)


def swin(head_type=PyramidHead):
    encoder = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, features_only=True, img_size=128)
    channels = encoder.feature_info.channels()
    head = head_type(channels)

    def encode(images):
        return [f.permute(0, 3, 1, 2) for f in encoder(images)]

    def decode(feats):
        return head([f.permute(0, 2, 3, 1) for f in feats]) if head_type is ChannelsLastHead else head(feats)

    return case(encoder, head, encode, decode, encoder_channels=channels)


def swin_with_channels_last_head():
    return swin(ChannelsLastHead)


def dinov2():
    encoder = timm.create_model("vit_small_patch14_dinov2", pretrained=False, img_size=98)
    head = PyramidHead([384] * 4)

    def encode(images):
        return encoder.forward_intermediates(images, indices=[2, 5, 8, 11], intermediates_only=True)

    # all levels are 7 x 7, less than twice the grid of 4 x 4: the remainder is left to the resize, as with 37 and 16
    return case(encoder, head, encode, head, encoder_channels=[384] * 4, scale_factors=[2] * 4, image_size=98)


@pytest.mark.parametrize("build", [resnet50, mobilenet, convnext, swin, swin_with_channels_last_head, dinov2])
@pytest.mark.parametrize("check", CHECKS)
def test_contract(build, check):
    check(build())


def test_channels_last_features_get_an_error_with_the_remedy():
    wired = swin()
    with pytest.raises(ValueError, match=r"^feats\[0\]: .*permute\(0, 3, 1, 2\)"):
        wired.loss(wired.mrm(), wired.encoder(wired.images()))


def test_permuted_features_keep_their_memory_format():
    """(B, C, H, W) views of channels-last features are rebuilt to channels-last memory: no copies on the way."""
    wired = swin()
    feats = wired.encode(wired.images())
    rebuilt, _ = wired.mrm().rebuild(feats)
    assert [f.is_contiguous(memory_format=torch.channels_last) for f in rebuilt] == [True] * 4
