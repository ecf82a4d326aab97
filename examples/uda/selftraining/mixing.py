"""ClassMix for mixing domains and block masks for masked image consistency.

Uniform numbers are drawn on the CPU (draws.py) and made choices of here, on the device of the images, which the
training process does not wait for.

Sources: ClassMix (Olsson et al., WACV 2021), DACS (Tranheden et al., WACV 2021), MIC (Hoyer et al., CVPR 2023,
"Masked Image Consistency"). What is left open there is done as in the authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IDS = 256  # that label maps may hold: a byte's values


def present_ids(labels: Tensor) -> Tensor:
    """Which ids each label map (B, H, W), int64, holds: (B, 256) bool, the ignore index among them."""
    present = torch.zeros(len(labels), IDS, dtype=torch.bool, device=labels.device)
    return present.scatter_(1, labels.flatten(1), True)


def halve(present: Tensor, draws: Tensor) -> Tensor:
    """Half of the ids that are present, rounded up, any half as likely as another.

    DACS draws from the classes of one image. DAFormer, HRDA and MIC draw, once per image, from the classes of the
    whole batch. The ignore index counts as a class in both.

    Args:
        present: (B, 256) bool, see `present_ids`, or (1, 256) for all images.
        draws: (B, 256) in [0, 1), on the device of `present`; the ids with the lowest numbers are taken.

    Returns:
        (B, 256) bool.
    """
    rank = draws.masked_fill(~present, 2.0).argsort(1).argsort(1)  # absent ids come last
    return rank < (present.sum(1, keepdim=True) + 1) // 2


def class_mask(labels: Tensor, chosen: Tensor) -> Tensor:
    """Where `labels` (B, H, W) hold one of the ids `chosen` (B, 256): the pixels ClassMix pastes. Bool (B, H, W)."""
    return chosen.gather(1, labels.flatten(1)).view_as(labels)


def mix(mask: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """`source` where the mask (B, H, W) is True, else `target`: images (B, C, H, W), labels or weights (B, H, W)."""
    return torch.where(mask.unsqueeze(1) if source.ndim == 4 else mask, source, target)


def draw_blocks(size: tuple[int, int], block_size: int, generator: torch.Generator) -> Tensor:
    """A uniform number for each block of an image of size (H, W), (1, rows, cols) in [0, 1), for `keep_blocks`."""
    rows, cols = (max(round(edge / block_size), 1) for edge in size)
    return torch.rand(1, rows, cols, generator=generator)


def keep_blocks(draws: Tensor, size: tuple[int, int], mask_ratio: float) -> Tensor:
    """MIC's pixel mask of one uniform number per block: kept where that exceeds `mask_ratio`.

    `images * keep_blocks(...)` puts the removed pixels to zero, the mean colour of normalised images.

    Args:
        draws: (B, 1, rows, cols) in [0, 1).
        size: (H, W) of the mask; blocks are spread over it by nearest-neighbour resizing.
        mask_ratio: share of blocks removed, in [0, 1].

    Returns:
        (B, 1, H, W) bool, True = kept.
    """
    keep = (draws > mask_ratio).float()  # interpolate knows no bool
    return F.interpolate(keep, size=size, mode="nearest").bool()
