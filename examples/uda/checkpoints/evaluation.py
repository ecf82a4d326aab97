"""mIoU of a network on a labelled domain, and its predictions as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..data.domain import Domain
from ..data.labels import CITYSCAPES_NAMES, IGNORE, SYNTHIA13, SYNTHIA16, colourise
from ..data.layouts import CONVERTED
from ..data.transforms import normalise
from ..networks import Segmentor, sliding_rows
from ..runtime.devices import to_device
from ..runtime.files import naming_file
from ..runtime.output import progress
from ..runtime.processes import rank_and_world, sum_over_ranks

# Train ids of Cityscapes' classes over which the field reports mIoU.
SUBSETS: dict[str, list[int]] = {
    "all": list(range(len(CITYSCAPES_NAMES))),
    "synthia16": SYNTHIA16,
    "synthia13": SYNTHIA13,
}

COLOURED = "_colour.png"
OVERLAID = "_overlay.png"


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """(K, K) int64, rows the labels, columns what was predicted; pixels labelled 255 do not count.

    On the device of both, (H, W) each; nothing is read back from there.
    """
    nothing = num_classes**2  # a place for the pixels that do not count: their number would be asked of the device
    pairs = torch.where(labels == IGNORE, nothing, labels.long() * num_classes + predicted.long()).flatten()
    counts = torch.zeros(nothing + 1, dtype=torch.int64, device=labels.device)
    counts.scatter_add_(0, pairs, torch.ones_like(pairs))
    return counts[:nothing].view(num_classes, num_classes)


def class_iou(confusion: Tensor) -> Tensor:
    """(K,) intersection over union in percent, NaN for classes that are neither labelled nor predicted.

    As Cityscapes' and DAFormer's code count it: 0 for a class that is predicted somewhere and labelled nowhere.
    """
    hits = confusion.diag().double()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diag()
    return torch.where(union > 0, 100 * hits / union.clamp(min=1), torch.nan)


def mean_iou(confusion: Tensor, classes: Sequence[int] | None = None) -> float:
    """Mean over those of the classes (all where None) that are labelled or predicted; NaN where none is.

    The other classes still count where they are predicted or labelled in place of these, as the field does it for
    SYNTHIA's 16 and 13 classes.
    """
    iou = class_iou(confusion)
    return (iou if classes is None else iou[list(classes)]).nanmean().item()


def mean_in_words(confusions: dict[str, Tensor], names: Sequence[str], classes: Sequence[int] | None = None) -> str:
    """Which classes `mean_iou` is over, network by network where they differ."""
    chosen = list(range(len(names)) if classes is None else classes)
    sentences = {name: over_in_words(confusion, names, chosen) for name, confusion in confusions.items()}
    first, *others = sentences.values()
    if all(other == first for other in others):
        return f"mIoU is over {first}"
    return "\n".join(f"mIoU of the {name} is over {words}" for name, words in sentences.items())


def over_in_words(confusion: Tensor, names: Sequence[str], classes: list[int]) -> str:
    iou, labelled = class_iou(confusion), confusion.sum(1) > 0
    left_out = [names[k] for k in classes if iou[k].isnan()]
    zero = [names[k] for k in classes if not labelled[k] and not iou[k].isnan()]
    words = f"{len(classes) - len(left_out)} of {len(classes)} classes"
    if left_out:
        words += f"; neither labelled nor predicted: {', '.join(left_out)}"
    if zero:
        words += f"; counted as 0, for they are predicted and have no labelled pixel: {', '.join(zero)}"
    return words


def window_scores(network: Segmentor) -> Callable[[Tensor], Tensor]:
    """What is averaged where windows overlap: logits, or probabilities where the head says so (VFM-UDA)."""
    if getattr(network.decoder, "averages_probabilities", False):
        return lambda images: network.predict(images).softmax(1)
    return network.predict


@torch.no_grad()
def predict_ids(
    network: Segmentor, pixels: Tensor, size: tuple[int, int], device: torch.device, window: int = 0
) -> Tensor:
    """The best class of every pixel, (h, w) int64, on the device.

    Args:
        network: in eval mode.
        pixels: (3, H, W) uint8.
        size: (h, w) of the result, to which the logits are resized.
        window: side in pixels of windows that slide over the image by half of it; 0 predicts the whole image. With
            windows the logits of one row of them are kept at a time.
    """

    def scores(images: Tensor, of: Callable[[Tensor], Tensor] = network.predict) -> Tensor:
        return of(to_device(normalise(images.float() / 255), device))

    bands: Iterable[Tensor] = (
        [scores(pixels[None])]
        if not window
        else sliding_rows(partial(scores, of=window_scores(network)), pixels[None], window, max(window // 2, 1))
    )
    if pixels.shape[-2:] != size:
        logits = torch.cat(list(bands), dim=-2)
        bands = [nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)]
    # in bytes, and with `map`, which lets go of a band before it asks for the next
    return torch.cat(list(map(best_class, bands))).long()


def best_class(logits: Tensor) -> Tensor:
    """(1, K, H, W) -> (H, W) uint8; there are at most 254 classes."""
    return logits[0].max(0).indices.byte()  # argmax along the first dimension takes 13 times as long on a CPU


def evaluate(
    network: Segmentor,
    domain: Domain,
    num_classes: int,
    device: torch.device,
    title: str = "",
    window: int = 0,
    on_prediction: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Confusion matrix over all samples, in eval mode; every process takes its share and all return the sum.

    Args:
        window: see `predict_ids`.
        on_prediction: is called with each sample's index and its predicted classes (H, W), of its label file's size.

    Raises:
        ValueError: the files of an image and its labels differ in size.
    """
    was_training = network.training
    network.eval()
    rank, world = rank_and_world()
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    mine = range(rank, len(domain), world)
    for index in progress(mine, len(mine), title, leave=False, silent=rank > 0):
        pixels, labels = domain.with_labels(index)
        size = (labels.shape[0], labels.shape[1])
        predicted = predict_ids(network, pixels, size, device, window)
        # counted there: the next image is read while the device still predicts this one
        confusion += confusion_matrix(to_device(labels, device), predicted, num_classes)
        if on_prediction is not None:
            on_prediction(index, predicted.cpu())
    network.train(was_training)
    return sum_over_ranks(confusion).cpu()


