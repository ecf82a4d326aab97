"""Learning-rate schedules as pure functions of the step: each returns the factor on the base rate.

    for group, base in zip(optimizer.param_groups, base_rates):
        group["lr"] = base * warmup_linear(step, total)

Sources: DAFormer (Hoyer et al., CVPR 2022) and its configuration; poly: DeepLabV2 (Chen et al., TPAMI 2018), as DACS;
VFM-UDA (Englert et al., CVPR workshops 2024), its code.
"""

from __future__ import annotations


def poly(step: int, total: int, power: float = 0.9) -> float:
    """(1 - step / total) ** power, for step = 0 ... total - 1; zero from `total` on."""
    if total < 1:
        raise ValueError(f"total must be at least 1 step, got {total}")
    return float(max(1.0 - step / total, 0.0) ** power)


def warmup_factor(step: int, warmup: int = 1500, ratio: float = 1e-6) -> float:
    """Linear growth from `ratio` at step 0 to 1 at step `warmup`; 1 from there on. No warm-up if `warmup` is 0."""
    if step >= warmup:
        return 1.0
    return 1.0 - (1.0 - step / warmup) * (1.0 - ratio)


def warmup_apart(step: int, total: int, warmup: int = 1500, power: float = 1.0, start: float = 1e-3) -> float:
    """VFM-UDA's: linear growth from `start` at step 0 to 1 at step `warmup` - 1, thereafter `poly`.

    As that counts from step 0 too, the rate drops from 1 to (1 - warmup / total) ** power after the warm-up.
    """
    if step >= warmup:
        return poly(step, total, power)
    return start + (1.0 - start) * step / (warmup - 1) if warmup > 1 else start


def warmup_linear(step: int, total: int, warmup: int = 1500, ratio: float = 1e-6) -> float:
    """Linear decay to zero at `total` times the warm-up, which scales the already decayed rate."""
    return poly(step, total, power=1.0) * warmup_factor(step, warmup, ratio)
