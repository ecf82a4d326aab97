"""HRDA (Hoyer et al., ECCV 2022): a large low-resolution context crop and a small high-resolution detail crop.

    box = network.draw_box(images.shape[-2:], generator)   # one detail crop for the whole batch
    feats = network.encode(images, box)                    # context levels and detail levels
    loss = network.loss(feats, labels, weights)            # fused and detail logits
    logits = network.predict(images)                       # detail everywhere, by overlapping crops

The methods are those of `Segmentor`, so that one training step serves both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .segmentor import Levels, Rebuild, Segmentor, pixel_loss, upsample
from .sliding import Box, merge, sliding_boxes


class HRDAFeatures(NamedTuple):
    """What `HRDA.encode` returns.

    context: levels of the whole image at half scale, (B, C_l, h_l, w_l) each.
    detail: levels of the crops at full scale, (N * B, C_l, h'_l, w'_l) each: the batch of the first crop, and so on.
    boxes: the N crops in pixels of the full-scale image.
    """

    context: Levels
    detail: Levels
    boxes: list[Box]


class HRDALogits(NamedTuple):
    """What `HRDADecoder` returns.

    fused: (B, K, H / s, W / s) with the head's stride s.
    context: (B, K, H / 2s, W / 2s), already multiplied by 1 - attention.
    detail: (N * B, K, h / s, w / s).
    attention: (B, K, H / 2s, W / 2s), how far each class trusts the detail; zero where there is none.
    """

    fused: Tensor
    context: Tensor
    detail: Tensor
    attention: Tensor


class HRDADecoder(nn.Module):
    """One head for both resolutions and a second that weighs them (the paper's "Multi-Resolution Fusion").

    Args:
        head: levels to logits (B, K, h, w).
        attention: levels to scores (B, K, h, w), or (B, 1, h, w) for one weight for all classes.
        stride: pixels per cell of the head's logits: 4 with DAFormer's head, 8 with DeepLabV2's.
    """

    def __init__(self, head: nn.Module, attention: nn.Module, stride: int = 4) -> None:
        super().__init__()
        self.head = head
        self.attention = attention
        self.stride = stride
        self.context_stride = 2 * stride  # in pixels of the full-scale image

    def forward(self, feats: HRDAFeatures) -> HRDALogits:
        context = self.head(feats.context)  # (B, K, H / 2s, W / 2s)
        detail = self.head(feats.detail)  # (N * B, K, h / s, w / s)
        covered = context.new_zeros(1, 1, *context.shape[-2:])  # 1 where a detail crop lies
        for box in feats.boxes:
            box.scale(self.context_stride).crop(covered).fill_(1)
        attention = torch.sigmoid(self.attention(feats.context)) * covered
        context = (1 - attention) * context

        size = (2 * context.shape[-2], 2 * context.shape[-1])
        merged = merge(detail.chunk(len(feats.boxes)), [box.scale(self.stride) for box in feats.boxes], size)
        fused = _resize(attention, size) * merged + _resize(context, size)
        return HRDALogits(fused, context, detail, attention)


class HRDA(Segmentor):
    """Two resolutions, one encoder, one decoder.

    Args:
        encoder: images to levels, fine to coarse; sees both resolutions.
        decoder: see `HRDADecoder`.
        detail_crop: edge in pixels of the detail crops; a multiple of the decoder's context stride.

    Image sides given to `encode` must be multiples of the decoder's context stride (8 pixels with DAFormer's head);
    `predict` takes any.
    """

    detail_weight = 0.1  # share of the detail crop's own cross-entropy in the loss

    def __init__(self, encoder: nn.Module, decoder: HRDADecoder, detail_crop: int = 512) -> None:
        super().__init__(encoder, decoder)
        self.grid = decoder.context_stride  # full-scale pixels per cell of the context logits: where crops may lie
        self.detail_crop = detail_crop

    @property
    def used_channels(self) -> list[int | None]:
        """Channels of the levels, None for those the head ignores; the Rebuilder serves both resolutions."""
        every: Any = self.encoder.out_channels
        return list(getattr(self.decoder.head, "used_channels", every))

    @property
    def compilable(self) -> list[nn.Module]:
        """The modules that compute; the decoder itself puts a detail crop where it lies, elsewhere in each step."""
        decoder: Any = self.decoder
        return [self.encoder, decoder.head, decoder.attention]

    def draw_box(self, size: tuple[int, int], generator: torch.Generator | None = None) -> Box:
        """Draw the detail crop of a training step in images of size (H, W), on the grid of the context logits.

        As in HRDA's code the last position that would fit is never drawn.
        """
        edges = []
        for length in size:
            crop = min(self.detail_crop, length)
            positions = max((length - crop + 1) // self.grid, 1)
            start = int(torch.randint(positions, (), generator=generator)) * self.grid
            edges += [start, start + crop]
        return Box(*edges)

    def encode(self, images: Tensor, box: Box | None = None) -> HRDAFeatures:
        """Images (B, 3, H, W) at full scale to the levels of both resolutions.

        Args:
            box: the detail crop of a training step; None for crops over the whole image that overlap by half.
        """
        size = (images.shape[-2], images.shape[-1])
        stride = max(self.detail_crop // 2 // self.grid, 1) * self.grid
        boxes = [box] if box is not None else sliding_boxes(size, self.detail_crop, stride)
        context = self.encoder(self.context_images(images))
        detail = self.encoder(torch.cat([crop.crop(images) for crop in boxes]))
        return HRDAFeatures(context, detail, boxes)

    def decode(self, feats: HRDAFeatures) -> Tensor:
        """Features to the fused logits (B, K, H / s, W / s)."""
        logits: HRDALogits = self.decoder(feats)
        return logits.fused

    def predict(self, images: Tensor, rebuild: Rebuild | None = None) -> Tensor:
        """(B, 3, H, W) to logits (B, K, H, W); any size that the encoder takes at half scale."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % self.grid, 0, -height % self.grid), mode="replicate")
        return upsample(self(padded, rebuild), padded.shape[-2:])[..., :height, :width]

    def loss(self, feats: HRDAFeatures, labels: Tensor, weights: Tensor | float = 1.0) -> Tensor:
        """(1 - d) * CE(fused) + d * CE(detail), with d = detail_weight; of features that one box was encoded with.

        Labels (B, H, W) and weights are those of the images at full scale.
        """
        (box,) = feats.boxes
        logits: HRDALogits = self.decoder(feats)
        trust = box.crop(weights) if isinstance(weights, Tensor) else weights
        fused = (1 - self.detail_weight) * pixel_loss(logits.fused, labels, weights)
        return fused + self.detail_weight * pixel_loss(logits.detail, box.crop(labels), trust)

    def rebuild(self, feats: HRDAFeatures, rebuild: Rebuild) -> HRDAFeatures:
        """Both resolutions through one Rebuilder, called once for each, so that their masks are independent."""
        return feats._replace(context=rebuild(feats.context), detail=rebuild(feats.detail))

    def context_images(self, images: Tensor) -> Tensor:
        """The images at the context's scale."""
        height, width = images.shape[-2:]
        return _resize(images, (height // 2, width // 2))

    def context_levels(self, feats: HRDAFeatures) -> Levels:
        """The context's levels, which the feature distance compares."""
        return feats.context


def _resize(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
