from __future__ import annotations

import masks
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trainers import Draws, Settings

from mrm_loss import random_mask

CFG = Settings(source="gta5:.", target="cityscapes:.", mrm_grid=(6, 12), mrm_block_size=2, crop=(48, 96), device="cpu")
IMAGES = torch.zeros(3, 3, 48, 96)


@given(rows=st.integers(1, 9), cols=st.integers(1, 9), block=st.integers(1, 3), seed=st.integers(0, 99))
def test_as_many_blocks_are_hidden_as_before_and_whole_ones(rows, cols, block, seed):
    block = min(block, rows, cols)
    gen = torch.Generator().manual_seed(seed)
    mask = random_mask(2, (rows, cols), 0.4, block, generator=gen)
    blocks = mask[..., ::block, ::block]
    preference = torch.rand(blocks.shape, generator=gen) + 0.01
    chosen = masks.choose(mask, preference, torch.rand(blocks.shape, generator=gen), block)
    assert chosen.shape == mask.shape and chosen.dtype == torch.bool
    kept = chosen[..., ::block, ::block]
    assert torch.equal(kept.flatten(1).sum(1), blocks.flatten(1).sum(1))
    whole = kept.repeat_interleave(block, -2).repeat_interleave(block, -1)[..., :rows, :cols]
    assert torch.equal(chosen, whole)


def test_a_single_block_is_drawn_with_chances_as_the_preference():
    mask = torch.zeros(20000, 1, 1, 3, dtype=torch.bool)
    mask[..., 0] = True
    preference = torch.tensor([1.0, 2.0, 5.0]).expand(20000, 1, 1, 3)
    draws = torch.rand(20000, 1, 1, 3, generator=torch.Generator().manual_seed(0))
    shares = masks.choose(mask, preference, draws, 1).float().mean((0, 1, 2))
    assert shares.tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.01)


def test_rarity_and_doubt_of_logits_by_hand():
    labels = torch.tensor([[[0, 0, 0, 2]]])
    logits = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1) * 200.0
    assert masks.rarity(logits).flatten().tolist() == pytest.approx([4 / 3, 4 / 3, 4 / 3, 4])
    assert masks.doubt(logits).abs().max() < 1e-6
    even = torch.zeros(1, 4, 1, 1)
    assert masks.doubt(even).item() == pytest.approx(torch.tensor(4.0).log().item())


def drawn(wrap, steps, logits=None):
    """The masks that the wrapped step draws."""
    found = []

    def step_function(number, batch, models, cfg, draws):
        models.passes.predict(None)
        found.append(draws.masked("target", IMAGES))
        return {}

    class Models:
        class passes:
            predict = staticmethod(lambda _: logits)

    for number in steps:
        wrap(step_function)(number, None, Models, CFG, Draws(CFG, number))
    return torch.stack(found)


def test_a_step_hides_what_the_teacher_finds_rare():
    logits = torch.zeros(3, 2, 48, 96)
    logits[:, 0] = 1.0
    logits[:, 1, :16, :16] = 2.0  # the upper left block
    preferring = drawn(masks.preferring(masks.rarity, 1.0), range(100), logits)
    plain = drawn(lambda step: step, range(100), logits)
    assert preferring[..., 0, 0].float().mean() > 0.9
    assert plain[..., 0, 0].float().mean() < 0.5
    assert torch.equal(preferring.flatten(2).sum(2), plain.flatten(2).sum(2))
    assert torch.equal(preferring, drawn(masks.preferring(masks.rarity, 1.0), range(100), logits))


def test_the_ratio_rises_from_the_first_step_to_the_last():
    last = CFG.iterations - 1
    wrap = masks.rising(0.1, 0.7)

    def share(numbers):
        return drawn(wrap, numbers).float().mean().item()

    assert share(range(100)) < 0.2 < 0.35 < share(range(last // 2 - 50, last // 2 + 50)) < 0.45
    assert 0.62 < share(range(last - 100, last)) < 0.75
