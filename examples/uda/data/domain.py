"""A domain: the samples of one split of a data set and how to read them.

It is given as LAYOUT:PATH, such as gta5:/data/gta5 or cityscapes:/data/cityscapes; see layouts.py.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .images import image_size, read_labels, read_rgb
from .labels import ClassSet
from .layouts import LAYOUTS, Sample


@dataclass(frozen=True)
class Domain:
    """The samples of one split and how to read them.

    spec: LAYOUT:PATH.
    size: (height, width) of the frame that images and labels are resized to fit before cropping, proportions kept, as
        the published recipes do: (720, 1280) makes GTA5's 1052 x 1914 704 x 1280. None leaves them as they are.
    scale: what they are enlarged by besides.
    """

    spec: str
    samples: list[Sample]
    classes: ClassSet
    size: tuple[int, int] | None = None
    scale: float = 1.0

    @property
    def root(self) -> Path:
        return Path(self.spec.partition(":")[2]).expanduser()

    def pixels(self, index: int) -> Tensor:
        """(3, H, W) uint8, RGB."""
        return self._resize(self._own_pixels(index))

    def labels(self, index: int) -> Tensor:
        """(h, w) train ids, uint8, 255 where ignored, in the file's own size."""
        sample = self.samples[index]
        ids, palette = read_labels(sample.label)
        return torch.from_numpy(self.classes.train_ids(ids, sample.label, sample.converted, palette))

    def with_labels(self, index: int) -> tuple[Tensor, Tensor]:
        """Pixels (3, H, W) uint8 and labels (h, w) in their file's own size, which is that of the image's file.

        Raises:
            ValueError: the two files differ in size, see `check_size`.
        """
        pixels, labels = self._own_pixels(index), self.labels(index)
        self.check_size(index, labels, (pixels.shape[1], pixels.shape[2]))
        return self._resize(pixels), labels

    def labelled(self, index: int) -> tuple[Tensor, Tensor]:
        """Pixels (3, H, W) and labels (H, W), nearest, both resized. Raises: as `with_labels`."""
        pixels, labels = self.with_labels(index)
        if labels.shape != pixels.shape[1:]:
            labels = F.interpolate(labels[None, None], pixels.shape[1:], mode="nearest-exact")[0, 0]
        return pixels, labels

    def check_size(self, index: int, labels: Tensor, expected: tuple[int, int] | None = None) -> None:
        """Raises ValueError where labels in their file's own size are not of their image's.

        Less than 1 % passes with a warning: some of GTA5's pairs differ by a few pixels.

        Args:
            expected: the upright image's (height, width); where None it is looked up in the image file.
        """
        image, path = self.samples[index]
        got = tuple(labels.shape)
        if expected is None:
            expected = image_size(image)
            if got != expected:
                expected = read_rgb(image).shape[:2]
        if any(abs(a - b) > 0.01 * b for a, b in zip(got, expected)):
            raise ValueError(f"{path}: expected labels of the image's size {expected}, got {got} ({image} upright)")
        if got != expected:
            warnings.warn(f"{path}: labels {got} are resized to their image's size {expected}", stacklevel=2)

    def check_labels(self) -> None:
        """Raises FileNotFoundError, at once instead of in the middle of a run, where an image has no label file."""
        missing = [sample for sample in self.samples if not sample.label.exists()]
        if missing:
            image, label = missing[0]
            counts = f"{len(missing)} of {len(self)} images have no labels"
            raise FileNotFoundError(f"{label}: expected the labels of {image}, found no such file ({counts})")

    def _own_pixels(self, index: int) -> Tensor:
        return torch.from_numpy(read_rgb(self.samples[index].image)).permute(2, 0, 1)

    def _resize(self, x: Tensor) -> Tensor:
        return fit(x, self.size, self.scale)

    def __len__(self) -> int:
        return len(self.samples)


def fit(x: Tensor, frame: tuple[int, int] | None, scale: float = 1.0) -> Tensor:
    """Bytes (3, H, W), bilinear without smoothing, fitted into the frame and scaled."""
    own = (x.shape[-2], x.shape[-1])
    rows, cols = fitted(own, frame) if frame else own
    size = (round(rows * scale), round(cols * scale))
    if own == size:
        return x
    # bytes alone would be rounded twice, between rows and columns
    return F.interpolate(x[None].float(), size, mode="bilinear")[0].round_().byte()


def fitted(size: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
    """The largest (height, width) of the proportions of `size` that fits the frame, which is turned for tall images."""
    scale = min(max(frame) / max(size), min(frame) / min(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def open_domain(spec: str, split: str = "train", size: tuple[int, int] | None = None) -> Domain:
    """The samples of a split, "train" or "val", of the domain that LAYOUT:PATH names; for `size` see `Domain`.

    Raises:
        ValueError: no such layout.
        FileNotFoundError: the folder is not laid out so.
    """
    layout, colon, path = spec.partition(":")
    if not colon or layout not in LAYOUTS:
        raise ValueError(f"expected LAYOUT:PATH with LAYOUT one of {', '.join(LAYOUTS)}, got {spec!r}")
    return Domain(spec, *LAYOUTS[layout](Path(path).expanduser(), split), size)


def check_classes(source: Domain, target: Domain) -> None:
    """Raises ValueError where the two domains have other classes or order them otherwise."""
    ours, theirs = source.classes.names, target.classes.names
    if ours != theirs:
        raise ValueError(f"expected one list of classes, got {ours} in {source.spec} and {theirs} in {target.spec}")
