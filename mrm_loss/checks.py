"""Checks of what MRM is built with; every error names the argument, what was expected and what came."""

from __future__ import annotations

import math
import operator
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def describe(value: Any) -> str:
    """A value as an error message shows it: tensors by dtype and shape, containers by what they hold."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        items = ", ".join(describe(item) for item in value)
        return f"a {type(value).__name__} of {len(value)}: ({items})"
    if isinstance(value, dict):
        return f"a {type(value).__name__} with keys {list(value)}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    return f"an object of type {type(value).__name__}"


def warn(message: str) -> None:
    """Warns at the line of the first caller outside this library and torch."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in ("mrm_loss", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def check_int(name: str, value: Any, minimum: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, (bool, Tensor)):
        raise TypeError(f"{name}: expected an int, got {describe(value)}")
    if number < minimum:
        raise ValueError(f"{name}: expected an int of at least {minimum}, got {number}")
    return number


def check_number(name: str, value: Any, minimum: float, *, above: bool = False) -> float:
    """A finite float of at least `minimum`, or greater than it where `above`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = None
    if number is None or isinstance(value, (bool, Tensor, str)):
        raise TypeError(f"{name}: expected a number, got {describe(value)}")
    if not math.isfinite(number) or number < minimum or (above and number == minimum):
        bound = "greater than" if above else "of at least"
        raise ValueError(f"{name}: expected a finite number {bound} {minimum:g}, got {number}")
    return number


def check_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {describe(value)}")
    return value


def check_ratio(name: str, value: Any) -> float:
    ratio = check_number(name, value, -math.inf)
    if not 0 < ratio < 1:
        raise ValueError(f"{name}: expected a number in (0, 1), got {ratio}")
    return ratio


def check_block_size(value: Any, grid: tuple[int, int]) -> int:
    side = check_int("block_size", value, 1)
    if side > max(grid):
        raise ValueError(f"block_size: expected at most {max(grid)} cells of the grid (cells, not pixels), got {side}")
    return side


def check_generator(value: Any) -> None:
    if not torch.compiler.is_compiling() and not isinstance(value, (torch.Generator, type(None))):
        raise TypeError(f"generator: expected a torch.Generator or None, got {describe(value)}")


def check_grid(name: str, value: Any) -> tuple[int, int]:
    """(rows, cols) of an int or of a pair of ints."""
    if isinstance(value, (list, tuple)):
        if len(value) != 2:
            raise ValueError(f"{name}: expected an int or (rows, cols), got {describe(value)}")
        return check_int(f"{name} rows", value[0], 1), check_int(f"{name} cols", value[1], 1)
    side = check_int(name, value, 1)
    return side, side


def check_channels(value: Any) -> tuple[list[int | None], int]:
    """Channels per level, fine to coarse, None for those that pass through; and the channels of the last level."""
    if isinstance(value, str) or not (isinstance(value, Sequence) or hasattr(value, "__index__")):
        raise TypeError(
            f"encoder_channels: expected an int, or a list or tuple of ints and None, got {describe(value)}"
        )
    if not isinstance(value, Sequence):
        only = check_int("encoder_channels", value, 1)
        return [only], only
    if not value:
        raise ValueError("encoder_channels: expected the channels of at least one level, got an empty sequence")
    channels = [None if c is None else check_int(f"encoder_channels[{i}]", c, 0) or None for i, c in enumerate(value)]
    last = channels[-1]
    if last is None:
        raise ValueError(
            "encoder_channels: expected the channels of the last (coarsest) level, which the tokens are made of, "
            f"got {describe(value)}"
        )
    return channels, last


def check_scale_factors(value: Any, channels: list[int | None]) -> list[int]:
    """Level rows / grid rows per level; the default halves from level to level."""
    levels = len(channels)
    if value is None:
        return [4] if levels == 1 else [2 ** (levels - 1 - level) for level in range(levels)]
    if isinstance(value, (str, Tensor)) or not isinstance(value, Sequence):
        value = [value]
    if len(value) != levels:
        raise ValueError(f"scale_factors: expected one int per level ({levels}), got {describe(value)}")
    # what is given for a level that passes through does not matter
    return [1 if c is None else check_int(f"scale_factors[{i}]", s, 1) for i, (s, c) in enumerate(zip(value, channels))]


def check_reduction(value: Any) -> str:
    if value not in ("mean", "valid"):
        raise ValueError(f'reduction: expected "mean" or "valid", got {describe(value)}')
    return str(value)
