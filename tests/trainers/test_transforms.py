from __future__ import annotations

import colorsys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from uda.rng import generator, own_rng, seed_of, uniform
from uda.transforms import (
    colour_jitter,
    denormalise,
    gaussian_blur,
    normalise,
    pad,
    random_crop,
    random_flip,
    strong_augment,
    turn_hue,
)


def test_normalise_and_back():
    x = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(denormalise(normalise(x)), x)
    torch.testing.assert_close(normalise(torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)), torch.zeros(3, 1, 1))


@given(
    h=st.integers(1, 20), w=st.integers(1, 20), rows=st.integers(1, 25), cols=st.integers(1, 25), seed=st.integers(0, 9)
)
def test_crops_of_image_and_labels_agree(h, w, rows, cols, seed):
    labels = torch.arange(h * w).view(h, w) % 250
    image = labels.expand(3, h, w).float()
    x, y = random_flip(*random_crop(image, labels.byte(), (rows, cols), generator(seed)), generator(seed, "flip"))
    assert y.shape == (min(h, rows), min(w, cols))
    assert torch.equal(x, y.float().expand(3, -1, -1))


def test_crops_avoid_one_class():
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    labels[:, 48:] = 1
    shares = [random_crop(torch.zeros(3, 64, 64), labels, (16, 16), generator(i))[1].float().mean() for i in range(50)]
    assert sum(0.25 < s < 0.75 for s in shares) > 40  # one draw alone hits the seam far less often


def test_one_draw_where_one_class_may_fill_the_crop():
    labels = torch.arange(64 * 64).view(64, 64).remainder(200).byte()
    gen, other = generator(0), generator(0)
    crop = random_crop(labels.expand(3, -1, -1), labels, (16, 20), gen, max_share=1)[1]
    top, left = (int(torch.randint(n, (), generator=other)) for n in (49, 45))
    assert torch.equal(crop, labels[top : top + 16, left : left + 20])
    assert torch.equal(gen.get_state(), other.get_state())


def test_padding():
    image, labels = torch.rand(3, 4, 5), torch.ones(4, 5, dtype=torch.uint8)
    x, y = pad(image, labels, (6, 5), 255)
    assert x.shape == (3, 6, 5) and y.shape == (6, 5)
    torch.testing.assert_close(x[:, :4], image)
    assert not normalise(x)[:, 4:].any()
    assert (y[4:] == 255).all() and (y[:4] == 1).all()
    assert pad(image, labels, (4, 3), 255) == (image, labels)  # never cut


def test_hue_turns_round():
    x = torch.rand(3, 6, 6) * 0.4 + 0.3
    torch.testing.assert_close(turn_hue(x, 0.0), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(turn_hue(x, 1.0), x, atol=1e-4, rtol=0)
    for turn, hue in ((1 / 3, 2 / 3), (-1 / 3, 1 / 3)):  # a circle of chroma, so hue angles agree only roughly
        red = turn_hue(torch.tensor([0.6, 0.4, 0.4]).view(3, 1, 1), turn).flatten().tolist()
        assert colorsys.rgb_to_hsv(*red)[0] == pytest.approx(hue, abs=0.06)


def test_jitter_of_strength_zero_is_the_identity():
    x = torch.rand(3, 8, 8)
    torch.testing.assert_close(colour_jitter(x, 0.0, generator(0)), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sigma", [0.15, 0.6, 1.15])
def test_blur_is_a_gaussian(sigma):
    x = torch.zeros(3, 15, 15)
    x[:, 7, 7] = 1
    out = gaussian_blur(x, sigma)
    assert out.sum().item() == pytest.approx(3, rel=1e-5)
    offsets = torch.arange(15.0) - 7
    variance = (out[0].sum(0) * offsets**2).sum().item()
    assert variance == pytest.approx(sigma**2, rel=0.05, abs=0.03)
    torch.testing.assert_close(gaussian_blur(torch.full((3, 9, 9), 0.3), sigma), torch.full((3, 9, 9), 0.3))


def test_augmentation_is_per_sample():
    x = normalise(torch.rand(3, 3, 12, 12))
    whole = strong_augment(x, [generator("a", i) for i in range(3)])
    torch.testing.assert_close(strong_augment(x[1:2], [generator("a", 1)])[0], whole[1])


def test_seeds():
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1)
    assert len({seed_of(s, p, t) for s in range(3) for p in ("a", "b") for t in range(20)}) == 120
    values = [uniform(generator(i), 2, 3) for i in range(200)]
    assert all(2 <= v < 3 for v in values)
    assert sum(values) / 200 == pytest.approx(2.5, abs=0.08)


def test_own_rng_leaves_no_trace():
    before = torch.get_rng_state()
    with own_rng(1, "x"):
        a = torch.rand(3)
    with own_rng(1, "x"):
        assert torch.equal(a, torch.rand(3))
    assert torch.equal(torch.get_rng_state(), before)
