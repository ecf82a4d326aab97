"""Decoders of the DeepLab family: DeepLabV2 (Chen et al., TPAMI 2018) and DeepLabV3+ (Chen et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import classifier


class DeepLabV2Head(nn.Module):
    """DeepLabV2's: the sum of 3 x 3 convolutions with different dilations over the last level.

    Args:
        in_channels: channels of the encoder's levels; only the last is used.
        num_classes: K.
        dilations: one branch each. (6, 12) is what the field's DeepLabV2 has computed since AdaptSegNet, whose loop
            over the four dilations of the paper, (6, 12, 18, 24), returns after the second.
    """

    logits_level = -1  # whose size the logits have

    def __init__(self, in_channels: Sequence[int], num_classes: int, dilations: Sequence[int] = (6, 12)) -> None:
        super().__init__()
        branches = [classifier(in_channels[-1], num_classes, 3, dilation) for dilation in dilations]
        self.used_channels: list[int | None] = [*[None] * (len(in_channels) - 1), in_channels[-1]]
        self.branches = nn.ModuleList(branches)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Levels fine to coarse to logits (B, K, h, w) at the last level's stride."""
        return torch.stack([branch(feats[-1]) for branch in self.branches]).sum(dim=0)


class DeepLabV3PlusHead(nn.Module):
    """DeepLabV3+'s, as segmentation_models_pytorch has it; for encoders at output stride 8.

    Atrous spatial pyramid pooling over the last level, refined with the first.

    Args:
        in_channels: channels of the encoder's levels, fine to coarse; the first and the last are used.
        num_classes: K.
        width: channels of the decoder.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, width: int = 256) -> None:
        from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder

        super().__init__()
        self.used_channels: list[int | None] = [in_channels[0], *[None] * (len(in_channels) - 2), in_channels[-1]]
        self.body = DeepLabV3PlusDecoder(
            encoder_channels=[3, 0, *in_channels],
            encoder_depth=5,
            out_channels=width,
            atrous_rates=(12, 24, 36),
            output_stride=8,
            aspp_separable=True,
            aspp_dropout=0.5,
        )
        self.classify = classifier(width, num_classes)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Levels fine to coarse to logits (B, K, h_0, w_0)."""
        rows, cols = feats[0].shape[-2:]
        # the library doubles the last level and expects the first to be just as large
        fine = F.pad(feats[0], (0, cols % 2, 0, rows % 2), mode="replicate")
        logits: Tensor = self.classify(self.body([fine, fine, fine, *feats[1:]]))
        return logits[..., :rows, :cols]
