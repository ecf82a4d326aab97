"""Several processes, as torchrun starts them: who am I, and sums over all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
BUCKET = 25 * 2**20  # bytes of gradients that are averaged at once, DistributedDataParallel's default
THREADS_END = 0.2  # seconds


def start_processes(device_name: str) -> torch.device:
    """Joins the processes that torchrun started, if it did; returns this one's device.

    Raises:
        ValueError: there is no such device here, or not one for each process.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device_name == "auto":
        device_name = "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if not there.get(device_name.partition(":")[0], False):
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise ValueError(f"--device: expected auto or one of those that are here ({found}), got {device_name!r}")
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device(device_name, local_rank) if device_name == "cuda" else torch.device(device_name)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        if device.type == "cuda":
            here, there_are = int(os.environ.get("LOCAL_WORLD_SIZE", local_rank + 1)), torch.cuda.device_count()
            if here > there_are:
                raise ValueError(f"--nproc-per-node: expected at most {there_are}, one process per GPU, got {here}")
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def stop_processes() -> None:
    """Leaves the other processes, and lets gloo's threads end their last work.

    They need the interpreter for that: one that goes away beneath them makes the process abort (torch 2.14).
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(THREADS_END)


def rank_and_world() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of every process's tensor, in place."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(x)
    return x


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of every process's tensor, in place."""
    return sum_over_ranks(x).div_(rank_and_world()[1])


def average_buffers(module: nn.Module) -> None:
    """Averages BatchNorm's statistics, which every process has from its own images: one network for all."""
    if rank_and_world()[1] > 1:
        for buffer in module.buffers():
            if buffer.is_floating_point():
                mean_over_ranks(buffer)


def any_of_ranks(flags: Tensor) -> Tensor:
    """Where a bool tensor is True in one of the processes at least; nothing is read back from the device."""
    return sum_over_ranks(flags.int()) > 0


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns in the first process, for all of them."""
    rank, world = rank_and_world()
    if world == 1:
        return make()
    value: list[Any] = [make() if rank == 0 else None]
    dist.broadcast_object_list(value)
    made: T = value[0]
    return made


def average_gradients(module: nn.Module) -> None:
    """Averages gradients over the processes, once per step, in buckets: all at once would double their memory.

    Every loss has its own backward and none touches every parameter, which DistributedDataParallel's bookkeeping is
    not made for; one explicit reduction serves all methods. Which parameters have a gradient depends on the step
    alone, so that the processes agree on it.
    """
    if rank_and_world()[1] == 1:
        return
    bucket: list[Tensor] = []
    for grad in [p.grad for p in module.parameters() if p.grad is not None]:
        bucket.append(grad)
        if sum(g.nbytes for g in bucket) >= BUCKET:
            average_bucket(bucket)
            bucket = []
    if bucket:
        average_bucket(bucket)


def average_bucket(grads: list[Tensor]) -> None:
    flat = mean_over_ranks(torch.cat([g.flatten() for g in grads]))
    for g, part in zip(grads, torch.split(flat, [g.numel() for g in grads])):
        g.copy_(part.view_as(g))
