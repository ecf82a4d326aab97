"""Reads the reference numbers in `tests/parity`: what they are says the README there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PARITY_DIR = Path(__file__).resolve().parents[1] / "parity"
FULL = np.uint64(2**32 - 1)


class Parity:
    """One parity file: its description, inputs, weights and stored results.

        parity = Parity("mit_b0_hash")
        images = parity.wave((2, 3, 128, 192), amp=2.0)
        parity.check("out.0", features[0])

    All tensors come in float64, rounded to float32 first, as the references had them.
    """

    def __init__(self, name: str) -> None:
        self.meta: dict[str, Any] = json.loads((PARITY_DIR / f"{name}.json").read_text())
        self.arrays = np.load(PARITY_DIR / f"{name}.npz")

    def __getitem__(self, key: str) -> Tensor:
        """A stored array, in full, as int64 or float64."""
        array = torch.from_numpy(np.asarray(self.arrays[key]))
        return array.double() if array.is_floating_point() else array.long()

    def wave(self, shape: tuple[int, ...], amp: float = 1.0, shift: float = 0.0) -> Tensor:
        """The inputs: amp * sin(p + shift + q * i) * cos(r * i)."""
        p, q, r = self.meta["constants"]["x"]
        i = np.arange(math.prod(shape), dtype=np.float64)
        return rounded(amp * np.sin(p + shift + q * i) * np.cos(r * i), shape)

    def cotangent(self, shape: tuple[int, ...], shift: float = 0.0) -> Tensor:
        """The weights of a sum whose gradient is compared: cos(p + shift + q * i)."""
        p, q = self.meta["constants"]["g"]
        return rounded(np.cos(p + shift + q * np.arange(math.prod(shape), dtype=np.float64)), shape)

    def weights(self, table: str = "weights", fill: str | None = None) -> dict[str, Tensor]:
        """State dict of a weight table under the official keys, without the entries that it skips."""
        entry = self.meta[table]
        return {key: self.weight(k, key, shape, fill or entry["fill"]) for k, key, shape in entry["filled_k_key_shape"]}

    def fill(self, state: dict[str, Tensor], fill: str) -> dict[str, Tensor]:
        """A state dict's floating entries replaced by the formula, counted in sorted order."""
        keys = sorted(key for key, value in state.items() if value.is_floating_point())
        filled = {key: self.weight(k, key, list(state[key].shape), fill) for k, key in enumerate(keys)}
        return {key: filled[key].to(value) if key in filled else value for key, value in state.items()}

    def weight(self, k: int, key: str, shape: list[int], fill: str) -> Tensor:
        """The k-th entry of a state dict: small around 0, or around 1 for norms' weights and variances."""
        n = math.prod(shape)
        base = self.base(fill, n, k)  # in [-1, 1]
        if len(shape) >= 2 and key.endswith("weight"):
            scale = 1.0 / math.sqrt(n / shape[0])  # the last bit of float32 depends on this order of operations
            value = (scale * math.sqrt(3.0) if fill == "hash" else scale) * base
        elif key.endswith("weight"):
            value = 1 + 0.1 * base
        elif key.endswith("running_var"):
            value = 1 + 0.2 * base * base
        else:
            value = 0.1 * base
        return rounded(value, tuple(shape))

    def base(self, fill: str, n: int, k: int) -> NDArray[np.float64]:
        constants = self.meta["constants"]
        if fill == "sin":
            a, b, c, d, m = constants["w"]
            i = np.arange(n, dtype=np.float64)
            return np.sin(a + b * k + c * i + d * i * (k % m))
        h = np.arange(n, dtype=np.uint64) * np.uint64(2654435761)
        h = (h + np.uint64(((k + 1) * 2246822519 + constants["hs"]) % 2**32)) & FULL
        for shift, factor in ((15, 2246822519), (13, 3266489917)):
            h ^= h >> np.uint64(shift)
            h = (h * np.uint64(factor)) & FULL
        h ^= h >> np.uint64(16)
        return 2 * h.astype(np.float64) / 2**32 - 1

    def check(self, key: str, tensor: Tensor, tol: float = 1e-9) -> float:
        """Asserts that the error is below `tol` of the reference's std (of a scalar: of its size) and returns it."""
        stored = self.arrays[key].astype(np.float64).ravel()
        about = self.meta["tensors"][key]
        if about.get("std") == 0.0 or tensor.numel() == 1:
            ours, stored, scale = np.array([tensor.double().item()]), stored[:1], abs(stored[0])
        else:
            ours = tensor.detach().double().flatten().numpy()[:: about["step"] or 1]
            scale = self.arrays[f"{key}.stats"][1] if f"{key}.stats" in self.arrays else stored.std()
        assert ours.shape == stored.shape, f"{key}: {ours.shape} values, expected {stored.shape}"
        error = float(np.abs(ours - stored).max() / max(scale, 1e-300))
        assert error < tol, f"{key}: off by {error:.1e} of the reference's spread, allowed {tol:.0e}"
        print(f"{key}: {error:.1e}")
        return error


def rounded(values: NDArray[np.float64], shape: tuple[int, ...]) -> Tensor:
    """In float64, rounded to float32."""
    return torch.from_numpy(values.astype(np.float32)).reshape(shape).double()


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
