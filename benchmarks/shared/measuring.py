"""Seconds of a part of a program."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def timed(part: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """How long a part takes, and what it returns."""
    start = time.perf_counter()
    result = part()
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()  # cuda, mps or xpu
    return time.perf_counter() - start, result
