"""ClassMix and block masks by their closed forms, and what wrong input is told."""

from __future__ import annotations

import pytest
import torch
from uda.selftraining.mixing import class_mask, draw_blocks, draw_halves, halve, keep_blocks, mix, present_ids


def drawn(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The ids that are drawn from all of `labels`."""
    chosen = halve(present_ids(labels.view(1, 1, -1)), draw_halves(generator)[None])
    return chosen[0].nonzero().flatten()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("present", [1, 2, 5, 8, 20, 256])
def test_half_of_the_classes_rounded_up(present: int, seed: int) -> None:
    """Those at the places that a random order of so many has first."""
    ids = torch.randperm(256)[:present].sort().values
    order = torch.randperm(present, generator=torch.Generator().manual_seed(seed))
    expected = ids[order[: (present + 1) // 2]].sort().values
    assert drawn(ids.repeat(3), torch.Generator().manual_seed(seed)).tolist() == expected.tolist()


def test_the_ignore_index_is_a_class_too() -> None:
    assert drawn(torch.tensor([[255, 255], [255, 255]]), torch.Generator()).tolist() == [255]


def test_every_class_is_drawn_equally_often() -> None:
    halves = torch.stack([draw_halves(torch.Generator().manual_seed(seed)) for seed in range(600)])
    chosen = halve(present_ids(torch.arange(6).view(1, 2, 3)), halves)
    assert (chosen[:, :6].float().mean(0) - 0.5).abs().max() < 0.08
    assert not chosen[:, 6:].any()


def test_a_draw_for_few_classes_is_the_draw_for_all() -> None:
    few, whole = (draw_halves(torch.Generator().manual_seed(7), most) for most in (20, 256))
    assert torch.equal(few, whole[:21])


def test_images_draw_from_their_own_classes_or_from_those_of_all() -> None:
    labels = torch.tensor([[[0, 0, 1]], [[7, 255, 7]]])
    halves = torch.stack([draw_halves(torch.Generator().manual_seed(seed)) for seed in range(2)])
    present = present_ids(labels)
    assert [row.nonzero().flatten().tolist() for row in present] == [[0, 1], [7, 255]]
    own = halve(present, halves)
    assert own.sum(1).tolist() == [1, 1]
    assert not (own & ~present).any()
    assert halve(present.any(0, keepdim=True), halves).sum(1).tolist() == [2, 2]


def test_class_mask() -> None:
    labels = torch.tensor([[[0, 1, 255], [2, 1, 0]]])
    mask = class_mask(labels, present_ids(torch.tensor([[[1, 255]]])))
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[[False, True, True], [False, True, False]]]


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
def test_whole_blocks_are_removed_at_the_ratio(ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([draw_blocks((64, 96), 16, generator) for _ in range(64)])
    mask = keep_blocks(draws, (64, 96), ratio)
    assert mask.shape == (64, 1, 64, 96)
    assert mask.dtype == torch.bool
    blocks = mask.view(64, 4, 16, 6, 16).float().mean(dim=(2, 4))
    assert set(blocks.unique().tolist()) <= {0.0, 1.0}
    assert abs(float(blocks.mean()) - (1 - ratio)) < 0.03


def test_an_image_smaller_than_a_block() -> None:
    assert draw_blocks((20, 70), 64).shape == (1, 1, 1)


def test_keep_blocks_keeps_above_the_ratio() -> None:
    keep = keep_blocks(torch.tensor([[[[0.7, 0.71]]]]), (2, 4), 0.7)
    assert keep[0, 0].tolist() == [[False, False, True, True]] * 2


def test_wrong_input() -> None:
    with pytest.raises(TypeError, match=r"labels.*int64.*float32"):
        present_ids(torch.rand(1, 2, 2))
    with pytest.raises(ValueError, match=r"labels.*at least one pixel.*\(1, 0, 4\)"):
        present_ids(torch.zeros(1, 0, 4, dtype=torch.long))
    with pytest.raises(TypeError, match=r"mask.*bool.*float32"):
        mix(torch.ones(2, 2), torch.ones(2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"source and target.*\(2, 2\).*\(2, 3\)"):
        mix(torch.ones(2, 2, dtype=torch.bool), torch.ones(2, 2), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"mask.*\(1, 3, 4, 4\).*\(5, 4\)"):
        mix(torch.ones(5, 4, dtype=torch.bool), torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"mask_ratio.*\[0, 1\].*1\.5"):
        keep_blocks(torch.zeros(1, 1, 2, 2), (64, 64), 1.5)
    with pytest.raises(ValueError, match=r"block_size.*0"):
        draw_blocks((64, 64), 0)
