"""Runs of the trainers' scripts for the table of faults: started, waited for, and what is left of them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ENDED = "it went on to its end"  # of a run whose status is 0, as it should be
LIMIT = 90.0  # seconds after which a process counts as hung


Provoke = Callable[[Any], "Outcome"]  # gets a Place


@dataclass
class Outcome:
    """What a fault led to: the last line that was said, exit status, seconds until all processes were gone."""

    line: str
    status: int
    seconds: float
    kept: str
    left: int  # processes that outlived the run
    from_start: bool  # whether the seconds are counted from the start of the command

    def keeping(self, kept: str) -> Outcome:
        return dataclasses.replace(self, kept=kept)


@dataclass
class Fault:
    group: str
    what: str
    provoke: Provoke


FAULTS: list[Fault] = []


def fault(group: str, what: str) -> Callable[[Provoke], Provoke]:
    """Adds a function to the table under this description."""

    def add(provoke: Provoke) -> Provoke:
        FAULTS.append(Fault(group, what, provoke))
        return provoke

    return add


class Started:
    """A script that runs, in a session of its own."""

    def __init__(self, words: list[str], place: Any, folder: Path, **options: Any) -> None:
        self.folder, self.data, self.place = folder, place.root / "scenes", place
        self.log = place.root / f"log{len(list(place.root.glob('log*')))}"
        environment = place.environment | options.pop("environment", {})
        self.process = subprocess.Popen(
            words,
            stdout=self.log.open("ab"),
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=place.root,
            start_new_session=True,
            **options,
        )
        self.others: list[Started] = []
        self.since, self.from_start = time.monotonic(), True

    def until(self, happened: Callable[[], bool] | None = None, steps: int = 0) -> Started:
        """Waits until something is so, or so many steps are logged; from then on time counts."""
        while not (happened() if happened else lines(self.folder) >= steps):
            if self.process.poll() is not None or time.monotonic() > self.since + LIMIT:
                raise RuntimeError(f"ended before its fault:\n{self.said()}")
            time.sleep(0.01)
        self.since, self.from_start = time.monotonic(), False
        return self

    def session(self) -> list[int]:
        """The processes of its session (of all, where several were started)."""
        sessions, found = {self.process.pid, *(other.process.pid for other in self.others)}, []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z" and int(fields[3]) in sessions:
                found.append(int(path.parent.name))
        return found

    def children(self) -> list[int]:
        return [pid for pid in self.session() if pid != self.process.pid]

    def ranks(self) -> list[int]:
        """The processes of a run of two, in order."""
        if self.others:
            return [self.process.pid, *(other.process.pid for other in self.others)]
        found = {}
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                words = dict(word.split("=", 1) for word in path.read_text().split("\0") if "=" in word)
                parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent == self.process.pid and "RANK" in words:
                found[int(words["RANK"])] = int(path.parent.name)
        return [found[rank] for rank in sorted(found)]

    def signal(self, number: int, group: bool = False) -> None:
        self.since, self.from_start = time.monotonic(), False
        (os.killpg if group else os.kill)(self.process.pid, number)

    def wait(self) -> int:
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            return 124

    def said(self) -> str:
        return self.log.read_text(errors="replace").replace("\r", "\n")

    def outcome(self) -> Outcome:
        statuses = [run.wait() for run in (self, *self.others)]
        deadline = time.monotonic() + LIMIT
        while (left := self.session()) and time.monotonic() < deadline and self.process.poll() is not None:
            if time.monotonic() > self.since + 30:
                break
            time.sleep(0.02)
        seconds = time.monotonic() - self.since
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        logs = [run.said() for run in (self, *self.others)]
        told = sorted(map(last_line, logs), key=lambda line: "error: " not in line and "interrupted" not in line)
        said = re.sub(r"python \S*examples/", "python examples/", told[0].replace(str(self.place.root), "…"))
        status = next((status for status in statuses if status > 0), statuses[0])
        return Outcome(said, status, seconds, kept(self.folder), len(left), self.from_start)


def last_line(log: str) -> str:
    """What the run says of its end; tables of torchrun and progress bars are not it."""
    rows = [line.strip() for line in log.splitlines() if line.strip()]
    if any("Traceback" in row for row in rows) and any("/examples/" in row for row in rows if row.startswith("File")):
        return "TRACEBACK: " + rows[-1]
    told = [row for row in rows if "error: " in row or "interrupted" in row or "asked to stop" in row or "using" in row]
    return (told or [row for row in rows if "%|" not in row] or [""])[0 if told else -1]


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def kept(folder: Path) -> str:
    """Whether what the run has written before can be used."""
    if not folder.exists():
        return "no folder was made"
    text = (folder / "metrics.jsonl").read_text() if lines(folder) else ""
    rows = [json.loads(line) for line in text.splitlines() if line.endswith("}")]  # the last can be torn
    found = []
    for name in ("checkpoint.pt", "checkpoint-previous.pt"):
        try:
            found.append(f"{name} of step {torch.load(folder / name, weights_only=True)['step']}")
        except Exception as error:
            found.append("" if isinstance(error, FileNotFoundError) else f"{name} damaged before")
    rest = [path.name for path in folder.glob("*.tmp")]
    return "; ".join(filter(None, [*found, f"{len(rows)} lines of metrics", *(f"LEFT: {name}" for name in rest)]))
