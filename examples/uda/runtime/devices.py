"""Copies to a device that the training process does not wait for, where that is safe, and constants, copied once."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# Elsewhere memory of the CPU can be given away before it is copied: on Apple's GPUs copies are silently wrong then
# (PyTorch's issues 139550 and 189690).
WITHOUT_WAITING = {"cuda"}


def to_device(x: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """x on the device; on a CUDA device the copy goes on while the training process does."""
    return x.to(device, dtype, non_blocking=device.type in WITHOUT_WAITING)


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """The values as a tensor (n,) with the dtype and on the device of `like`; to be read only, it is shared."""
    return _constant(values, like.dtype, like.device)


@lru_cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return to_device(torch.tensor(values, dtype=dtype), device)
