"""Rare class sampling of DAFormer (Hoyer et al., CVPR 2022): source images are drawn by the classes they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch


class RareClassSampler:
    """Draws a class by its rarity, then one of the images that show it.

        sampler = RareClassSampler(image_pixels)
        k, index = sampler.draw(generator)

    Args:
        image_pixels: per image, pixels per class; the statistic that class-statistics files of this field hold.
        temperature: a class is drawn with the probability softmax((1 - frequency) / temperature); small values favour
            the rarest classes.
        min_pixels: an image shows a class with more pixels than this; DAFormer: 3000 of 1280 x 720. A class that
            occurs, but in no image often enough, is drawn from the images that show any of it.

    `classes` holds the ids that occur by growing pixel count, `probabilities` theirs (n,) float32, `images` the indices
    of the images that show each.
    """

    def __init__(
        self, image_pixels: Sequence[Mapping[int, int]], temperature: float = 0.01, min_pixels: int = 3000
    ) -> None:
        totals: Counter[int] = Counter()
        for pixels in image_pixels:
            totals.update(pixels)
        totals = +totals  # without classes that have no pixel
        if not totals:
            raise ValueError("image_pixels: expected a class that occurs, found none")
        self.classes = sorted(totals, key=totals.__getitem__)
        counts = torch.tensor([totals[k] for k in self.classes], dtype=torch.float32)
        self.probabilities = torch.softmax((1.0 - counts / counts.sum()) / temperature, dim=0)
        self.min_pixels = min_pixels

        def showing(k: int, least: int) -> list[int]:
            return [index for index, pixels in enumerate(image_pixels) if pixels.get(k, 0) > least]

        self.images = {k: showing(k, min_pixels) or showing(k, 0) for k in self.classes}

    def draw(self, generator: torch.Generator | None = None) -> tuple[int, int]:
        """A class id and the index of an image that shows it."""
        k = self.classes[int(torch.multinomial(self.probabilities, 1, generator=generator))]
        images = self.images[k]
        return k, images[int(torch.randint(len(images), (), generator=generator))]
