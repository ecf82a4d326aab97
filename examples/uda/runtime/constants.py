"""Small constants, moved to a device once: a copy in each step would make the training process wait for the device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """The values as a tensor (n,) with the dtype and on the device of `like`; to be read only, it is shared."""
    return _constant(values, like.dtype, like.device)


@lru_cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
