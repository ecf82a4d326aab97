"""mIoU of a network on a labelled domain."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .datasets import Domain
from .distributed import rank_and_world, sum_over_ranks
from .labels import CITYSCAPES_NAMES, IGNORE
from .networks import Segmentor, sliding_predict
from .transforms import normalise


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """(K, K) int64, rows the labels, columns what was predicted; pixels labelled 255 do not count."""
    valid = labels != IGNORE
    pairs = labels[valid].long() * num_classes + predicted[valid].long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def class_iou(confusion: Tensor) -> Tensor:
    """(K,) intersection over union in percent, NaN for classes without a labelled pixel."""
    hits = confusion.diag().double()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diag()
    iou = 100 * hits / union.clamp(min=1)
    return torch.where(confusion.sum(1) > 0, iou, torch.nan)


def mean_iou(confusion: Tensor) -> float:
    """Mean over the classes that have a labelled pixel."""
    return class_iou(confusion).nanmean().item()


@torch.no_grad()
def evaluate(
    network: Segmentor, domain: Domain, num_classes: int, device: torch.device, title: str = "", window: int = 0
) -> Tensor:
    """Confusion matrix over all samples, in eval mode; every process takes its share and all return the sum.

    Args:
        window: side in pixels of windows that slide over the image by half of it; 0 predicts whole images.
    """
    was_training = network.training
    network.eval()
    rank, world = rank_and_world()
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for index in tqdm(range(rank, len(domain), world), title, leave=False, disable=rank > 0):
        image, labels = domain.image(index), domain.labels(index, resized=False)
        x = normalise(image)[None].to(device)
        logits = sliding_predict(network.predict, x, window, window // 2) if window else network.predict(x)
        if logits.shape[-2:] != labels.shape:
            logits = nn.functional.interpolate(logits, labels.shape, mode="bilinear", align_corners=False)
        confusion += confusion_matrix(labels, logits[0].argmax(0).cpu(), num_classes)
    network.train(was_training)
    return sum_over_ranks(confusion.to(device)).cpu()


def iou_table(confusions: dict[str, Tensor]) -> str:
    """IoU per class and mIoU of one or more networks, as a table to print."""
    columns = {name: class_iou(confusion).numpy() for name, confusion in confusions.items()}
    seen = np.flatnonzero(~np.isnan(next(iter(columns.values()))))
    lines = [f"{'class':<15}" + "".join(f"{name:>9}" for name in columns)]
    for k in seen:
        lines.append(f"{CITYSCAPES_NAMES[k]:<15}" + "".join(f"{iou[k]:9.1f}" for iou in columns.values()))
    lines.append(f"{'mIoU':<15}" + "".join(f"{np.nanmean(iou):9.2f}" for iou in columns.values()))
    return "\n".join(lines)
