"""Reads the reference numbers that `MRM_PARITY_DIR` holds (by default `shared/parity` beside the repository).

The folder is not part of this project: where it is absent, every test that asks for it is skipped.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

PARITY_DIR = Path(os.environ.get("MRM_PARITY_DIR", Path(__file__).resolve().parents[3] / "shared" / "parity"))


@cache
def _recipe() -> ModuleType:
    """The reading code that lies beside the data."""
    path = PARITY_DIR / "recipe.py"
    if not path.is_file():
        pytest.skip(f"no parity data: {path} is missing (set MRM_PARITY_DIR to the folder that holds it)")
    spec = importlib.util.spec_from_file_location("parity_recipe", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Parity:
    """One parity file: its description, inputs, weights and stored results.

        parity = Parity("mit_b0_hash")
        images = parity.wave((2, 3, 128, 192), amp=2.0)
        parity.check("out.0", features[0])

    All tensors come in float64, rounded to float32 first, as the references had them.
    """

    def __init__(self, name: str) -> None:
        self._recipe = _recipe()
        self.meta, self.arrays = self._recipe.load(name)

    def __getitem__(self, key: str) -> Tensor:
        """A stored array, in full, as int64 or float64."""
        array = torch.from_numpy(np.asarray(self.arrays[key]))
        return array.double() if array.is_floating_point() else array.long()

    def wave(self, shape: tuple[int, ...], amp: float = 1.0, shift: float = 0.0) -> Tensor:
        """The recipe's input formula."""
        out: Tensor = self._recipe.wave(self.meta["constants"], shape, amp, shift)
        return out.double()

    def cotangent(self, shape: tuple[int, ...], shift: float = 0.0) -> Tensor:
        """The recipe's weights of a sum whose gradient is compared."""
        out: Tensor = self._recipe.cotangent(self.meta["constants"], shape, shift)
        return out.double()

    def weights(self, table: str = "weights", fill: str | None = None) -> dict[str, Tensor]:
        """State dict of a weight table under the official keys, without the entries the recipe skips."""
        entry: dict[str, Any] = dict(self.meta[table])
        if fill is not None:
            entry["fill"] = fill
        return {key: value.double() for key, value in self._recipe.weights(self.meta, entry).items()}

    def fill(self, state: dict[str, Tensor], fill: str) -> dict[str, Tensor]:
        """A state dict's floating entries replaced by the recipe's formula, counted in sorted order."""
        keys = sorted(key for key, value in state.items() if value.is_floating_point())
        table = {"fill": fill, "filled_k_key_shape": [[k, key, list(state[key].shape)] for k, key in enumerate(keys)]}
        filled = self._recipe.weights(self.meta, table)
        return {key: filled[key].to(value) if key in filled else value for key, value in state.items()}

    def check(self, key: str, tensor: Tensor, tol: float = 1e-9) -> float:
        """Asserts that the error is below `tol` of the reference's std and returns it."""
        if self.meta["tensors"][key].get("std") == 0.0 or tensor.numel() == 1:  # a scalar: relative to its size
            value = self.arrays[key].astype(np.float64).ravel()[0]
            error = abs(tensor.double().item() - value) / max(abs(value), 1e-300)
            assert error < tol, f"{key}: relative error {error:.2e}, allowed {tol:.0e}"
        else:
            error = self._recipe.check(self.meta, self.arrays, key, tensor, tol)
        print(f"{key}: {error:.1e}")
        return float(error)


def quirk_labels(batch: int, height: int, width: int) -> Tensor:
    """The label map most parity files share, (B, 1, H, W): ((y//16)*5 + (x//24)*7 + b*3) % 19 with holes of 255."""
    b = torch.arange(batch).view(-1, 1, 1)
    y = torch.arange(height).view(1, -1, 1)
    x = torch.arange(width).view(1, 1, -1)
    labels = ((y // 16) * 5 + (x // 24) * 7 + b * 3) % 19
    hole = ((y * 7 + x * 3 + b) % 11 == 0) | ((y >= height - 20) & (x < width // 3))
    return labels.masked_fill(hole, 255).unsqueeze(1)


def quirk_weights(shape: tuple[int, ...]) -> Tensor:
    """The weight map most parity files share: clip(0.6 + 0.6 sin(0.4 + 0.0137 i), 0, 1), rounded to float32."""
    i = np.arange(int(np.prod(shape)), dtype=np.float64)
    values = np.clip(0.6 + 0.6 * np.sin(0.4 + 0.0137 * i), 0, 1).astype(np.float32)
    return torch.from_numpy(values).reshape(shape).double()
