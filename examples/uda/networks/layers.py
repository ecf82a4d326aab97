"""Layers that more than one decoder uses."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


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
