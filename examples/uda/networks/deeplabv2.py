"""DeepLabV2's decoder (Chen et al., TPAMI 2018): the sum of dilated convolutions to class scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .layers import classifier


class DeepLabV2Head(nn.Module):
    """Sum of 3 x 3 convolutions with different dilations over the last level.

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
