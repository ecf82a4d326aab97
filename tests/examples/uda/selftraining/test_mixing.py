"""ClassMix and block masks by their closed forms."""

from __future__ import annotations

import pytest
import torch
from uda.selftraining.mixing import class_mask, draw_blocks, halve, keep_blocks, mix, present_ids


def draws(seed: int, images: int = 1) -> torch.Tensor:
    return torch.rand(images, 256, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("present", [1, 2, 5, 8, 20, 256])
def test_half_of_the_classes_rounded_up(present: int) -> None:
    """Those with the lowest numbers."""
    ids, numbers = torch.randperm(256)[:present], draws(1)
    chosen = halve(present_ids(ids.repeat(3).view(1, 3, -1)), numbers)
    lowest = ids[numbers[0, ids].argsort()[: (present + 1) // 2]]
    assert chosen[0].nonzero().flatten().tolist() == lowest.sort().values.tolist()


def test_the_ignore_index_is_a_class_too() -> None:
    assert halve(present_ids(torch.full((1, 2, 2), 255)), draws(0))[0].nonzero().flatten().tolist() == [255]


def test_every_class_is_drawn_equally_often() -> None:
    chosen = halve(present_ids(torch.arange(6).view(1, 2, 3)), draws(0, images=600))
    assert (chosen[:, :6].float().mean(0) - 0.5).abs().max() < 0.08
    assert not chosen[:, 6:].any()


def test_images_draw_from_their_own_classes_or_from_those_of_all() -> None:
    labels = torch.tensor([[[0, 0, 1]], [[7, 255, 7]]])
    present = present_ids(labels)
    assert [row.nonzero().flatten().tolist() for row in present] == [[0, 1], [7, 255]]
    own = halve(present, draws(0, images=2))
    assert own.sum(1).tolist() == [1, 1]
    assert not (own & ~present).any()
    assert halve(present.any(0, keepdim=True), draws(0, images=2)).sum(1).tolist() == [2, 2]


def test_class_mask() -> None:
    labels = torch.tensor([[[0, 1, 255], [2, 1, 0]]])
    mask = class_mask(labels, present_ids(torch.tensor([[[1, 255]]])))
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[[False, True, True], [False, True, False]]]


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (2, 4, 6)])
def test_mix_pastes_source_where_true(shape: tuple[int, ...]) -> None:
    mask = torch.rand(2, 4, 6) < 0.5
    source, target = torch.rand(shape), -torch.rand(shape)
    mixed = mix(mask, source, target)
    full = (mask if len(shape) == 3 else mask[:, None]).expand(shape)
    assert mixed.shape == source.shape
    assert torch.equal(mixed[full], source[full])
    assert torch.equal(mixed[~full], target[~full])


def test_mix_does_not_spread_what_it_leaves_out() -> None:
    mask = torch.tensor([[[True, False]]])
    mixed = mix(mask, torch.tensor([[[1.0, torch.nan]]]), torch.tensor([[[torch.nan, 2.0]]]))
    assert mixed.tolist() == [[[1.0, 2.0]]]


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
    assert draw_blocks((20, 70), 64, torch.Generator()).shape == (1, 1, 1)


def test_keep_blocks_keeps_above_the_ratio() -> None:
    keep = keep_blocks(torch.tensor([[[[0.7, 0.71]]]]), (2, 4), 0.7)
    assert keep[0, 0].tolist() == [[False, False, True, True]] * 2
