"""What is printed never ends a run, and in a log that is no terminal there is little of it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from uda.runtime import output
from uda.runtime.output import Lasting, Progress, progress, say

EXAMPLES = Path(__file__).resolve().parents[4] / "examples"
PROGRAM = """
import sys, warnings
sys.path.insert(0, sys.argv[1])
from uda.runtime.command import command
from uda.runtime.output import progress, say

def main():
    say("before")
    for _ in progress(range(3000), 3000, "stra\\u00dfe \\u6728"):
        print("\\u6728 \\U0001f6b2 \\udcff" * 20)
        print("to standard error", file=sys.stderr)
    warnings.warn("\\u6728")
    sys.stdout.flush()
    open(sys.argv[2], "w").write("the result")

command(main)
"""


def ended(tmp_path, redirect: str, **environment: str) -> tuple[int, str, bool]:
    """Status and standard error of a script whose output a shell sends elsewhere, and whether it came to its end."""
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [sys.executable, str(tmp_path / "program.py"), str(EXAMPLES), str(tmp_path / "result")]
    shell = ["bash", "-c", f'"$@" {redirect}; exit ${{PIPESTATUS[0]}}', "bash", *words]
    done = subprocess.run(shell, env=os.environ | environment, capture_output=True, timeout=120)
    return done.returncode, done.stderr.decode(errors="replace"), (tmp_path / "result").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a POSIX shell and /dev/full")
@pytest.mark.parametrize(
    "redirect",
    [
        "| head -n 1",  # a reader that goes away
        pytest.param("2>&1 | head -n 1", marks=pytest.mark.slow),
        "> /dev/full",  # a full disk
        pytest.param("> /dev/full 2>&1", marks=pytest.mark.slow),
        pytest.param(">&- 2>&-", marks=pytest.mark.slow),  # closed by the shell
    ],
)
def test_output_that_nobody_can_take(tmp_path, redirect):
    status, err, finished = ended(tmp_path, redirect)
    assert (status, finished) == (0, True), err
    assert "Traceback" not in err and "Exception ignored" not in err


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.slow),
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_characters_that_an_encoding_lacks(tmp_path, environment):
    status, err, finished = ended(tmp_path, "> /dev/null", **environment)
    assert (status, finished) == (0, True), err
    assert "UnicodeEncodeError" not in err


def test_such_characters_are_written_as_escapes():
    raw = io.BytesIO()
    stream = Lasting(io.TextIOWrapper(raw, encoding="cp1252"))
    print("straße 木", file=stream, flush=True)
    assert raw.getvalue() == "straße ".encode("cp1252") + b"\\u6728\n"
    assert stream.encoding == "cp1252"


class Clock:
    """Stands for time.monotonic."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(output.time, "monotonic", clock)
    return clock


def test_a_line_every_half_minute_where_there_is_no_terminal(clock, capsys):
    with Progress(2000, "run", done=1000) as bar:
        for step in range(1000):
            clock.now += 0.125
            bar.update()
            if step % 10 == 0:
                bar.show({"source": f"{step / 1000:.3f}", "images/s": "20"})
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 5
    assert lines[0] == "run: 1240/2000, 8.00 it/s, 01:35 left, source=0.230, images/s=20"
    assert lines[-1].startswith("run: 2000/2000, 8.00 it/s, 00:00 left")


@pytest.mark.parametrize(("seconds", "silent", "count"), [(0.02, False, 0), (20.0, False, 10), (20.0, True, 0)])
def test_what_takes_seconds_says_nothing(clock, capsys, seconds, silent, count):
    """Neither do other processes than the first."""
    for _ in progress(range(10), 10, "student", silent=silent):
        clock.now += 2 * seconds
    assert len(capsys.readouterr().err.splitlines()) == count


def test_the_line_of_a_slow_loop(clock, capsys):
    for _ in progress(range(3), 3, "drawing", unit="image"):
        clock.now += 40
    assert capsys.readouterr().err.splitlines()[0] == "drawing: 1/3, 40.00 s/image, 01:20 left"


def test_a_terminal_has_a_bar(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(2, "run") as bar:
        bar.update()
        bar.show({"source": "0.5"})
    assert "run:  50%" in terminal.getvalue()
    assert "source=0.5" in terminal.getvalue()


def test_what_is_said_beside_it(capsys):
    with Progress(2, "run"):
        say("step 1: mIoU 3")
        say("a problem", file=sys.stderr)
    assert capsys.readouterr() == ("step 1: mIoU 3\n", "a problem\n")
