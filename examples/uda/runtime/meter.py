"""What a run costs: images per second and memory at its peak."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

GIB = 2**30


class Meter:
    """Pace and memory of a loop: call `tick` at the end of each step, `restart` after what is no step.

    Args:
        device: whose memory counts.
        images: of both domains and all processes in a step.
    """

    def __init__(self, device: torch.device, images: int) -> None:
        self.device, self.images = device, images
        self.began, self.steps = 0.0, -1  # the first step, in which kernels are tried and compiled, does not count

    def tick(self) -> None:
        self.steps += 1
        if self.steps == 0:
            self.restart()

    def restart(self) -> None:
        """What went by since the last step was not one: an evaluation, a checkpoint."""
        self.began, self.steps = time.perf_counter(), 0
        forget_peak(self.device)

    def values(self) -> dict[str, float]:
        """Images per second and (on CUDA) the peak of memory in GiB since this was last asked for."""
        seconds = time.perf_counter() - self.began
        pace = {"images/s": self.images * self.steps / seconds} if self.steps > 0 else {}
        memory = peak_memory(self.device) / GIB
        self.restart()
        return {**pace, "GiB": memory}


def forget_peak(device: torch.device) -> None:
    """Starts `peak_memory` anew, on CUDA; elsewhere it stays that of the process.

    Where cuDNN sees sizes for the first time it tries kernels with as much memory as there is, 70 GiB and more, none of
    which training needs.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak: allocated on CUDA (see `forget_peak`), else resident in memory; 0 where that is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would start from the peak of the process that started this one
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_of(device: torch.device) -> int:
    """Bytes there are on the device; of the computer where it has none of its own."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    meminfo = Path("/proc/meminfo")
    return 1024 * int(meminfo.read_text().split()[1]) if meminfo.exists() else 0
