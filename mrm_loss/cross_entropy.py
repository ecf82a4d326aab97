"""Cross-entropy with a weight per pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mrm_loss.checks import check, check_labels, check_weights, describe
from mrm_loss.mask import move


def weighted_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | float = 1.0,
    *,
    ignore_index: int = 255,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy with a weight per pixel, as self-training uses it.

    Args:
        logits: (B, K, H, W); half precision is raised to float32.
        labels: integers (B, H, W) or (B, 1, H, W).
        weights: as `MRM.forward`'s pixel_weights; what stands at ignored pixels does not matter.
        ignore_index: label id that does not count.
        reduction: "mean": sum of weight * CE over the pixels that are not ignored / number of ALL pixels.
            "valid": the same sum / sum of those weights.

    Returns:
        Scalar; a zero attached to the graph where no pixel counts.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
    """
    labels = check_labels("labels", labels, logits)
    weights = check_weights("weights", weights, labels)
    check(reduction in ("mean", "valid"), "reduction", '"mean" or "valid"', reduction)
    if logits.ndim != 4 or logits.shape[2:] != labels.shape[1:]:
        raise ValueError(f"logits: expected (B, K, H, W) for labels {tuple(labels.shape)}, got {describe(logits)}")

    logits = logits.float() if logits.itemsize < 4 else logits
    ce = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")  # (B, H, W), 0 where ignored
    valid = labels != ignore_index
    if isinstance(weights, Tensor):
        weights = torch.where(valid, move(weights, ce.device).to(ce.dtype), 0.0)  # chosen: NaN * 0 is NaN
        total, norm = (weights * ce).sum(), weights.sum()
    else:
        total, norm = weights * ce.sum(), weights * valid.sum(dtype=ce.dtype)
    if reduction == "mean":
        return total / max(ce.numel(), 1)
    return total / torch.where(norm > 0, norm, 1.0)
