"""What a run is measured by, beside mIoU: predictions at masked cells of validation images."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from changes import mask_only
from torch import Tensor, nn
from trainers import (
    Domain,
    Run,
    Segmentor,
    Settings,
    class_iou,
    confusion_matrix,
    evaluate,
    generator,
    make_teacher,
    mean_iou,
    normalise,
)

from mrm_loss import MRM, Rebuilder, random_mask

RATIO = 0.4  # of masked cells in the measurement, whatever an arm trains with


def measure(run: Run) -> tuple[dict[str, Any], Tensor]:
    """mIoU of student and teacher, and the student at masked cells; the student's confusion matrix."""
    student, classes = run.models.student, len(run.models.classes)
    confusion, masked = at_masked_cells(student.network, student.mrm, run.validation, classes, run.settings)
    teacher = evaluate(run.models.teacher, run.validation, classes, run.device)
    means = {"student": round(mean_iou(confusion), 3), "teacher": round(mean_iou(teacher), 3)}
    return means | {"masked": masked}, confusion


@torch.no_grad()
def at_masked_cells(
    network: Segmentor, mrm: MRM | None, validation: Domain, classes: int, settings: Settings
) -> tuple[Tensor, dict[str, dict[str, float]]]:
    """The student's confusion matrix over all pixels, and how it does at masked cells, by what it is decoded from.

    own: its own features. filled: what the arm puts into masked cells. blank: the trained projectors of MRM on the
    normalised mask token, which know nothing of what is visible. Image i has the same mask in every arm.
    """
    sources: dict[str, Any] = {"own": None}
    if mrm is not None and settings.mrm_mask_ratio > 1e-6:  # else nothing was ever filled
        sources["filled"] = lambda levels, mask: mrm.rebuild(levels, mask)[0]
        if isinstance(mrm.rebuilder, Rebuilder):
            sources["blank"] = lambda levels, mask: with_blank_tokens(mrm, levels, mask)
    device = next(network.parameters()).device
    whole = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    at_masked = {name: torch.zeros_like(whole) for name in sources}
    was_training = network.training
    network.eval()
    for index in range(len(validation)):
        labels = validation.labels(index).to(device)
        image = normalise(validation.image(index).to(device))[None]
        draws = generator(0, "measured cells", index)
        mask = random_mask(1, settings.mrm_grid, RATIO, settings.mrm_block_size, generator=draws).to(device)
        hidden = F.interpolate(mask.float(), labels.shape, mode="nearest")[0, 0].bool()
        for name, fill in sources.items():
            predicted = network.predict(image, fill and partial(fill, mask=mask))[0].argmax(0)
            at_masked[name] += confusion_matrix(labels[hidden], predicted[hidden], classes)
            if name == "own":
                whole += confusion_matrix(labels, predicted, classes)
    network.train(was_training)
    return whole, {name: scores(confusion) for name, confusion in at_masked.items()}


def with_blank_tokens(mrm: MRM, levels: list[Tensor], mask: Tensor) -> list[Tensor]:
    """The levels, masked cells filled with what the projectors make of the mask token alone."""
    rebuilder: Any = mrm.rebuilder
    trained = rebuilder.make_tokens
    mask_only(mrm)
    try:
        filled: list[Tensor] = mrm.rebuild(levels, mask)[0]
        return filled
    finally:
        rebuilder.make_tokens = trained


def scores(confusion: Tensor) -> dict[str, float]:
    """Pixel accuracy and mIoU in percent."""
    accuracy = 100 * confusion.diag().sum().item() / confusion.sum().item()
    return {"accuracy": round(accuracy, 3), "miou": round(class_iou(confusion).nanmean().item(), 3)}


@torch.no_grad()
def with_target_statistics(network: Segmentor, target: Domain, batch_size: int) -> Segmentor:
    """A copy whose BatchNorm statistics are the plain average over the unlabelled target training images."""
    copy = make_teacher(network)  # in train mode, without dropout
    device = next(copy.parameters()).device
    for module in copy.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    for first in range(0, len(target) - batch_size + 1, batch_size):
        images = torch.stack([target.image(first + i) for i in range(batch_size)])
        copy(normalise(images.to(device)))
    return copy
