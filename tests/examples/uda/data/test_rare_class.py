"""Rare class sampling by its closed forms."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from uda.data.rare_class import RareClassSampler


def test_probabilities() -> None:
    sampler = RareClassSampler([{0: 70, 5: 0}, {0: 5, 3: 25}], temperature=0.5)
    assert sampler.classes == [3, 0]  # rarest first, absent classes left out
    torch.testing.assert_close(sampler.probabilities, torch.softmax(torch.tensor([0.75, 0.25]) / 0.5, dim=0))


def test_a_large_temperature_is_uniform() -> None:
    sampler = RareClassSampler([{0: 1, 1: 1000}], temperature=1e6)
    torch.testing.assert_close(sampler.probabilities, torch.full((2,), 0.5))


def test_images_exceed_the_minimum() -> None:
    assert RareClassSampler([{0: 20, 1: 10}, {0: 10, 1: 11}], min_pixels=10).images == {0: [0], 1: [1]}


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


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="image_pixels: expected a class that occurs"):
        RareClassSampler([{0: 0}])
