"""Devices by name."""

from __future__ import annotations

import pytest
import torch
from uda.runtime.processes import start_processes


def test_devices():
    assert start_processes("cpu") == torch.device("cpu")
    assert start_processes("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match=r"--device: expected auto or one of those that are here \(cpu.*, got 'gpu'"):
        start_processes("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="got 'cuda'"):
            start_processes("cuda")


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="--nproc-per-node: expected at most 1, one process per GPU, got 2"):
        start_processes("cuda")
