"""transformers: SegFormer, whose features are its hidden states."""

from __future__ import annotations

import pytest

from integration.contract import CHECKS, NUM_CLASSES, Case

transformers = pytest.importorskip("transformers", minversion="4.45")
pytestmark = pytest.mark.integration


def segformer():
    config = transformers.SegformerConfig(
        num_labels=NUM_CLASSES,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 40, 64],
        num_attention_heads=[1, 2, 5, 8],
        decoder_hidden_size=32,
    )
    model = transformers.SegformerForSemanticSegmentation(config)
    return Case(
        model=model,
        encoder=model.segformer,
        decoder=model.decode_head,
        encode=lambda images: model.segformer(images, output_hidden_states=True).hidden_states,
        decode=model.decode_head,
        forward=lambda images: model(images).logits,
        encoder_channels=model.config.hidden_sizes,
    )


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check(segformer())


def test_whole_output_where_features_should_be():
    wired = segformer()
    with pytest.raises(TypeError, match=r"^feats: "):
        wired.loss(wired.mrm(), wired.model.segformer(wired.images(), output_hidden_states=True))