def iou_table(
    confusions: dict[str, Tensor], names: Sequence[str] = CITYSCAPES_NAMES, classes: Sequence[int] | None = None
) -> str:
    """IoU per class and mIoU of one or more networks, as a table to print.

    Args:
        confusions: a column's title -> (K, K).
        names: of the K classes.
        classes: the rows, all where None; those that are neither labelled nor predicted are left out.
    """
    columns = {name: class_iou(confusion) for name, confusion in confusions.items()}
    chosen = range(len(names)) if classes is None else classes
    rows = [k for k in chosen if not all(iou[k].isnan() for iou in columns.values())]
    width = max(15, *(len(names[k]) + 1 for k in rows)) if rows else 15
    lines = [f"{'class':<{width}}" + "".join(f"{name:>9}" for name in columns)]
    for k in rows:
        cells = ["" if iou[k].isnan() else f"{iou[k].item():.1f}" for iou in columns.values()]
        lines.append(f"{names[k]:<{width}}" + "".join(f"{cell:>9}" for cell in cells))
    means = "".join(f"{mean_iou(confusion, classes):9.2f}" for confusion in confusions.values())
    return "\n".join([*lines, f"{'mIoU':<{width}}{means}"])


def prediction_files(base: Path, overlay: bool = False) -> list[Path]:
    """What `save_prediction` writes."""
    return [base.with_name(base.name + ending) for ending in (CONVERTED, COLOURED, OVERLAID)[: 2 + overlay]]


def save_prediction(
    base: Path, predicted: Tensor, colours: NDArray[np.uint8], picture: NDArray[np.uint8] | None = None
) -> None:
    """Writes BASE_labelTrainIds.png, which the loaders take as labels, and BASE_colour.png.

    Args:
        base: path without ending; its folder is made.
        predicted: (H, W) train ids.
        colours: (K, 3).
        picture: (H, W, 3); BASE_overlay.png then shows the colours over it, half transparent.
    """
    ids = predicted.numpy().astype(np.uint8)
    coloured = colourise(ids, colours)
    pictures = [ids, coloured]
    if picture is not None:
        pictures.append(((picture.astype(np.uint16) + coloured + 1) // 2).astype(np.uint8))
    base.parent.mkdir(parents=True, exist_ok=True)
    for path, content in zip(prediction_files(base, picture is not None), pictures, strict=True):
        with naming_file(path):
            Image.fromarray(content).save(path)
