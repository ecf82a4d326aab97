"""Learning-rate schedules and block masks against mmcv's, DACS's and MIC's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity import Parity
from torch import Tensor
from uda.selftraining.mixing import keep_blocks
from uda.settings import Settings, preset_values
from uda.training.optimizers import poly, rate_factor, warmup_factor


def assert_rates(ours: list[float], stored: Tensor) -> None:
    np.testing.assert_allclose(ours, stored.numpy(), rtol=1e-9, atol=1e-18)


def test_schedules() -> None:
    parity = Parity("lr_schedules")
    steps = parity["iters"].tolist()
    settings = Settings(**preset_values("paper", "daformer"))
    for column, base in enumerate((6e-5, 6e-4)):
        linear = [base * rate_factor(step, settings) for step in steps]
        assert_rates(linear, parity["poly10warm_6e-5"][:, column])
        curved = [base * poly(step, 40000) * warmup_factor(step) for step in steps]
        assert_rates(curved, parity["poly09warm_6e-5"][:, column])
    for column, base in enumerate((2.5e-3, 2.5e-2)):
        floor = [1e-4 + (base - 1e-4) * poly(step, 40000, power=1.0) for step in steps]
        assert_rates(floor, parity["poly10_sgd_2.5e-3_min1e-4"][:, column])
    assert_rates([2.5e-4 * poly(step, 40000) for step in steps], parity["dacs_poly0.9_2.5e-4_max40000"])
    longer = [*steps, 100000, 249999]
    assert_rates([2.5e-4 * poly(step, 250000) for step in longer], parity["dacs_poly0.9_2.5e-4_max250000"])


@pytest.mark.parametrize("shape", [(1, 3, 256, 192), (2, 3, 256, 256), (2, 3, 96, 160)])
@pytest.mark.parametrize("ratio", [0.7, 0.5])
def test_block_mask(shape: tuple[int, ...], ratio: float) -> None:
    parity = Parity("mic_mask")
    name = "x".join(map(str, shape))
    draws = parity[f"rand.{name}"].float()
    rows, cols = round(shape[2] / 64), round(shape[3] / 64)
    assert [rows, cols] == parity.meta[f"grid.{name}"] == list(draws.shape[2:])
    mask = keep_blocks(draws, (shape[2], shape[3]), ratio)
    assert torch.equal(mask.long(), parity[f"mask.{name}.r{ratio}"])
