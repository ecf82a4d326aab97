"""Requests to stop: noted in a step, raised outside of it, and never without an answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from uda.runtime.interrupts import Interrupts

EXAMPLES = Path(__file__).resolve().parents[4] / "examples"


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)


def test_a_first_request_waits_and_a_second_does_not():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as stop, stop.answering(later=True):
        ask()
        assert stop.asked
        stop.answered()
        with pytest.raises(KeyboardInterrupt):
            ask()
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_of_steps_it_raises_at_once():
    with Interrupts() as stop:
        with pytest.raises(KeyboardInterrupt):
            ask()
        assert stop.asked
    with Interrupts() as stop, stop.answering(True), stop.answering(False), pytest.raises(KeyboardInterrupt):
        ask()


@pytest.mark.parametrize(
    ("hang", "signals"),
    [
        ("__import__('threading').Lock().acquire(); lock.acquire()", 1),  # in a call that no handler interrupts
        ("[time.sleep(1) for _ in range(60)]", 1),  # a step that is too long
    ],
)
def test_no_answer_ends_the_process(hang, signals):
    program = f"""
import sys, time, threading
sys.path.insert(0, {str(EXAMPLES)!r})
from uda.runtime.interrupts import Interrupts
lock = threading.Lock()
lock.acquire()
with Interrupts() as stop, stop.answering(later=True):
    stop.patience, stop.farewell = 0.3, lambda: "go on with --resume"
    print("ready", flush=True)
    {hang}
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "go on with --resume" in err


@pytest.mark.parametrize(("farewell", "heard"), [("in straße \\udcff", True), ("to nobody", False)])
def test_what_is_said_does_not_keep_the_process(farewell, heard):
    program = f"""
import sys, time
sys.path.insert(0, {str(EXAMPLES)!r})
from uda.runtime.interrupts import Interrupts
with Interrupts() as stop, stop.answering(later=True):
    stop.patience, stop.farewell = 0.3, lambda: "{farewell}"
    print("ready", flush=True)
    time.sleep(60)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stderr=pipe) as process:
        assert process.stdout.readline() == b"ready\n"
        if not heard:
            process.stderr.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 1
        assert not heard or "in straße \\udcff".encode() in process.stderr.read()


@pytest.mark.parametrize(
    ("seconds", "several", "torchrun", "patience"),
    [
        (1.0, False, False, 10.0),
        (6.0, False, False, 12.0),
        (6.0, True, False, 18.0),  # a request is noted in this step or the next, and read a step later
        (6.0, True, True, 18.0),
        (20.0, True, False, 60.0),
        (20.0, True, True, 25.0),  # torchrun kills at 30
    ],
)
def test_patience_is_that_of_the_steps(monkeypatch, seconds, several, torchrun, patience):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    stop = Interrupts()
    for took in (seconds, 0.1):
        stop.step_took(took, several)
    assert stop.patience == patience
