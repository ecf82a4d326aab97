"""Rare class sampling by its closed forms."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor
from uda.data.rare_class import RareClassSampler, class_probabilities, crop_with_class, images_per_class


def test_probabilities() -> None:
    classes, probabilities = class_probabilities({0: 75, 3: 25, 5: 0}, temperature=0.5)
    assert classes == [3, 0]  # rarest first, absent classes left out
    expected = torch.softmax(torch.tensor([0.75, 0.25]) / 0.5, dim=0)
    torch.testing.assert_close(probabilities, expected)


def test_a_large_temperature_is_uniform() -> None:
    _, probabilities = class_probabilities({0: 1, 1: 1000}, temperature=1e6)
    torch.testing.assert_close(probabilities, torch.full((2,), 0.5))


def test_images_per_class_exceed_the_minimum() -> None:
    assert images_per_class([{0: 10, 1: 11}, {1: 10}], min_pixels=10) == {1: [0]}


def test_draws_follow_the_probabilities() -> None:
    sampler = RareClassSampler([{0: 900}, {0: 900, 1: 200}], temperature=1.0, min_pixels=100)
    generator = torch.Generator().manual_seed(0)
    draws = [sampler.draw(generator) for _ in range(3000)]
    assert all(index == 1 for k, index in draws if k == 1)
    share = Counter(k for k, _ in draws)[1] / 3000
    assert share == pytest.approx(float(sampler.probabilities[sampler.classes.index(1)]), abs=0.03)
    again = torch.Generator().manual_seed(0)
    assert [sampler.draw(again) for _ in range(10)] == draws[:10]


def test_a_class_too_small_in_every_image_is_drawn_from_any_that_shows_it() -> None:
    sampler = RareClassSampler([{0: 5000}, {0: 5000, 1: 5}], min_pixels=3000)
    assert sampler.images == {0: [0, 1], 1: [1]}


def test_crops_are_redrawn_until_the_class_is_there() -> None:
    pixels = iter([0, 3, 20, 99])

    def draw_crop() -> tuple[Tensor, Tensor]:
        labels = torch.zeros(100, dtype=torch.long)
        labels[: next(pixels)] = 7
        return torch.zeros(3), labels

    _, labels = crop_with_class(draw_crop, 7, min_crop_ratio=0.5, min_pixels=20)
    assert int((labels == 7).sum()) == 20


def test_redraws_end() -> None:
    calls = []

    def draw_crop() -> tuple[Tensor, Tensor]:
        calls.append(0)
        return torch.zeros(1), torch.zeros(4)

    crop_with_class(draw_crop, 7)
    assert len(calls) == 11  # one and ten redraws


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"pixel_counts.*\{0: 0\}"):
        class_probabilities({0: 0})
