"""ClassMix and block masks by their closed forms, and what wrong input is told."""

from __future__ import annotations

import pytest
import torch
from uda.selftraining.mixing import block_mask, class_mask, draw_classes, keep_blocks, mix


@pytest.mark.parametrize("present", [1, 2, 5, 8])
def test_half_of_the_classes_rounded_up(present: int) -> None:
    labels = torch.arange(present).repeat(3, 4)
    drawn = draw_classes(labels, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64
    assert len(drawn) == len(set(drawn.tolist())) == (present + 1) // 2
    assert set(drawn.tolist()) <= set(range(present))


def test_the_ignore_index_is_a_class_too() -> None:
    labels = torch.tensor([[255, 255], [255, 255]])
    assert draw_classes(labels).tolist() == [255]


def test_draws_repeat_with_the_generator_and_vary_without() -> None:
    labels = torch.arange(12).view(3, 4)
    drawn = [draw_classes(labels, torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len({tuple(d) for d in drawn}) > 1


def test_every_class_is_drawn_equally_often() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(6)
    counts = torch.stack([torch.bincount(draw_classes(labels, generator), minlength=6) for _ in range(2000)]).sum(0)
    assert (counts / 2000 - 0.5).abs().max() < 0.05


def test_class_mask() -> None:
    labels = torch.tensor([[0, 1, 255], [2, 1, 0]])
    mask = class_mask(labels, torch.tensor([1, 255]))
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[False, True, True], [False, True, False]]


@pytest.mark.parametrize("mask_shape", [(4, 6), (2, 4, 6), (2, 1, 4, 6)])
@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (2, 4, 6)])
def test_mix_pastes_source_where_true(mask_shape: tuple[int, ...], shape: tuple[int, ...]) -> None:
    mask = torch.rand(mask_shape) < 0.5
    source, target = torch.rand(shape), -torch.rand(shape)
    mixed = mix(mask, source, target)
    full = (mask.view(-1, 4, 6) if len(shape) == 3 else mask.view(-1, 1, 4, 6)).expand(shape)
    assert mixed.shape == source.shape
    assert torch.equal(mixed[full], source[full])
    assert torch.equal(mixed[~full], target[~full])


def test_mix_does_not_spread_what_it_leaves_out() -> None:
    mask = torch.tensor([[True, False]])
    mixed = mix(mask, torch.tensor([[1.0, torch.nan]]), torch.tensor([[torch.nan, 2.0]]))
    assert mixed.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.7, 1.0])
def test_block_mask_removes_whole_blocks_at_the_ratio(ratio: float) -> None:
    mask = block_mask(64, (64, 96), ratio, 16, torch.Generator().manual_seed(0))
    assert mask.shape == (64, 1, 64, 96)
    assert mask.dtype == torch.bool
    blocks = mask.view(64, 4, 16, 6, 16).float().mean(dim=(2, 4))
    assert set(blocks.unique().tolist()) <= {0.0, 1.0}
    assert abs(float(blocks.mean()) - (1 - ratio)) < 0.03


def test_block_mask_of_an_image_smaller_than_a_block() -> None:
    assert block_mask(2, (20, 70), 0.5, 64).shape == (2, 1, 20, 70)


def test_keep_blocks_keeps_above_the_ratio() -> None:
    keep = keep_blocks(torch.tensor([[[[0.7, 0.71]]]]), (2, 4), 0.7)
    assert keep[0, 0].tolist() == [[False, False, True, True]] * 2


def test_wrong_input() -> None:
    with pytest.raises(TypeError, match=r"labels.*integer.*float32"):
        draw_classes(torch.rand(2, 2))
    with pytest.raises(ValueError, match=r"labels.*at least one pixel.*\(0, 4\)"):
        draw_classes(torch.zeros(0, 4, dtype=torch.long))
    with pytest.raises(TypeError, match=r"mask.*bool.*float32"):
        mix(torch.ones(2, 2), torch.ones(2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"source and target.*\(2, 2\).*\(2, 3\)"):
        mix(torch.ones(2, 2, dtype=torch.bool), torch.ones(2, 2), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"mask.*\(1, 3, 4, 4\).*\(5, 4\)"):
        mix(torch.ones(5, 4, dtype=torch.bool), torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"mask_ratio.*\[0, 1\].*1\.5"):
        block_mask(1, (64, 64), 1.5)
    with pytest.raises(ValueError, match=r"block_size.*0"):
        block_mask(1, (64, 64), 0.5, 0)
