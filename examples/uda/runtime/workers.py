"""Processes that load data: they start by any of Python's methods, hand over batches, and end with their run."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import _utils

from .interrupts import STOP

SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps it
QUEUES = 2**20  # bytes, more than the locks of the workers' queues take
AHEAD = 2  # batches that each worker loads ahead
PATIENCE = 5.0  # seconds for a killed process to vanish
REMEDY = "--workers 0 needs none; a container gets more of it with docker run --shm-size=8g (or --ipc=host)"


def into_shared_memory(tensors: Collection[Tensor]) -> None:
    """Moves a batch's tensors, in place, to shared memory, through which a worker hands them over.

    The loader would do it by itself in a thread of the worker; an error there is lost, and the run would wait for the
    batch for ever. Raises OSError where there is too little of it, or the worker has too many files open.
    """
    try:
        for x in tensors:
            x.share_memory_()
    except (RuntimeError, OSError) as error:
        if os.strerror(errno.EMFILE) in str(error):
            raise OSError(
                f"too many open files; `ulimit -n 65536` allows more, --workers 0 needs less ({error})"
            ) from error
        size, free = sum(x.nbytes for x in tensors), free_shared_memory()
        left = f", {in_mib(free)} are left" if free is not None else ""
        raise OSError(f"shared memory is too small: a batch takes {in_mib(size)}{left}; {REMEDY} ({error})") from error


def check_shared_memory(free: int | None, workers: int, batch: int = 0) -> None:
    """Raises OSError where the batches that workers load ahead do not fit; a pause for an evaluation is when all do.

    Args:
        free: what `free_shared_memory` said before the workers of this process, one of several alike, were started.
        batch: bytes of a batch; 0: of a first one nothing is known yet.
    """
    if workers == 0 or free is None:
        return
    if free < QUEUES:
        raise OSError(f"shared memory is full: {in_mib(free)} are free; {REMEDY}")
    needed = batch * (AHEAD * workers + 1) * int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # and the one in use
    if needed > free:
        sizes = f"{workers} workers need {in_mib(needed)} for batches of {in_mib(batch)}, {in_mib(free)} are free"
        raise OSError(f"shared memory is too small: {sizes}; fewer --workers need less, {REMEDY}")


def free_shared_memory() -> int | None:
    """Bytes; None where the system has no such folder, or no limit."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return None
    return found.f_bavail * found.f_frsize if found.f_blocks else None


@contextmanager
def naming_killed(iterator: Any) -> Iterator[None]:
    """Around a loader's iterator: a batch whose worker was killed before the batch was fetched says so.

    By itself it would say that a connection was reset, or that a file of its own is missing.
    """
    try:
        yield
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        if not str(error).startswith("Caught "):  # what a worker that lives has raised
            for worker in getattr(iterator, "_workers", ()):
                worker.join(1.0)  # its end may come after its connection's
                if worker.exitcode:
                    reason = signal.strsignal(-worker.exitcode) if worker.exitcode < 0 else "an error of its own"
                    raise RuntimeError(f"DataLoader worker (pid {worker.pid}) was ended by: {reason}") from error
        raise


def why_killed(message: str) -> str:
    """What the loader's error means that says that a worker is gone."""
    if "Bus error" in message:  # a page of shared memory that could not be had
        return f"shared memory is too small; {REMEDY} ({message})"
    return (
        "a process that loads data was killed, often for want of memory: fewer --workers need less; "
        f"or of shared memory: {REMEDY} ({message})"
    )


def in_mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


@contextmanager
def starting_workers() -> Iterator[None]:
    """Inside it processes are started that requests to stop do not reach, not even the server of "forkserver"."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, STOP) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    finally:
        if held is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)


def start_worker(worker: int) -> None:
    """What a process that loads data does first; it goes on until its run says otherwise or is gone."""
    ignore_requests()
    end_with_parent()
    Queue._on_queue_feeder_error = staticmethod(end_at_once)  # type: ignore[attr-defined]


def ignore_requests() -> None:
    """Requests reach a run's whole group, and the run says itself when to stop."""
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)


def end_with_parent() -> None:
    """This process ends when the one that started it does, however that ends: a worker never outlives its run."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux" and os.getppid() == parent.pid:  # "forkserver" has a server in between
        libc: Any = ctypes.CDLL(None)
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; the thread has to wait for calls that hold the interpreter

    def end() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def end_at_once(error: BaseException, _: Any) -> None:
    """What the queue's thread calls where it cannot send a batch, for which the run would wait for ever."""
    if not isinstance(error, BrokenPipeError):  # then the run is gone
        print(f"a process that loads data could not send a batch: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def end_workers(iterator: Any) -> None:
    """Ends a loader's processes now, by force: they have nothing to save, and may hang in a file system.

    The loader would ask them through an event, and wait for ever where one was killed while it held the event's lock.

    Args:
        iterator: of a `DataLoader`; one without processes is left alone.
    """
    if not hasattr(iterator, "_workers"):
        return
    iterator._shutdown = True  # it must not ask them later either
    if iterator._worker_pids_set:  # else their end would be an error in this process
        _utils.signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
        iterator._worker_pids_set = False
    if hasattr(iterator, "_pin_memory_thread_done_event"):
        iterator._pin_memory_thread_done_event.set()
    for worker in iterator._workers:
        worker.kill()
    for worker in iterator._workers:
        worker.join(PATIENCE)
    for queue in iterator._index_queues:
        queue.cancel_join_thread()
        queue.close()
