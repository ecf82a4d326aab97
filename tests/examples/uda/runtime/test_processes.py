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
