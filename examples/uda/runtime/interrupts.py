"""Requests to stop (Ctrl-C, SIGTERM)."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 10.0  # seconds that a request may wait for the end of a step
HASTE = 3.0  # seconds to leave in after a second request
GRACE = 25.0  # seconds; torchrun kills its processes 30 s after it has asked them to stop


class Interrupts:
    """Inside it a request to stop raises KeyboardInterrupt at once or, as `answering` says, is noted for later.

    A second one raises in any case. Where neither is answered in time, because the process hangs in a call that does
    not return (a lost file server, a process that no longer takes part), a thread ends the process.

    asked: whether there was a request.
    patience: seconds until the process is ended; raise it where steps take longer.
    farewell: tells what is said then.
    """

    def __init__(self) -> None:
        self.asked, self.deferred, self.patience = False, False, PATIENCE
        self.farewell: Callable[[], str] = lambda: "no answer to the request to stop in time: ended"

    def __enter__(self) -> Interrupts:
        # the system writes a signal's number there even while Python is held up in a call
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, self._note) for number in STOP}
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        os.close(self._write)
        self._watcher.join()
        os.close(self._read)

    @contextmanager
    def answering(self, later: bool) -> Iterator[None]:
        """Inside it the first request is only noted, where `later`; else it raises at once."""
        before, self.deferred = self.deferred, later
        try:
            yield
        finally:
            self.deferred = before

    def step_took(self, seconds: float, several: bool) -> None:
        """Raises the patience to what the end of such steps needs.

        Args:
            several: whether several processes agree on a request: it is noted at the end of the step, or of the next
                one, and read a step later.
        """
        needed = (3 if several else 2) * seconds
        if several and "TORCHELASTIC_RUN_ID" in os.environ:
            needed = min(needed, GRACE)
        self.patience = max(self.patience, needed)

    def answered(self) -> None:
        """The request is being answered: what is done for it may take its time, unless there is a second one."""
        os.write(self._write, b"\0")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.deferred:
            self.asked = True
            raise KeyboardInterrupt
        self.asked = True

    def _watch(self) -> None:
        """Ends the process where a request is not answered in time."""
        deadline, count = float("inf"), 0
        while True:
            wait = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
            if not select.select([self._read], [], [], wait)[0]:
                with suppress(OSError):  # nobody may read it
                    os.write(2, f"\n{self.farewell()}\n".encode(errors="backslashreplace"))
                os._exit(1)
            data = os.read(self._read, 64)
            if not data:
                return
            for byte in data:
                if byte == 0:
                    deadline = float("inf")
                elif byte in STOP:
                    count += 1
                    deadline = time.monotonic() + (self.patience if count == 1 else HASTE)
