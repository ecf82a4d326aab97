"""An encoder and a decoder, with what self-training asks of them.

    feats = network.encode(images)
    loss = network.loss(feats, labels, weights)                        # decodes; weighted cross-entropy
    rebuilt = network.rebuild(feats, lambda levels: mrm.rebuild(levels)[0])
    loss = network.loss(rebuilt, labels, weights)                      # the loss of Masked Representation Modeling
    logits = network.predict(images)                                   # at the size of the images

    leaves = cut(feats)                                                # several losses, each with its own backward
    for loss in losses_of(leaves):
        loss.backward()
    join(feats, leaves)                                                # the encoder's backward, once

`HRDA` offers the same methods for two resolutions, so that one training step serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from mrm_loss import weighted_cross_entropy

from .sliding import Box

Levels = list[Tensor]  # (B, C_l, h_l, w_l) each, fine to coarse
Rebuild = Callable[[Levels], Levels]
Features = Any  # what a network's own encode returns: Levels here, HRDAFeatures in HRDA


class Segmentor(nn.Module):
    """Encoder and decoder at one resolution: DACS and DAFormer.

    Args:
        encoder: images to levels, fine to coarse; `out_channels` holds their channels.
        decoder: levels to logits (B, K, h, w); `used_channels`, where it has that, None for the levels it ignores.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    @property
    def used_channels(self) -> list[int | None]:
        """Channels of the levels, None for those the decoder ignores: what the Rebuilder is built with."""
        every: Any = self.encoder.out_channels
        return list(getattr(self.decoder, "used_channels", every))

    @property
    def compilable(self) -> list[nn.Module]:
        """The modules that compute; what lies between them changes from step to step in HRDA."""
        return [self.encoder, self.decoder]

    def draw_box(self, size: tuple[int, int], generator: torch.Generator | None = None) -> Box | None:
        """Only HRDA looks at a random crop in more detail: None, and no random number drawn."""
        return None

    def encode(self, images: Tensor, box: Box | None = None) -> Features:
        """(B, 3, H, W) to levels fine to coarse."""
        return self.encoder(images)

    def decode(self, feats: Features) -> Tensor:
        """Levels to logits (B, K, h, w) at the decoder's stride."""
        logits: Tensor = self.decoder(feats)
        return logits

    def forward(self, images: Tensor, rebuild: Rebuild | None = None) -> Tensor:
        """(B, 3, H, W) to logits (B, K, h, w) at the decoder's stride; of rebuilt features where `rebuild` is given."""
        feats = self.encode(images)
        return self.decode(feats if rebuild is None else self.rebuild(feats, rebuild))

    def predict(self, images: Tensor, rebuild: Rebuild | None = None) -> Tensor:
        """(B, 3, H, W) to logits (B, K, H, W)."""
        return upsample(self(images, rebuild), images.shape[-2:])

    def loss(self, feats: Features, labels: Tensor, weights: Tensor | float = 1.0) -> Tensor:
        """Weighted cross-entropy of the decoded levels, over all pixels.

        Args:
            feats: what `encode` or `rebuild` returned.
            labels: (B, H, W) int64, 255 where ignored; the logits are resized to them.
            weights: (B, H, W) or a number.
        """
        return pixel_loss(self.decode(feats), labels, weights)

    def rebuild(self, feats: Features, rebuild: Rebuild) -> Features:
        """The levels as `rebuild`, the Rebuilder, returns them."""
        return rebuild(feats)

    def context_images(self, images: Tensor) -> Tensor:
        """The images as the levels of `context_levels` saw them, for the ImageNet encoder of the feature distance."""
        return images

    def context_levels(self, feats: Features) -> Levels:
        """The levels that the feature distance compares."""
        levels: Levels = feats
        return levels


def cut(feats: Features) -> Features:
    """The features as leaves of the graph, where the backward of a loss ends; `join` goes on from there.

    So every loss of the same features is followed at once by its backward, which frees its decoder's memory, and the
    encoder's backward still runs once.
    """
    return tree_map(lambda x: x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x, feats)


def join(feats: Features, leaves: Features) -> None:
    """The backward of `feats` through the encoder, with the gradients that have arrived at their `leaves`."""
    pairs = [(x, leaf.grad) for x, leaf in zip(tree_leaves(feats), tree_leaves(leaves)) if isinstance(x, Tensor)]
    used = [(x, grad) for x, grad in pairs if grad is not None]
    torch.autograd.backward([x for x, _ in used], [grad for _, grad in used])


def pixel_loss(logits: Tensor, labels: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """Cross-entropy at the resolution of the labels, mean over all pixels, ignored ones included."""
    return weighted_cross_entropy(upsample(logits, labels.shape[-2:]), labels, weights)


def upsample(logits: Tensor, size: torch.Size) -> Tensor:
    """Logits (B, K, h, w) to (B, K, H, W), in float32 at least."""
    logits = logits.float() if logits.itemsize < 4 else logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)
