from __future__ import annotations

import time

import pytest
import torch
from uda.runtime.meter import GIB, Meter, in_short, memory_of, peak_memory


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
    cpu = torch.device("cpu")
    before = peak_memory(cpu)
    held = torch.ones(GIB // 16)  # a quarter of a GiB
    assert peak_memory(cpu) > before + held.nbytes // 2
    assert peak_memory(cpu) < memory_of(cpu)
