"""What a run prints: streams that never end it, and how far a loop is: in a terminal a bar, else a line at times."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
EVERY = 30.0  # seconds between two lines where there is no terminal, as in SLURM's logs and CI


class Lasting:
    """A stream for text whose writes do not fail.

    Characters that its encoding lacks are written as escapes. Where nobody reads any more (`| head`, a closed terminal)
    or the disk of a log is full, text is lost, and the run that wrote it is not.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def print_without_errors() -> None:
    """Makes `print`, progress bars and warnings of this process unable to fail."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 (None where the shell has closed it)
        if not isinstance(stream, Lasting):
            setattr(sys, name, Lasting(stream))


class Progress:
    """Call `update` after each item; use it as a context manager.

    Args:
        total: items there are.
        done: of these before it begins.
        unit: what an item is called.
        leave: whether the bar stays in the terminal when it ends.
        silent: whether nothing is shown, as by all processes but the first.
    """

    def __init__(
        self, total: int, title: str = "", done: int = 0, unit: str = "it", leave: bool = True, silent: bool = False
    ) -> None:
        self.total, self.title, self.unit = total, title, unit
        self.first, self.done, self.told = done, done, done
        self.lines = not silent and not sys.stderr.isatty()
        self.figures: dict[str, str] = {}
        self.began = self.last = time.monotonic()
        hidden = silent or self.lines
        self.bar = tqdm(None, title, total, leave, initial=done, unit=unit, disable=hidden, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.close()
        if self.told > self.first and self.done > self.told:  # there were lines before
            self.tell()

    def update(self) -> None:
        self.done += 1
        self.bar.update()
        if self.lines and time.monotonic() - self.last >= EVERY:
            self.tell()

    def show(self, figures: Mapping[str, str]) -> None:
        """Figures that stand beside the bar, or in the next lines."""
        self.figures = dict(figures)
        self.bar.set_postfix(self.figures)

    def tell(self) -> None:
        """Prints a line of how far it is."""
        self.last, self.told = time.monotonic(), self.done
        each = (self.last - self.began) / (self.done - self.first)  # evaluations and checkpoints among them
        pace = f"{1 / each:.2f} {self.unit}/s" if each < 1 else f"{each:.2f} s/{self.unit}"
        left = tqdm.format_interval(each * (self.total - self.done))
        figures = "".join(f", {name}={value}" for name, value in self.figures.items())
        title = f"{self.title}: " if self.title else ""
        print(f"{title}{self.done}/{self.total}, {pace}, {left} left{figures}", file=sys.stderr, flush=True)


def progress(
    items: Iterable[T], total: int, title: str = "", unit: str = "it", leave: bool = True, silent: bool = False
) -> Iterator[T]:
    """The items, one after the other; see `Progress`."""
    with Progress(total, title, 0, unit, leave, silent) as bar:
        for item in items:
            yield item
            bar.update()


def say(text: str, file: Any = None) -> None:
    """Prints a line, above the bar where there is one; to standard output unless `file` is given."""
    file = file or sys.stdout
    tqdm.write(text, file=file)
    file.flush()  # a log holds it before what comes later to the other stream
