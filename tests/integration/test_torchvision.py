"""torchvision: features in dicts, one level or two."""

from __future__ import annotations

import pytest

from integration.contract import CHECKS, NUM_CLASSES, Case

segmentation = pytest.importorskip("torchvision.models.segmentation")
pytestmark = pytest.mark.integration


def deeplabv3(aux_loss=False):
    model = segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES, aux_loss=aux_loss
    )
    return Case(
        model=model,
        encoder=model.backbone,
        decoder=model.classifier,
        encode=lambda images: model.backbone(images)["out"],
        decode=model.classifier,
        forward=lambda images: model(images)["out"],
        encoder_channels=2048,
        image_size=64,
    )


def lraspp():
    model = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=NUM_CLASSES)

    def decode(feats):
        return model.classifier({"low": feats[0], "high": feats[1]})

    return Case(
        model=model,
        encoder=model.backbone,
        decoder=model.classifier,
        encode=lambda images: list(model.backbone(images).values()),
        decode=decode,
        forward=lambda images: model(images)["out"],
        encoder_channels=[40, 960],
        scale_factors=[4, 2],  # strides 8 and 16
    )


@pytest.mark.parametrize("build", [deeplabv3, lraspp])
@pytest.mark.parametrize("check", CHECKS)
def test_contract(build, check):
    check(build())


def test_auxiliary_head_is_left_alone():
    wired = deeplabv3(aux_loss=True)
    wired.loss(wired.mrm(), wired.encode(wired.images())).backward()
    assert all(parameter.grad is None for parameter in wired.model.aux_classifier.parameters())


def test_features_in_a_dict_get_an_error_with_the_remedy():
    wired = lraspp()
    with pytest.raises(TypeError, match=r"^feats: .*OrderedDict.*list\(feats\.values\(\)\)"):
        wired.loss(wired.mrm(), wired.model.backbone(wired.images()))
