"""Copies to a device: the training process goes on meanwhile on CUDA alone."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from uda.data.batches import Batch
from uda.runtime.devices import constant, to_device


class Asked(torch.Tensor):
    """Takes down how it was asked to move, and stays where it is."""

    moves: ClassVar[list[tuple[str, torch.dtype | None, bool]]] = []

    def to(self, device, dtype=None, non_blocking=False):
        self.moves.append((device.type, dtype, non_blocking))
        return self


@pytest.fixture
def moves():
    Asked.moves.clear()
    return Asked.moves


@pytest.mark.parametrize(("name", "goes_on"), [("cpu", False), ("mps", False), ("xpu", False), ("cuda", True)])
def test_only_cuda_copies_while_the_training_process_goes_on(moves, name, goes_on):
    x, device = torch.zeros(2).as_subclass(Asked), torch.device(name)
    to_device(x, device)
    to_device(x, device, torch.float16)
    Batch(x, x, x, x).to(device)
    assert moves == [(name, None, goes_on), (name, torch.float16, goes_on), *[(name, None, goes_on)] * 4]


def test_values_and_types_arrive():
    x = to_device(torch.arange(3), torch.device("cpu"), torch.float64)
    assert x.tolist() == [0.0, 1.0, 2.0] and x.dtype == torch.float64
    assert constant((1.0, 2.0), x).dtype == torch.float64
