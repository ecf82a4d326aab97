"""What a run costs: images per second and memory at its peak."""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from pathlib import Path

import torch

GIB = 2**30


class Meter:
    """Pace and memory of a loop: call `tick` at the end of each step, `restart` after what is no step.

    Args:
        device: whose memory counts.
        images: of both domains and all processes in a step.
        period: steps after which long and short ones come again in the same order.
        window: steps that the pace is taken over; their median, so that a slow one now and then does not count (of
            several kinds of steps each its own, so that this holds for periods well below the window).
    """

    def __init__(self, device: torch.device, images: int, period: int = 1, window: int = 50) -> None:
        self.device, self.images, self.period = device, images, period
        self.seconds: deque[float] = deque(maxlen=window)
        self.last: float | None = None

    def tick(self) -> None:
        if self.last is None:
            return self.restart()
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now

    def restart(self) -> None:
        """What went by since the last step was not one: an evaluation, a checkpoint; or there was none before."""
        self.last = time.perf_counter()
        forget_peak(self.device)

    def step_seconds(self) -> float:
        """The mean over the steps of a period of what each takes in the median."""
        seconds = list(self.seconds)
        kinds = (seconds[i :: self.period] for i in range(min(self.period, len(seconds))))
        return statistics.mean(map(statistics.median, kinds))

    def values(self) -> dict[str, float]:
        """Images per second, from the second step on, and peak memory in GiB (on CUDA since it was last asked for)."""
        pace = {"images/s": self.images / self.step_seconds()} if self.seconds else {}
        memory = peak_memory(self.device) / GIB
        forget_peak(self.device)
        return {**pace, "GiB": memory}


def in_short(values: dict[str, float]) -> dict[str, str]:
    """`Meter.values` for a progress bar."""
    return {name: f"{value:.3g}" for name, value in values.items()}


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
