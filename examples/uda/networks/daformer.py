"""DAFormer's decoder (Hoyer et al., CVPR 2022): context-aware fusion of all levels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import classifier, conv_bn_relu


class SeparableASPP(nn.Module):
    """Parallel convolutions of different dilations, depthwise separable but for dilation 1, joined by a 3 x 3 one.

    Args:
        in_channels: C.
        out_channels: channels of each branch and of the result.
        dilations: one branch each; dilation 1 is a 1 x 1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, dilations: Sequence[int] = (1, 6, 12, 18)) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_branch(in_channels, out_channels, dilation) for dilation in dilations)
        self.bottleneck = conv_bn_relu(len(dilations) * out_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, out_channels, h, w)."""
        return self.bottleneck(torch.cat([branch(x) for branch in self.branches], dim=1))  # type: ignore[no-any-return]


def _branch(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    if dilation == 1:
        return conv_bn_relu(in_channels, out_channels, 1)
    return nn.Sequential(
        OrderedDict(
            depthwise=conv_bn_relu(in_channels, in_channels, 3, dilation, groups=in_channels),
            pointwise=conv_bn_relu(in_channels, out_channels, 1),
        )
    )


class DAFormerHead(nn.Module):
    """Embeds each level, stacks them at the finest level's size, fuses and classifies.

    Args:
        in_channels: channels of the encoder's levels, fine to coarse.
        num_classes: K.
        embed_dim: channels of each embedded level and of the fused features.
        fusion: "aspp" for the decoder of the paper, "conv" for the 1 x 1 convolution of HRDA's scale attention.
        dropout: probability with which a channel of the fused features is dropped.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        embed_dim: int = 256,
        fusion: str = "aspp",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if fusion not in ("aspp", "conv"):
            raise ValueError(f'fusion: expected "aspp" or "conv", got {fusion!r}')
        stacked = len(in_channels) * embed_dim
        self.used_channels: list[int | None] = list(in_channels)
        self.embed = nn.ModuleList(nn.Linear(channels, embed_dim) for channels in in_channels)
        self.fuse = SeparableASPP(stacked, embed_dim) if fusion == "aspp" else conv_bn_relu(stacked, embed_dim, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = classifier(embed_dim, num_classes)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Levels (B, C_l, h_l, w_l), fine to coarse, to logits (B, K, h_0, w_0)."""
        size = feats[0].shape[-2:]
        embedded = []
        for level, embed in zip(feats, self.embed, strict=True):
            x = embed(level.movedim(1, -1)).movedim(-1, 1)  # linear over the channels
            x = x.contiguous()  # else channels last: depthwise convolutions' backward takes thrice as long on a CPU
            fits = x.shape[-2:] == size  # the finest level does: no copy of it, nor of its gradient
            embedded.append(x if fits else F.interpolate(x, size, mode="bilinear", align_corners=False))
        return self.classify(self.dropout(self.fuse(torch.cat(embedded, dim=1))))  # type: ignore[no-any-return]
