"""Random numbers that depend on what they are for and not on what was drawn before.

A run that is resumed, has other losses switched on, or loads its data in other processes sees the same samples.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*key: int | str) -> int:
    """63 well mixed bits of a key such as (seed, "mask", step, sample)."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator of its own for a key."""
    return torch.Generator().manual_seed(seed_of(*key))


def uniform(gen: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """One number from [low, high)."""
    return low + (high - low) * torch.rand((), generator=gen, dtype=torch.float64).item()


@contextmanager
def own_rng(*key: int | str) -> Iterator[None]:
    """Inside it the global RNGs depend on the key alone; afterwards they are as they were before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(*key))
        yield
