"""Which cells of the token grid are masked (paper, section 3)."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor

from mrm_loss.checks import check_grid, check_int, check_ratio


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
        block_size: side of a block in cells. Blocks at the lower and right border are cut where the grid ends.
        generator: draws the mask on its own device, from where it is moved to `device`; the global RNG of `device`
            if None.
        device: where the mask is returned.

    Returns:
        Bool tensor (B, 1, rows, cols), True = masked.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.
    """
    batch_size = check_int("batch_size", batch_size, minimum=0)
    rows, cols = check_grid("grid_size", grid_size)
    mask_ratio = check_ratio("mask_ratio", mask_ratio)
    block_size = check_int("block_size", block_size, minimum=1)

    size = (batch_size, 1, -(-rows // block_size), -(-cols // block_size))
    draw_on = device if generator is None else generator.device
    masked = torch.rand(size, generator=generator, device=draw_on) < mask_ratio
    masked = repeat(masked, "b 1 r c -> b 1 (r i) (c j)", i=block_size, j=block_size)[..., :rows, :cols]
    return masked.to(device)
