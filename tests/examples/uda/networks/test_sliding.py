"""Windows and the predictions averaged over them."""

from __future__ import annotations

import weakref

import torch
from hypothesis import given
from hypothesis import strategies as st
from uda.networks.sliding import Box, merge, sliding_boxes, sliding_rows


def sliding_predict(predict, images, window, stride):
    return torch.cat(list(sliding_rows(predict, images, window, stride)), dim=-2)


def test_last_windows_move_back_inside() -> None:
    assert sliding_boxes((4, 10), window=4, stride=4) == [Box(0, 4, 0, 4), Box(0, 4, 4, 8), Box(0, 4, 6, 10)]
    assert sliding_boxes((3, 4), window=4, stride=2) == [Box(0, 3, 0, 4)]


def test_evaluation_of_cityscapes_takes_nine_windows() -> None:
    assert len(sliding_boxes((1024, 2048), 1024, 512)) == 3
    assert len(sliding_boxes((1024, 1024), 512, 256)) == 9


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.data())
def test_windows_cover_the_image(height: int, width: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    image = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width)
    boxes = sliding_boxes((height, width), window, stride)
    parts = [box.crop(image) for box in boxes]
    torch.testing.assert_close(merge(parts, boxes, (height, width)), image)
    by_rows = sliding_predict(lambda x: 3 * x, image, window, stride)
    assert torch.equal(by_rows, merge([3 * part for part in parts], boxes, (height, width)))
    assert len(set(boxes)) == len(boxes)


def test_sliding_predict_of_a_pointwise_network_changes_nothing() -> None:
    images = torch.rand(2, 3, 20, 33)
    out = sliding_predict(lambda x: 2 * x, images, window=8, stride=5)
    torch.testing.assert_close(out, 2 * images)


def test_windows_are_kept_no_longer_than_they_are_added() -> None:
    alive: list[int] = []
    made: list[weakref.ref[torch.Tensor]] = []

    def predict(crop: torch.Tensor) -> torch.Tensor:
        alive.append(sum(ref() is not None for ref in made))
        out = crop + 1
        made.append(weakref.ref(out))
        return out

    sliding_predict(predict, torch.rand(1, 3, 40, 40), window=8, stride=8)
    assert len(alive) == 25 and max(alive) <= 1


def test_merge_is_zero_where_no_window_lies() -> None:
    out = merge([torch.ones(1, 1, 2, 2)], [Box(0, 2, 1, 3)], (3, 4))
    assert out[0, 0].tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_box_on_a_grid() -> None:
    assert Box(8, 16, 0, 24).scale(8) == Box(1, 2, 0, 3)
