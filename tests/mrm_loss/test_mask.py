import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrm_loss import random_mask
from mrm_loss.mask import move


@given(
    batch=st.integers(1, 3),
    rows=st.integers(1, 20),
    cols=st.integers(1, 20),
    block=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_blocks_are_masked_as_a_whole(batch, rows, cols, block, seed):
    block = min(block, max(rows, cols))
    mask = random_mask(batch, (rows, cols), 0.5, block, generator=torch.Generator().manual_seed(seed))
    assert mask.shape == (batch, 1, rows, cols)
    assert mask.dtype == torch.bool
    for top in range(0, rows, block):
        for left in range(0, cols, block):
            cells = mask[..., top : top + block, left : left + block].flatten(1)
            assert (cells == cells[:, :1]).all()


@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.9])
@pytest.mark.parametrize("block", [1, 2])
def test_share_of_masked_cells(ratio, block):
    mask = random_mask(4000, 16, ratio, block, generator=torch.Generator().manual_seed(1))
    draws = 4000 * (16 // block) ** 2
    assert mask.double().mean().item() == pytest.approx(ratio, abs=5 * (ratio * (1 - ratio) / draws) ** 0.5)


def test_images_and_cells_are_independent():
    mask = random_mask(20000, (1, 2), 0.4, generator=torch.Generator().manual_seed(2)).double().flatten(1)
    assert torch.corrcoef(mask.T)[0, 1].abs() < 0.03
    assert torch.corrcoef(torch.stack([mask[:-1, 0], mask[1:, 0]]))[0, 1].abs() < 0.03


def test_a_generator_leaves_the_global_rng_alone():
    before = torch.get_rng_state()
    first = random_mask(2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, random_mask(2, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_rng_draws_otherwise():
    torch.manual_seed(4)
    first = random_mask(2)
    assert not torch.equal(first, random_mask(2))
    torch.manual_seed(4)
    assert torch.equal(first, random_mask(2))


class Asked(torch.Tensor):
    """Takes down how it is asked to move, and stays where it is."""

    moves: tuple = ()

    def to(self, device, non_blocking=False):
        Asked.moves = (*Asked.moves, (device.type, non_blocking))
        return self


def test_copies_go_on_by_themselves_to_cuda_alone():
    Asked.moves = ()
    for device in ("cuda", "mps", "xpu", "cpu"):
        move(torch.zeros(2).as_subclass(Asked), torch.device(device))
    assert Asked.moves == (("cuda", True), ("mps", False), ("xpu", False), ("cpu", False))
