"""Decoders: those of DAFormer (Hoyer et al., CVPR 2022), DeepLabV2 (Chen et al., TPAMI 2018), DeepLabV3+ (Chen et al.,
ECCV 2018) and VFM-UDA (Englert et al., CVPR workshops 2024).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrm_loss.layers import ChannelNorm


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution of unchanged size without bias, BatchNorm, ReLU; He-normal over the fan-out."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), relu=nn.ReLU(inplace=True)))


def classifier(in_channels: int, num_classes: int, kernel_size: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Convolution of unchanged size to class scores, weights N(0, 0.01), bias 0."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(in_channels, num_classes, kernel_size, padding=padding, dilation=dilation)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


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
        embed_dim: channels of each embedded level and of the fused features.
        fusion: "aspp" for the decoder of the paper, "conv" for the 1 x 1 convolution of HRDA's scale attention.
    """

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, embed_dim: int = 256, fusion: str = "aspp"
    ) -> None:
        super().__init__()
        stacked = len(in_channels) * embed_dim
        self.used_channels: list[int | None] = list(in_channels)
        self.embed = nn.ModuleList(nn.Linear(channels, embed_dim) for channels in in_channels)
        self.fuse = SeparableASPP(stacked, embed_dim) if fusion == "aspp" else conv_bn_relu(stacked, embed_dim, 1)
        self.dropout = nn.Dropout2d(0.1)
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


class DeepLabV2Head(nn.Module):
    """DeepLabV2's: the sum of 3 x 3 convolutions with different dilations over the last level.

    Args:
        in_channels: channels of the encoder's levels; only the last is used.
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


class LightHead(nn.Module):
    """VFM-UDA's head: the last level enlarged by two transposed convolutions, one convolution, classification.

    Args:
        in_channels: channels of the encoder's levels; only the last is used.
    """

    logits_level = -3  # of a pyramid has the logits' size, four times the last's
    averages_probabilities = True  # and not logits, over evaluation's windows

    def __init__(self, in_channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.used_channels: list[int | None] = [*[None] * (len(in_channels) - 1), in_channels[-1]]
        width, half, quarter = (in_channels[-1] // divisor for divisor in (1, 2, 4))
        self.upscale = nn.Sequential(
            nn.ConvTranspose2d(width, half, kernel_size=2, stride=2, bias=False),
            ChannelNorm(half, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, kernel_size=2, stride=2, bias=False),
            ChannelNorm(quarter, eps=1e-6),
            nn.Conv2d(quarter, quarter, kernel_size=3, padding=1, bias=False),
            ChannelNorm(quarter, eps=1e-6),
        )
        self.classify = nn.Conv2d(quarter, num_classes, kernel_size=1, bias=False)
        nn.init.normal_(self.classify.weight, std=0.1)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Levels fine to coarse to logits (B, K, 4 * rows, 4 * cols)."""
        return self.classify(self.upscale(feats[-1]))  # type: ignore[no-any-return]
