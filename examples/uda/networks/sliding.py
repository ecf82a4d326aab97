"""Windows over an image: where they lie, and predictions averaged over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Box(NamedTuple):
    """A rectangle in pixels; `bottom` and `right` are exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    def crop(self, x: Tensor) -> Tensor:
        """The rectangle of (..., H, W)."""
        return x[..., self.top : self.bottom, self.left : self.right]

    def scale(self, divisor: int) -> Box:
        """The rectangle on a grid of `divisor` pixels per cell."""
        return Box(*(edge // divisor for edge in self))


def sliding_boxes(size: tuple[int, int], window: int, stride: int) -> list[Box]:
    """Windows row by row that cover an image; the last of a row or column is moved back inside.

    Args:
        size: (H, W).
        window: edge of a window in pixels; cut to the image where that is smaller.
        stride: pixels from one window to the next, at most `window`.
    """
    height, width = (min(window, edge) for edge in size)
    tops, lefts = (
        [min(start, edge - side) for start in range(0, edge - side + stride, stride)]
        for edge, side in zip(size, (height, width))
    )
    return [Box(top, top + height, left, left + width) for top in tops for left in lefts]


def merge(parts: Iterable[Tensor], boxes: list[Box], size: tuple[int, int]) -> Tensor:
    """Put predictions (B, K, h, w) back where their boxes lie in (B, K, H, W), averaged where boxes overlap, else zero.

    Args:
        parts, boxes: a prediction for each box of (h, w) cells.
        size: (H, W) of the result.
    """
    total = count = torch.empty(0)
    for i, (part, box) in enumerate(zip(parts, boxes, strict=True)):
        if i == 0:
            total, count = part.new_zeros(*part.shape[:2], *size), part.new_zeros(size)
        box.crop(total).add_(part)
        box.crop(count).add_(1)
    return total / count.clamp(min=1)


@torch.no_grad()
def sliding_rows(
    predict: Callable[[Tensor], Tensor], images: Tensor, window: int = 1024, stride: int = 512
) -> Iterator[Tensor]:
    """Logits averaged over overlapping windows, as HRDA and MIC are evaluated, in bands from top to bottom.

    Args:
        predict: images (B, 3, h, w) to logits of the same size, such as `network.predict`.
        window, stride: side of a window in pixels, and from one to the next.

    Returns:
        Bands (B, K, rows, W) with H rows in all. What is kept in memory is one row of windows.
    """
    height, width = images.shape[-2:]
    boxes = sliding_boxes((height, width), window, stride)
    tops = sorted({box.top for box in boxes})
    above: tuple[Tensor, Tensor] | None = None  # sums and counts of the rows that windows further up reach too
    for top, next_top in zip(tops, [*tops[1:], height]):
        total = count = None
        for box in (box for box in boxes if box.top == top):
            part = predict(box.crop(images))
            if total is None or count is None:
                total, count = part.new_zeros(*part.shape[:3], width), part.new_zeros(part.shape[2], width)
                if above is not None:
                    total[..., : len(above[1]), :], count[: len(above[1])] = above
            total[..., box.left : box.right].add_(part)
            count[:, box.left : box.right].add_(1)
            del part  # before the next window is predicted
        assert total is not None and count is not None  # a row has windows
        done = next_top - top
        above = total[..., done:, :].clone(), count[done:]  # a view would keep all of it
        yield total[..., :done, :].div_(count[:done])
