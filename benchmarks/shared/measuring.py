"""Seconds of a part of a program, and the memory of its process."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def timed(part: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """How long a part takes, and what it returns."""
    start = time.perf_counter()
    result = part()
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()  # cuda, mps or xpu
    return time.perf_counter() - start, result


def peak_memory(device: torch.device) -> float:
    """Bytes at this process's peak: allocated on CUDA, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would start from the peak of the process that started this one
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
