from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from uda.runtime.meter import GIB, Meter

EXAMPLES = Path(__file__).parents[4] / "examples"


def test_pace_leaves_out_what_is_no_step(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    meter = Meter(torch.device("cpu"), images=8)
    for seconds in (1, 2, 2, 2):
        now[0] += seconds
        meter.tick()
    now[0] += 1000  # an evaluation
    meter.restart()
    now[0] += 2
    meter.tick()
    assert meter.values()["images/s"] == pytest.approx(4)


def test_pace_is_that_since_it_was_last_asked_for(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    meter = Meter(torch.device("cpu"), images=9)
    assert "images/s" not in meter.values()
    for every, pace in ((2, 4.5), (3, 3.0)):
        for _ in range(4):
            now[0] += every
            meter.tick()
        assert meter.values()["images/s"] == pytest.approx(pace)


def test_memory():
    """In a process of its own: the peak of this one may be that of an earlier test."""
    code = """
import torch
from uda.runtime.meter import GIB, memory_of, peak_memory
cpu = torch.device("cpu")
before = peak_memory(cpu)
held = torch.ones(GIB // 16)  # a quarter of a GiB
assert before + held.nbytes // 2 < peak_memory(cpu) < memory_of(cpu)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=EXAMPLES)


def test_on_a_gpu_the_peak_is_that_of_the_steps_since_it_was_last_asked_for(monkeypatch):
    """Not the first step's, in which cuDNN tries kernels, nor an evaluation's."""
    peak = [0.0]
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.__setitem__(0, 0.0))
    meter, seen = Meter(torch.device("cuda"), images=8), []
    for used in (70, 3, 4, None, 2):
        if used is None:
            peak[0] = 50 * GIB
            meter.restart()
            continue
        peak[0] = max(peak[0], used * GIB)
        meter.tick()
        if used == 4:
            seen.append(meter.values()["GiB"])
    assert [*seen, meter.values()["GiB"]] == [4, 2]
