"""Differences paired by seed, their mean and its 95 % interval of Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom
QUANTILES = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131]


@dataclass(frozen=True)
class Paired:
    """seeds: those that both arms have, ascending. differences: a - b of each. half: of the interval, NaN for n < 2."""

    seeds: list[Any]
    differences: list[float]
    mean: float
    half: float

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half


def paired(a: Mapping[Any, float], b: Mapping[Any, float]) -> Paired:
    """a - b over the seeds (or whatever names a run) that both have; NaN where there are too few."""
    seeds = sorted(a.keys() & b.keys())
    differences = [a[seed] - b[seed] for seed in seeds]
    n = len(seeds)
    mean = statistics.mean(differences) if n else math.nan
    half = QUANTILES[n - 2] * statistics.stdev(differences) / math.sqrt(n) if n > 1 else math.nan
    return Paired(seeds, differences, mean, half)
