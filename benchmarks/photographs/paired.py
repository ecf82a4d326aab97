"""Differences paired by seed, their mean and its 95 % interval of Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """seeds: those that both arms have, ascending. differences: a - b of each. half: of the interval, NaN for n < 2."""

    seeds: list[int]
    differences: list[float]
    mean: float
    half: float

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Paired:
    """a - b over the seeds that both have; NaN where there are too few."""
    seeds = sorted(a.keys() & b.keys())
    differences = [a[seed] - b[seed] for seed in seeds]
    n = len(seeds)
    mean = statistics.mean(differences) if n else math.nan
    half = t_quantile(n - 1) * statistics.stdev(differences) / math.sqrt(n) if n > 1 else math.nan
    return Paired(seeds, differences, mean, half)


def t_quantile(freedom: int, probability: float = 0.975) -> float:
    """The t below which Student's distribution holds this share, for whole degrees of freedom; by bisection."""
    if freedom < 1 or not 0.5 <= probability < 1:
        raise ValueError(f"expected freedom >= 1 and probability in [0.5, 1), got {freedom} and {probability}")
    low, high = 0.0, 1.0
    while t_share(high, freedom) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_share(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def t_share(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0: the finite sums of Abramowitz & Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    if freedom == 1:
        return 0.5 + angle / math.pi
    odd, sin, cos = freedom % 2, math.sin(angle), math.cos(angle)
    term = total = cos if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cos**2 * (k - 1) / k
        total += term
    within = 2 / math.pi * (angle + sin * total) if odd else sin * total
    return 0.5 + within / 2
