"""transformers: SegFormer, whose features are its hidden states, and decoders of queries, as the page connects them."""

from __future__ import annotations

import framework_scripts as page
import pytest
import torch

from integration.contract import CHECKS, NUM_CLASSES, Case
from mrm_loss import MRM

transformers = pytest.importorskip("transformers", minversion="4.45")
pytestmark = pytest.mark.integration

BLOCKS = page.blocks(page.LIBRARIES)
QUERIES = "Mask2Former and OneFormer"
PER_PIXEL = BLOCKS[QUERIES][BLOCKS[QUERIES].index("def per_pixel") : BLOCKS[QUERIES].index("\nmodel = ")]


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


def small_swin():
    return transformers.SwinConfig(
        image_size=128,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


SMALL_QUERIES = dict(
    num_labels=NUM_CLASSES, hidden_dim=32, encoder_feedforward_dim=32, dim_feedforward=32, num_queries=7, dropout=0.0
)


def from_page(block, config, **options):
    """The names of a block, run with a small random model."""
    names = {"torch": torch, "MRM": MRM, "images": torch.randn(2, 3, 128, 128)}
    code = PER_PIXEL + BLOCKS[block].replace(f"{config}(num_labels=19)", "config")
    names["config"] = getattr(transformers, config)(backbone_config=small_swin(), **SMALL_QUERIES, **options)
    exec(compile(code, f"{page.LIBRARIES.name}: {block}", "exec"), names)
    return names


def of_queries(names, **inputs):
    model, pixels = names["model"], names["pixels"]

    def forward(images):
        out = model(images, **inputs)
        return names["per_pixel"](out.class_queries_logits, out.masks_queries_logits)

    return Case(
        model=model,
        encoder=pixels.encoder,
        decoder=torch.nn.ModuleList([pixels.decoder, names["queries"]]),
        encode=lambda images: pixels.encoder(images).feature_maps,
        decode=names["decoder"],
        forward=forward,
        encoder_channels=names["mrm"].rebuilder.encoder_channels,
    )


def mask2former():
    options = dict(feature_size=32, mask_feature_size=32, encoder_layers=1, decoder_layers=2, num_attention_heads=2)
    return of_queries(from_page(QUERIES, "Mask2FormerConfig", **options))


def oneformer():
    options = dict(conv_dim=32, mask_dim=32, encoder_layers=1, decoder_layers=2, num_attention_heads=2)
    options |= dict(query_dec_layers=1, text_encoder_width=32, text_encoder_num_layers=1)
    names = from_page(f"{QUERIES} 2", "OneFormerConfig", **options)
    return of_queries(names, task_inputs=names["task_inputs"])


@pytest.mark.parametrize("build", [segformer, mask2former, oneformer])
@pytest.mark.parametrize("check", CHECKS)
def test_contract(build, check):
    check(build())


def test_whole_output_where_features_should_be():
    wired = segformer()
    with pytest.raises(TypeError, match=r"^feats: "):
        wired.loss(wired.mrm(), wired.model.segformer(wired.images(), output_hidden_states=True))


# ----------------------------------------------------------------------------------- queries to per-pixel logits


@pytest.fixture(scope="module")
def per_pixel():
    names = {"torch": torch}
    exec(PER_PIXEL, names)
    return names["per_pixel"]


def test_cross_entropy_sees_each_class_s_share(per_pixel):
    classes, masks = 3 * torch.randn(2, 9, 6), 3 * torch.randn(2, 9, 8, 8)
    scores = torch.einsum("bqk,bqhw->bkhw", classes.softmax(-1)[..., :5], masks.sigmoid())
    torch.testing.assert_close(per_pixel(classes, masks).softmax(1), scores / scores.sum(1, keepdim=True))
    assert scores.softmax(1).max() < 0.5  # the scores themselves, as logits, are never sure


def test_the_best_class_is_that_of_semantic_inference(per_pixel):
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerForUniversalSegmentationOutput

    pytest.importorskip("torchvision")
    classes, masks = torch.randn(2, 9, 6), torch.randn(2, 9, 384, 384)  # the size that it resizes to
    output = Mask2FormerForUniversalSegmentationOutput(class_queries_logits=classes, masks_queries_logits=masks)
    found = transformers.Mask2FormerImageProcessor().post_process_semantic_segmentation(output)
    assert (per_pixel(classes, masks).argmax(1) == torch.stack(found)).float().mean() > 0.9999  # but for ties


@pytest.mark.parametrize("mask_logit", [-200.0, -17.0, 200.0])
def test_pixels_that_no_query_claims(per_pixel, mask_logit):
    """Finite loss and gradients where scores vanish, and a way back from where they almost do."""
    classes = torch.randn(1, 4, 6, requires_grad=True)
    masks = torch.full((1, 4, 2, 2), mask_logit, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(per_pixel(classes, masks), torch.zeros(1, 2, 2).long())
    loss.backward()
    assert loss.isfinite()
    assert classes.grad.isfinite().all()
    assert masks.grad.isfinite().all()
    assert bool(masks.grad.any()) == (mask_logit == -17)
