"""Rare class sampling of DAFormer (Hoyer et al., CVPR 2022): source images are drawn by the classes they show.

`pixels` below is the statistic that class-statistics files of this field hold: pixel counts per class and image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


def class_probabilities(pixel_counts: Mapping[int, int], temperature: float = 0.01) -> tuple[list[int], Tensor]:
    """Probability with which each class is drawn: softmax((1 - frequency) / temperature).

    Args:
        pixel_counts: pixels per class over the whole data set; classes with none are left out.
        temperature: small values favour the rarest classes.

    Returns:
        Ids by growing pixel count, and their probabilities (n,) float32.
    """
    occurring = sorted((item for item in pixel_counts.items() if item[1] > 0), key=lambda item: item[1])
    if not occurring:
        raise ValueError(f"pixel_counts must hold a class that occurs, got {dict(pixel_counts)}")
    counts = torch.tensor([count for _, count in occurring], dtype=torch.float32)
    rarity = 1.0 - counts / counts.sum()
    return [k for k, _ in occurring], torch.softmax(rarity / temperature, dim=0)


def images_per_class(image_pixels: Sequence[Mapping[int, int]], min_pixels: int = 3000) -> dict[int, list[int]]:
    """For each class the indices of the images that show more than `min_pixels` pixels of it, if there are any.

    Args:
        image_pixels: per image, pixels per class.
        min_pixels: what an image must exceed; DAFormer: 3000 of 1280 x 720.
    """
    images: dict[int, list[int]] = {}
    for index, pixels in enumerate(image_pixels):
        for k, count in pixels.items():
            if count > min_pixels:
                images.setdefault(k, []).append(index)
    return images


class RareClassSampler:
    """Draws a class by its rarity, then one of the images that show it.

        sampler = RareClassSampler(image_pixels)
        k, index = sampler.draw(generator)

    Args:
        image_pixels: per image, pixels per class.
        temperature: see `class_probabilities`.
        min_pixels: see `images_per_class`. A class that occurs, but in no image often enough, is drawn from the
            images that show any of it.
    """

    def __init__(
        self, image_pixels: Sequence[Mapping[int, int]], temperature: float = 0.01, min_pixels: int = 3000
    ) -> None:
        totals: Counter[int] = Counter()
        for pixels in image_pixels:
            totals.update(pixels)
        self.classes, self.probabilities = class_probabilities(totals, temperature)
        self.min_pixels = min_pixels
        any_pixel = images_per_class(image_pixels, 0)
        self.images = {**any_pixel, **images_per_class(image_pixels, min_pixels)}

    def draw(self, generator: torch.Generator | None = None) -> tuple[int, int]:
        """A class id and the index of an image that shows it."""
        k = self.classes[int(torch.multinomial(self.probabilities, 1, generator=generator))]
        images = self.images[k]
        return k, images[int(torch.randint(len(images), (), generator=generator))]


def crop_with_class(
    draw_crop: Callable[[], tuple[Tensor, Tensor]],
    wanted: int,
    min_crop_ratio: float = 0.5,
    min_pixels: int = 3000,
    redraws: int = 10,
) -> tuple[Tensor, Tensor]:
    """Draw crops of one image until one shows more than min_pixels * min_crop_ratio pixels of the wanted class.

    Args:
        draw_crop: returns one random crop, (image, labels).
        wanted: class id.
        min_crop_ratio: 0.5 in DAFormer, 2.0 in HRDA, whose crops are of larger images.
        min_pixels: as given to the sampler.
        redraws: how often at most to draw anew; the last crop is returned where none has enough.
    """
    image, labels = draw_crop()
    for _ in range(redraws):
        if int((labels == wanted).sum()) > min_pixels * min_crop_ratio:
            break
        image, labels = draw_crop()
    return image, labels
