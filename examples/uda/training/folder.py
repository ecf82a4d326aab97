"""A run's folder: whose it is, and which lines of metrics.jsonl a resumed run keeps."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path
from typing import IO

from ..runtime.files import write_whole
from ..runtime.processes import rank_and_world
from ..settings import Settings

LOCK_WAIT = 5.0  # seconds; processes of a run that was killed may take that long to vanish


def make_folder(settings: Settings) -> Path:
    """The folder of this run; never one that another run has filled, even one that starts at the same moment.

    Raises:
        FileExistsError: --out names one that exists.
    """
    if settings.resume:
        return Path(settings.resume)
    if settings.out:
        folder = Path(settings.out)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise FileExistsError(
                f"{folder} exists; give another --out, or go on with it: {resuming(folder)}"
            ) from None
        return folder
    term = ("+mask-only" if settings.mrm_mask_only else "+mrm") if settings.uses_mrm else ""
    first = Path("runs") / f"{settings.method}{term}-seed{settings.seed}"
    folder, count = first, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            count += 1
            folder = first.with_name(f"{first.name}-{count}")


def lock(folder: Path) -> IO[str] | None:
    """Keeps others from going on with the same run at the same time, for as long as the returned file is open.

    None where the system has no such locks.

    Raises:
        FileExistsError: another process has the run.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        return None
    file = (folder / "lock").open("a+")
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.seek(0)
                owner = file.read().strip()
                file.close()
                raise FileExistsError(f"{folder}: is being trained by process {owner}; wait, or end that") from None
            time.sleep(0.1)
        except OSError:  # a file system without locks
            return file
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def resuming(folder: Path) -> str:
    """The words that go on with a run, to be copied into a shell."""
    return f"--resume {shlex.quote(str(folder))}"


def keep_metrics(path: Path, step: int, total: int) -> set[int]:
    """Drops the lines of metrics.jsonl that a run resumed at `step` writes again; returns the steps evaluated.

    Those are lines of later steps, one that a crash has torn, and of a run at its end those of the final evaluation,
    which is made again for the report.
    """
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if not isinstance(row, dict) or row.get("step", total + 1) > step:
            continue
        if step == total and row["step"] == total and "source" not in row:
            continue
        rows.append(row)
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
    return {row["step"] for row in rows if "miou_student" in row}


def other_processes(before: int | None, saved_batch: int, batch_size: int) -> str:
    """What it means that a run goes on with another number of processes; empty where it does not.

    Args:
        before: the checkpoint's number of processes, if it is known.
        saved_batch, batch_size: the checkpoint's --batch-size and today's.
    """
    now = rank_and_world()[1]
    if before in (None, now):
        return ""
    old, new = before * saved_batch, now * batch_size
    if old == new:
        return f"saved by {before} processes, goes on with {now}: the same {new} images of each domain per step"
    keep = f"--batch-size {old // now} --change batch-size keeps the batch, and every sample in it"
    return (
        f"saved by {before} processes, goes on with {now}: {new} images of each domain per step in place of {old}"
        + (f"; {keep}" if old % now == 0 else "")
    )
