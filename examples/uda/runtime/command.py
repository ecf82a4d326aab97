"""How scripts end: one line for expected errors, a status, and no process that hangs."""

from __future__ import annotations

import errno
import faulthandler
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import torch

from .output import print_without_errors
from .processes import stop_processes
from .workers import why_killed

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_MEMORY = ("can't allocate memory", "can't start new thread")
# what gloo says of a process that is gone, and NCCL
GONE = (
    "Connection closed by peer",
    "Connection reset",
    "ncclRemoteError",
    "remote process exited",
    "NCCL communicator was aborted",
    "Watchdog caught collective operation timeout",
)
LEAVE, LEAVE_DONE = 8.0, 60.0  # seconds that the interpreter has to end, after an error and after success
TRACEBACK = "--traceback"  # scripts take it as an option


def command(main: Callable[[], Any]) -> NoReturn:
    """Runs a script's `main` and exits: with its result where that is an int, 0 where it is another, 1 after errors.

    What can be expected to go wrong (settings, files, a full disk, memory, another process) is said in one line, the
    rest, and with --traceback everything, with its traceback.
    """
    print_without_errors()
    warnings.formatwarning = warning_line
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    status: Any = 1
    try:
        result = main()
        stop_processes()
        status = result if isinstance(result, int) else 0
    except SystemExit as leaving:
        status = leaving.code
    except KeyboardInterrupt as error:
        status = f"interrupted{notes(error)}"
    except Exception as error:
        line = explained(error)
        if line and TRACEBACK not in sys.argv:
            status = f"error: {line}{notes(error)} ({TRACEBACK} shows the rest)"
        else:
            traceback.print_exc()
            status = f"error: {line or repr(error)}{notes(error)}"
    if isinstance(status, str):
        rank = f"\nprocess {os.environ['RANK']}: " if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""
        print(rank + status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # libraries join their threads and processes at the end; where that hangs, the process is ended all the same
    patience = LEAVE if status else LEAVE_DONE
    faulthandler.dump_traceback_later(patience, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115
    sys.exit(status)


def warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as scripts show it: of files and settings, so that the place in the code says nothing."""
    return f"warning: {' '.join(str(message).split())}\n"


def explained(error: BaseException) -> str:
    """An expected error in one line; empty for others."""
    message = in_one_line(error)
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{error.filename or 'a file'}: the disk is full ({error.strerror})"
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or any(words in message for words in NO_MEMORY):
        return f"out of memory; a smaller --batch-size or --crop needs less ({message})"
    if isinstance(error, RuntimeError) and any(words in message for words in GONE):
        return "another process of this run has ended; its own message says why"
    if isinstance(error, RuntimeError) and message.startswith("DataLoader worker"):
        return why_killed(message)
    return message if isinstance(error, ValueError | OSError | ImportError) else ""


def in_one_line(error: BaseException) -> str:
    """The message; of an error in a loader's process, what it was there."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or 'cannot be used').lower()}"
    text = str(error)
    if text.startswith("Caught ") and "DataLoader worker" in text:
        text = re.split(r"(?m)^ .*\n", text)[-1]  # behind the traceback, whose lines are indented
        text = text.partition(": ")[2] or text
    return " ".join(text.split())


def notes(error: BaseException) -> str:
    """What was noted with `note`."""
    return "".join(f"; {text}" for text in getattr(error, "__notes__", ()))


def note(error: BaseException, text: str) -> None:
    """Adds to what an error says, as `add_note` of Python 3.11 does."""
    vars(error)["__notes__"] = [*getattr(error, "__notes__", ()), text]
