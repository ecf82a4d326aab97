"""mmsegmentation 1.x: decode heads that take all levels, and one that takes two of them."""

from __future__ import annotations

import pytest

from integration.contract import CHECKS, NUM_CLASSES, Case

INSTALL = 'pip install "onedl-mmsegmentation[mminstall]>=1.4"'
mmseg = pytest.importorskip("mmseg", reason=INSTALL)
pytest.importorskip("mmcv", reason=INSTALL)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Fail to import ``MultiScaleDeformableAttention``"),
    pytest.mark.filterwarnings("ignore:Default ``avg_non_ignore`` is False"),
]

MIT = dict(type="MixVisionTransformer", embed_dims=8, num_layers=[1] * 4, num_heads=[1, 2, 5, 8])
RESNET = dict(type="ResNetV1c", depth=18, base_channels=8, norm_cfg=dict(type="BN"))
DILATED = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
ALL = dict(in_index=[0, 1, 2, 3])


def case(backbone, head, channels, scale_factors=None):
    from mmseg.registry import MODELS
    from mmseg.utils import register_all_modules

    register_all_modules()
    shared = dict(channels=16, num_classes=NUM_CLASSES, norm_cfg=dict(type="BN"), align_corners=False)
    config = dict(type="EncoderDecoder", backbone=backbone, decode_head=shared | head, test_cfg=dict(mode="whole"))
    model = MODELS.build(config)
    return Case(
        model=model,
        encoder=model.backbone,
        decoder=model.decode_head,
        encode=model.extract_feat,
        decode=model.decode_head,
        forward=model,
        encoder_channels=channels,
        scale_factors=scale_factors,
    )


def segformer():
    channels = [8, 16, 40, 64]
    return case(MIT, dict(type="SegformerHead", in_channels=channels) | ALL, channels)


def upernet():
    channels = [8, 16, 32, 64]
    return case(RESNET, dict(type="UPerHead", in_channels=channels, pool_scales=(1, 2)) | ALL, channels)


def deeplabv3plus():
    head = dict(
        type="DepthwiseSeparableASPPHead",
        in_channels=64,
        in_index=3,
        dilations=(1, 2),
        c1_in_channels=8,
        c1_channels=4,
    )
    return case(RESNET | DILATED, head, [8, None, None, 64], [8, None, None, 4])


@pytest.mark.parametrize("build", [segformer, upernet, deeplabv3plus])
@pytest.mark.parametrize("check", CHECKS)
def test_contract(build, check):
    check(build())
