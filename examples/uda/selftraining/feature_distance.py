"""The thing-class ImageNet feature distance of DAFormer (Hoyer et al., CVPR 2022, "Feature Distance").

The cross-entropies are the library's: `mrm_loss.weighted_cross_entropy`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.devices import constant
from ..runtime.processes import mean_over_ranks


def downscale_labels(
    labels: Tensor, factor: int, min_ratio: float = 0.75, num_classes: int = 19, ignore_index: int = 255
) -> Tensor:
    """Give each `factor` x `factor` cell the class that fills it, or `ignore_index` where none fills enough of it.

    Args:
        labels: (B, H, W) or (B, 1, H, W), integer; ids in [0, num_classes) or `ignore_index`.
        factor: edge of a cell in pixels; rows and columns beyond the last whole cell are dropped.
        min_ratio: least share of the cell, ignored pixels included, that the class must hold.
        num_classes: K.
        ignore_index: id of unlabelled pixels.

    Returns:
        (B, H // factor, W // factor) int64, or with the channel of one that came in.

    Raises:
        ValueError: `factor` exceeds the label map; on the CPU also where a label is neither a class nor ignored, which
            on another device would have to be read back.
    """
    squeezed = labels.squeeze(1) if labels.ndim == 4 else labels  # (B, H, W)
    if factor < 1 or factor > min(squeezed.shape[-2:]):
        raise ValueError(f"factor must lie in [1, {min(squeezed.shape[-2:])}], got {factor}")
    ids = squeezed.long()
    ignored = ids == ignore_index
    if ids.device.type == "cpu" and bool((((ids < 0) | (ids >= num_classes)) & ~ignored).any()):
        wrong = sorted(set(ids[~ignored].tolist()) - set(range(num_classes)))
        raise ValueError(f"labels must be in [0, {num_classes}) or {ignore_index}, got {wrong}")
    ids = ids.masked_fill(ignored, num_classes)  # one more class: nothing
    shares = [F.avg_pool2d((ids == k).float(), factor) for k in range(num_classes + 1)]
    ratio, winner = torch.stack(shares, dim=1).max(dim=1)  # (B, H // factor, W // factor) each
    winner = winner.masked_fill((winner == num_classes) | (ratio < min_ratio), ignore_index)
    return winner.unsqueeze(1) if labels.ndim == 4 else winner


def thing_weights(
    labels: Tensor,
    feats: Sequence[Tensor],
    classes: Sequence[int],
    *,
    num_classes: int,
    min_ratio: float = 0.75,
    ignore_index: int = 255,
) -> Tensor:
    """The weight of each cell in `feature_distance`: the same where a thing class fills the cell, zero elsewhere.

    Args:
        labels: (B, H, W) or (B, 1, H, W), the source labels of the whole batch.
        feats: levels of those images, fine to coarse; only the last one's size and dtype matter.
        classes: ids of the thing classes.
        num_classes: K.
        min_ratio: least share of a cell that a class must hold to count.
        ignore_index: id of unlabelled pixels.

    Returns:
        (B, h, w) of at least float32; the mean over the batches of all processes is 1, or 0 where no cell holds a
        thing.
    """
    size = feats[-1].shape[-2:]
    cells = downscale_labels(labels, labels.shape[-1] // size[-1], min_ratio, num_classes, ignore_index)
    cells = cells.squeeze(1) if cells.ndim == 4 else cells  # (B, h, w)
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
        weights: (B, h, w), those images' share of what `thing_weights` returned for the whole batch.

    Returns:
        Scalar of at least float32; zero, attached to the graph, where no cell holds a thing. The mean over equal parts
        of a batch, or over processes, is the mean over the cells of all.
    """
    student, imagenet = student_feats[-1], imagenet_feats[-1].detach()
    if student.shape != imagenet.shape:
        raise ValueError(
            f"student_feats and imagenet_feats must agree, got {tuple(student.shape)} and {tuple(imagenet.shape)}"
        )
    dtype = torch.promote_types(student.dtype, torch.float32)
    distance: Tensor = torch.linalg.vector_norm(student.to(dtype) - imagenet.to(dtype), dim=1)  # (B, h, w)
    return (distance * weights).mean()
