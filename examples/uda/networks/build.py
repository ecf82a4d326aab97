"""From names to networks."""

from __future__ import annotations

import importlib

from torch import nn

from .backbones import Encoder, TimmPyramid
from .heads import DAFormerHead, DeepLabV2Head, DeepLabV3PlusHead, LightHead
from .hrda import HRDA, HRDADecoder
from .segmentor import Segmentor
from .small import SmallDecoder, SmallEncoder, SmallViT
from .vit import ViTEncoder, timm_vit

DECODERS = ("daformer", "deeplabv2", "deeplabv3plus", "light", "small")

OWN_ENCODERS = ("small", "small_vit")
# how the names of timm's encoders begin that are open to the trainers
VITS = ("vit_", "eva02_", "deit3_")
PYRAMIDS = ("convnext",)


def build_network(
    encoder: str = "mit_b5",
    decoder: str = "daformer",
    num_classes: int = 19,
    *,
    hrda: bool = False,
    encoder_weights: str | None = None,
    embed_dim: int = 256,
    attention_dim: int | None = None,
    dropout: float = 0.1,
    drop_path: float | None = None,
    detail_crop: int = 512,
) -> Segmentor:
    """Build a network at one resolution or, with `hrda`, at two.

    Args:
        encoder: a name of segmentation_models_pytorch, such as "mit_b5" or "resnet101", of timm, such as
            "vit_base_patch14_dinov2.lvd142m" or "convnext_base.dinov3_lvd1689m", "small", or "small_vit".
        decoder: "daformer" (on encoders at stride 32), "deeplabv2" or "deeplabv3plus" (at stride 8), "light" (the last
            level alone), or "small", which goes with the small encoder and only with it. Vision transformers go with
            "light", and with "daformer" on four of their blocks.
        num_classes: K.
        hrda: whether to look at a context and a detail resolution.
        encoder_weights: "imagenet" or "hub", a file, or None for random weights.
        embed_dim: width of DAFormer's decoder.
        attention_dim: width of HRDA's scale attention; `embed_dim` where None.
        dropout: channel dropout of DAFormer's decoder.
        drop_path: stochastic depth of a MiT encoder; the published 0.1 where None.
        detail_crop: edge in pixels of HRDA's detail crop.
    """
    body = build_encoder(encoder, decoder, encoder_weights, drop_path)

    def head(width: int, fusion: str) -> nn.Module:
        return build_head(decoder, body.out_channels, num_classes, width, fusion, dropout)

    if not hrda:
        return Segmentor(body, head(embed_dim, "aspp"))
    if isinstance(body, ViTEncoder):
        raise ValueError(f"hrda: expected one resolution with the vision transformer {encoder}; give --no-hrda")
    main, attention = head(embed_dim, "aspp"), head(attention_dim or embed_dim, "conv")
    stride = body.strides[getattr(main, "logits_level", 0)]
    both = HRDADecoder(main, attention, stride)
    return HRDA(body, both, detail_crop)


def is_vit(encoder: str) -> bool:
    """Whether a name is that of a vision transformer, whose levels are all of one size."""
    return encoder == "small_vit" or encoder.startswith(VITS)


def known_encoder(name: str) -> bool:
    """Whether there is such an encoder; True where the library of its name is missing, which is said on building."""
    if name in OWN_ENCODERS:
        return True
    try:
        if is_vit(name) or name.startswith(PYRAMIDS):
            known: bool = importlib.import_module("timm").is_model(name.partition(".")[0])
            return known
        return (
            name.startswith("tu-") or name in importlib.import_module("segmentation_models_pytorch.encoders").encoders
        )
    except ModuleNotFoundError:
        return True


def build_encoder(
    encoder: str, decoder: str, weights: str | None = None, drop_path: float | None = None
) -> SmallEncoder | Encoder | TimmPyramid | ViTEncoder:
    """Images to levels, fine to coarse; `out_channels` holds their channels, `strides` their pixels per cell."""
    if decoder not in DECODERS:
        raise ValueError(f"decoder: expected one of {DECODERS}, got {decoder!r}")
    if (encoder == "small") != (decoder == "small"):
        raise ValueError(f'expected "small" for both encoder and decoder or for neither, got {encoder!r}, {decoder!r}')
    if encoder == "small":
        return SmallEncoder()
    if is_vit(encoder):
        if decoder not in ("light", "daformer"):
            raise ValueError(f"decoder: expected light or daformer with {encoder}, got {decoder!r}")
        levels = 4 if decoder == "daformer" else 1
        if encoder == "small_vit":
            return ViTEncoder(SmallViT(), SmallViT.patch_size, levels)
        return timm_vit(encoder, weights, levels, drop_path or 0.0)
    output_stride = 8 if decoder.startswith("deeplab") else 32
    pyramid = TimmPyramid if encoder.startswith(PYRAMIDS) else Encoder
    return pyramid(encoder, weights, output_stride, drop_path)


def build_head(
    decoder: str, channels: list[int], num_classes: int, width: int, fusion: str, dropout: float
) -> nn.Module:
    """Levels of these channels to logits, which have the first level's size, or that of the head's `logits_level`.

    Width, fusion and dropout are those of DAFormer's head.
    """
    if decoder == "small":
        return SmallDecoder(num_classes)
    if decoder == "light":
        return LightHead(channels, num_classes)
    if decoder == "deeplabv2":
        return DeepLabV2Head(channels, num_classes)
    if decoder == "deeplabv3plus":
        return DeepLabV3PlusHead(channels, num_classes)
    return DAFormerHead(channels, num_classes, width, fusion, dropout)
