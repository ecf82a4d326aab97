from __future__ import annotations

import colorsys

import pytest
import torch
from uda.data.transforms import normalise
from uda.runtime.rng import generator
from uda.selftraining.colours import (
    WEAK,
    Colours,
    colour_jitter,
    draw_jitter,
    gaussian_blur,
    hue_matrix,
    recoloured,
    strong,
    turn_hue,
    weak,
)


def test_hue_turns_round():
    x = torch.rand(3, 6, 6) * 0.4 + 0.3
    torch.testing.assert_close(turn_hue(x, hue_matrix(0.0)), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(turn_hue(x, hue_matrix(1.0)), x, atol=1e-4, rtol=0)
    for turn, hue in ((1 / 3, 2 / 3), (-1 / 3, 1 / 3)):  # a circle of chroma, so hue angles agree only roughly
        red = turn_hue(torch.tensor([0.6, 0.4, 0.4]).view(3, 1, 1), hue_matrix(turn)).flatten().tolist()
        assert colorsys.rgb_to_hsv(*red)[0] == pytest.approx(hue, abs=0.06)


def test_jitter_of_strength_zero_is_the_identity():
    x = torch.rand(3, 8, 8)
    colours = Colours(draw_jitter(generator(0), (0.0,) * 4), None)
    assert len(colours.jitter) == 4
    torch.testing.assert_close(colour_jitter(x, colours.jitter, hue_matrix(colours.turn)), x, atol=1e-5, rtol=0)


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
    whole = recoloured(x, [strong(generator("a", i)) for i in range(3)])
    torch.testing.assert_close(recoloured(x[1:2], [strong(generator("a", 1))])[0], whole[1])


def test_weak_colours():
    """VFM-UDA's: brightness within 32/255, contrast and saturation within a half, hue within 18 degrees; no blur."""
    chosen = [dict(draw_jitter(generator(i), WEAK)) for i in range(400)]
    for which, (centre, strength) in enumerate([(1, 32 / 255), (1, 0.5), (1, 0.5), (0, 0.05)]):
        values = torch.tensor([jitter[which] for jitter in chosen])
        assert (values - centre).abs().max() <= strength
        assert (values - centre).abs().max() > 0.95 * strength
    images = normalise(torch.rand(200, 3, 4, 4))
    changed = recoloured(images, [weak(generator(i)) for i in range(200)])
    same = (changed - images).abs().amax((1, 2, 3)) < 1e-5
    assert same.float().mean().item() == pytest.approx(0.1, abs=0.05)
