"""The thing-class ImageNet feature distance of DAFormer (Hoyer et al., CVPR 2022, "Feature Distance")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.labels import IGNORE
from ..runtime.devices import constant
from ..runtime.processes import mean_over_ranks


def downscale_labels(labels: Tensor, factor: int, num_classes: int, min_ratio: float = 0.75) -> Tensor:
    """Each `factor` x `factor` cell gets the class that fills it, or 255 where none fills `min_ratio` of it.

    Args:
        labels: (B, H, W) int64. Rows and columns beyond the last whole cell are dropped.

    Returns:
        (B, H // factor, W // factor) int64.
    """
    ids = labels.masked_fill(labels == IGNORE, num_classes)  # one more class: nothing
    shares = [F.avg_pool2d((ids == k).float(), factor) for k in range(num_classes + 1)]
    ratio, winner = torch.stack(shares, dim=1).max(dim=1)  # (B, H // factor, W // factor) each
    return winner.masked_fill((winner == num_classes) | (ratio < min_ratio), IGNORE)


def thing_weights(labels: Tensor, feats: Sequence[Tensor], classes: Sequence[int], *, num_classes: int) -> Tensor:
    """The weight of each cell in `feature_distance`: the same where a thing class fills the cell, zero elsewhere.

    Args:
        labels: (B, H, W) int64, of the source.
        feats: levels of those images, fine to coarse; only the last one's size and dtype matter.
        classes: ids of the thing classes.

    Returns:
        (B, h, w) of at least float32; the mean over the batches of all processes is 1, or 0 where no cell holds a
        thing.
    """
    size = feats[-1].shape[-2:]
    cells = downscale_labels(labels, max(labels.shape[-1] // size[-1], 1), num_classes)  # (B, h, w)
    if cells.shape[-2:] != size:
        raise ValueError(
            f"labels {tuple(labels.shape)} do not scale down to the features' {tuple(size)} cells "
            "by one whole factor: use crops that are multiples of the last level's stride"
        )
    things = constant(tuple(float(k in classes) for k in range(256)), feats[-1])[cells]
    things = things.to(torch.promote_types(feats[-1].dtype, torch.float32))
    share = mean_over_ranks(things.mean())
    return things / torch.where(share > 0, share, 1.0)


def feature_distance(student_feats: Sequence[Tensor], imagenet_feats: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Mean L2 distance of the last level's features to a frozen ImageNet encoder's, where a thing class fills the cell.

    Not yet weighted: DAFormer multiplies by 0.005.

    Args:
        student_feats: levels fine to coarse; only the last, (B, C, h, w), is used. Gradients flow into it.
        imagenet_feats: the frozen encoder's levels for the same images; detached here.
        weights: (B, h, w), see `thing_weights`.

    Returns:
        Scalar of at least float32; zero, attached to the graph, where no cell holds a thing.
    """
    student, imagenet = student_feats[-1], imagenet_feats[-1].detach()
    dtype = torch.promote_types(student.dtype, torch.float32)
    distance: Tensor = torch.linalg.vector_norm(student.to(dtype) - imagenet.to(dtype), dim=1)  # (B, h, w)
    return (distance * weights).mean()
