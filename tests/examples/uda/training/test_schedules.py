"""Schedules at the points where they are known."""

from __future__ import annotations

import pytest
from uda.settings import Settings
from uda.training.optimizers import poly, rate_factor, warmup_apart, warmup_factor


def test_poly() -> None:
    assert poly(0, 100) == 1.0
    assert poly(50, 100, power=1.0) == 0.5
    assert poly(75, 100, power=2.0) == 0.0625
    assert poly(100, 100) == poly(150, 100) == 0.0


def test_warmup() -> None:
    assert warmup_factor(0) == pytest.approx(1e-6)
    assert warmup_factor(750) == pytest.approx(0.5, rel=1e-5)
    assert warmup_factor(1500) == warmup_factor(9999) == 1.0
    assert warmup_factor(0, warmup=0) == 1.0


def test_warmup_scales_the_decayed_rate() -> None:
    settings = Settings(pretrain_iterations=0, iterations=3000, warmup=1500, schedule_power=1.0)
    assert rate_factor(750, settings) == pytest.approx(0.75 * 0.5, rel=1e-5)
    assert rate_factor(2250, settings) == 0.25
    rates = [rate_factor(step, settings) for step in range(3000)]
    assert max(rates) == rates[1500]


def test_warmup_apart() -> None:
    assert warmup_apart(0, 40_000) == 1e-3
    assert warmup_apart(1499, 40_000) == 1.0
    assert warmup_apart(1500, 40_000) == pytest.approx(1 - 1500 / 40_000)
    assert warmup_apart(40_000, 40_000) == 0.0
    assert warmup_apart(0, 10, warmup=0) == 1.0
    assert warmup_apart(0, 10, warmup=1) == 1e-3
