from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from uda.runtime.meter import Meter, in_short

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
    assert in_short({"images/s": 4.0, "GiB": 1.2345}) == {"images/s": "4", "GiB": "1.23"}


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
