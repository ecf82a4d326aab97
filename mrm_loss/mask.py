"""Which cells of the token grid are masked (paper, section 3)."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor

from mrm_loss.checks import check_block_size, check_generator, check_grid, check_int, check_ratio


def random_mask(
    batch_size: int,
    grid_size: int | tuple[int, int] = 16,
    mask_ratio: float = 0.4,
    block_size: int = 1,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Masks each block of cells independently with probability `mask_ratio`, per image.

    Args:
        batch_size: number of images B.
        grid_size: rows and columns of the grid; an int means a square one.
        mask_ratio: probability of a block to be masked, in (0, 1).
        block_size: side of a block in cells (not pixels), at most that of the grid. Blocks at the lower and right
            border are cut where the grid ends.
        generator: draws the mask on its own device, from where it is moved to `device`; the global RNG of `device`
            if None.
        device: where the mask is returned.

    Returns:
        Bool tensor (B, 1, rows, cols), True = masked.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.
    """
    batch_size = check_int("batch_size", batch_size, minimum=0)
    grid = check_grid("grid_size", grid_size)
    mask_ratio = check_ratio("mask_ratio", mask_ratio)
    block_size = check_block_size(block_size, grid)
    check_generator(generator)
    return draw_mask(batch_size, grid, mask_ratio, block_size, generator, device)


def draw_mask(
    batch_size: int,
    grid_size: tuple[int, int],
    mask_ratio: float,
    block_size: int,
    generator: torch.Generator | None,
    device: torch.device | str | None,
) -> Tensor:
    """`random_mask` of arguments that were checked: compiled code must not look at their values."""
    rows, cols = grid_size
    size = (batch_size, 1, -(-rows // block_size), -(-cols // block_size))
    if generator is None:
        draws = torch.rand(size, device=device)
    else:
        draws = torch.rand(size, generator=generator, device=generator.device)
    masked = repeat(draws < mask_ratio, "b 1 r c -> b 1 (r i) (c j)", i=block_size, j=block_size)[..., :rows, :cols]
    return masked.to(device, non_blocking=masked.device.type == "cpu")  # from a CPU generator, without waiting
