"""Which cells of the token grid are masked (paper, section 3)."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor

from mrm_loss.checks import check_masking


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
    if not torch.compiler.is_compiling():  # compiled code must not look at the numbers
        grid_size = check_masking(grid_size, mask_ratio, block_size)
    rows, cols = (grid_size, grid_size) if isinstance(grid_size, int) else grid_size
    size = (batch_size, 1, -(-rows // block_size), -(-cols // block_size))  # one draw per block
    if generator is None:
        draws = torch.rand(size, device=device)
    else:
        draws = torch.rand(size, generator=generator, device=generator.device)
        draws = draws if device is None else move(draws, torch.device(device))
    masked = draws < mask_ratio  # True = masked
    return repeat(masked, "b 1 r c -> b 1 (r i) (c j)", i=block_size, j=block_size)[..., :rows, :cols]


def move(x: Tensor, device: torch.device) -> Tensor:
    """`x` on `device`, without waiting for CUDA.

    Other devices are waited for: an MPS device that copies later copies memory that may be in other use by then, and
    says nothing (PyTorch issues 139550 and 189690).
    """
    return x.to(device, non_blocking=device.type == "cuda")
