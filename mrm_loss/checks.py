"""Checks of what MRM is built and called with; errors read "NAME: expected X, got Y"."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor


def describe(value: Any) -> str:
    """A value as an error message shows it: tensors by dtype and shape, containers by what they hold."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}: ({', '.join(describe(item) for item in value)})"
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


def check(fits: bool, name: str, expected: str, value: Any) -> None:
    if not fits:
        raise ValueError(f"{name}: expected {expected}, got {describe(value)}")


def check_int(name: str, value: Any, minimum: int = 1) -> int:
    if not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an int, got {describe(value)}")
    check(value >= minimum, name, f"an int of at least {minimum}", value)
    return int(value)


def check_masking(grid_size: Any, mask_ratio: float, block_size: int) -> tuple[int, int]:
    """Rows and columns of the grid."""
    pair = tuple(grid_size) if isinstance(grid_size, Iterable) else (grid_size, grid_size)
    check(len(pair) == 2, "grid_size", "an int or (rows, cols)", grid_size)
    rows, cols = (check_int("grid_size", side) for side in pair)
    check(isinstance(mask_ratio, Real) and 0 < mask_ratio < 1, "mask_ratio", "a number in (0, 1)", mask_ratio)
    most = max(rows, cols)
    check(check_int("block_size", block_size) <= most, "block_size", f"at most {most} cells of the grid", block_size)
    return rows, cols


def check_channels(value: Any) -> tuple[list[int | None], int]:
    """Channels per level, fine to coarse, None for those that pass through; and the channels of the last level."""
    given = list(value) if isinstance(value, Iterable) else [value]
    channels = [None if c is None else check_int(f"encoder_channels[{i}]", c, 0) or None for i, c in enumerate(given)]
    if not channels or channels[-1] is None:
        raise ValueError(
            f"encoder_channels: expected at least the channels of the last (coarsest) level, got {describe(value)}"
        )
    return channels, channels[-1]


def check_scale_factors(value: Any, channels: list[int | None]) -> list[int]:
    """Level rows / grid rows per level; the default halves from level to level."""
    levels = len(channels)
    if value is None:
        return [4] if levels == 1 else [2 ** (levels - 1 - level) for level in range(levels)]
    given = list(value) if isinstance(value, Iterable) else [value]
    check(len(given) == levels, "scale_factors", f"one int per level ({levels})", value)
    # what is given for a level that passes through does not matter
    return [1 if c is None else check_int(f"scale_factors[{i}]", s) for i, (s, c) in enumerate(zip(given, channels))]


def check_levels(feats: Any, channels: list[int | None], device: torch.device) -> list[Any]:
    """The levels of `feats` as a list, each known to be a (B, C, H, W) tensor unless it passes through."""
    if not isinstance(feats, (Tensor, list, tuple)):
        hint = "; give list(feats.values()), or the entry that holds the levels" if isinstance(feats, dict) else ""
        raise TypeError(
            f"feats: expected a tensor (B, C, H, W), or a list or tuple of them, got {describe(feats)}{hint}"
        )
    levels: list[Any] = [feats] if isinstance(feats, Tensor) else list(feats)
    if len(levels) != len(channels):
        raise ValueError(f"feats: expected {len(channels)} level(s) of {channels} channels, got {describe(feats)}")
    for i, (level, expected) in enumerate(zip(levels, channels)):
        if expected is None:
            continue
        if not isinstance(level, Tensor) or not level.is_floating_point():
            raise TypeError(f"feats[{i}]: expected a float tensor (B, {expected}, H, W), got {describe(level)}")
        if level.ndim != 4 or level.shape[1] != expected or 0 in level.shape[2:]:
            last = level.ndim == 4 and level.shape[3] == expected  # as timm's Swin returns them
            hint = "; channels come second: feats.permute(0, 3, 1, 2)" if last else ""
            raise ValueError(f"feats[{i}]: expected shape (B, {expected}, H, W), got {describe(level)}{hint}")
        if level.device != device:
            raise ValueError(
                f"feats[{i}]: expected a tensor on {device}, where the Rebuilder is, got one on {level.device}; "
                f"move it there: mrm.to({str(level.device)!r})"
            )
    if any(len(level) != len(levels[-1]) for level, c in zip(levels, channels) if c is not None):
        raise ValueError(f"feats: expected as many images in each level, got {describe(feats)}")
    return levels


def check_mask(mask: Any, batch_size: int, grid: tuple[int, int]) -> Tensor:
    shape = (batch_size, 1, *grid)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(
            f"mask: expected a bool tensor of shape {shape}, True = masked, got {describe(mask)} "
            "(a mask with 1 = keep, as in the authors' file, is given as mask == 0)"
        )
    if tuple(mask.shape) != shape:
        raise ValueError(f"mask: expected shape {shape} (batch, 1, grid rows, grid cols), got {tuple(mask.shape)}")
    return mask


def check_labels(name: str, labels: Any, logits: Tensor) -> Tensor:
    """Integer labels of the images of logits (B, K, h, w) as (B, H, W) of int64."""
    expected = "an integer tensor of class ids, (B, H, W) or (B, 1, H, W)"
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        hint = "; ids of logits are logits.argmax(1)" if isinstance(labels, Tensor) else ""
        raise TypeError(f"{name}: expected {expected}, got {describe(labels)}{hint}")
    ids: Tensor = labels[:, 0] if labels.ndim == 4 and labels.shape[1] == 1 else labels
    if ids.ndim != 3 or len(ids) != len(logits):
        raise ValueError(f"{name}: expected {expected}, of {len(logits)} image(s), got {describe(labels)}")
    if ids.device != logits.device:
        raise ValueError(f"{name}: expected a tensor on {logits.device}, as the logits, got one on {ids.device}")
    return ids.long()


def check_weights(name: str, weights: Any, labels: Tensor) -> Tensor | float:
    """Pixel weights that broadcast against labels (B, H, W); a number may stay on the CPU."""
    expected = "a finite number >= 0, or a float tensor (B, H, W), (B, 1, H, W) or (B, 1, 1)"
    if isinstance(weights, (int, float)):
        check(0 <= weights < math.inf, name, expected, weights)
        return weights
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        raise TypeError(f"{name}: expected {expected}, got {describe(weights)}")
    per_pixel: Tensor = weights[:, 0] if weights.ndim == 4 and weights.shape[1] == 1 else weights
    fits = per_pixel.ndim == 3 and all(w in (1, n) for w, n in zip(per_pixel.shape, labels.shape))
    if per_pixel.ndim != 0 and not fits:
        raise ValueError(f"{name}: expected {expected}, for labels {tuple(labels.shape)}, got {describe(weights)}")
    if per_pixel.ndim != 0 and per_pixel.device != labels.device:
        raise ValueError(f"{name}: expected a tensor on {labels.device}, as the labels, got one on {per_pixel.device}")
    return per_pixel


def check_logits(logits: Any, batch_size: int) -> Tensor:
    expected = "decoder_fn: expected it to return one float tensor of logits (B, K, h, w)"
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        hint = ""
        if isinstance(logits, (dict, list, tuple)):
            entries = dict(logits if isinstance(logits, dict) else enumerate(logits))
            key = next((key for key, value in entries.items() if isinstance(value, Tensor)), next(iter(entries), 0))
            entry = f'["{key}"]' if isinstance(key, str) else f"[{key!r}]"
            hint = f"; wrap it:\n    def decoder_fn(feats):\n        return decoder(feats){entry}"
        raise TypeError(f"{expected}, got {describe(logits)}{hint}")
    if logits.ndim != 4 or logits.shape[0] != batch_size:
        raise ValueError(f"{expected} with B={batch_size}, got {describe(logits)}")
    if logits.shape[1] < 2:
        raise ValueError(
            f"{expected} with K > 1, got {describe(logits)}: cross-entropy over one class is always 0; for a binary "
            "mask return torch.cat([torch.zeros_like(logits), logits], dim=1)"
        )
    return logits


def check_values(labels: Tensor, weights: Tensor | float, num_classes: int, ignore_index: int) -> None:
    """Reads label ids and weights (on an accelerator: waits for it) and names those that are wrong."""
    valid = labels != ignore_index
    wrong = valid & ((labels < 0) | (labels >= num_classes))
    if bool(wrong.any()):
        ids = labels[wrong].unique().tolist()
        shown = ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
        raise ValueError(
            f"pseudo_labels: expected ids in [0, {num_classes}), as many as the decoder returns classes, or "
            f"ignore_index={ignore_index}, got {shown}"
        )
    if isinstance(weights, Tensor) and bool((valid & ~((weights >= 0) & weights.isfinite())).any()):
        raise ValueError("pixel_weights: expected finite numbers >= 0 at the pixels that are not ignored, got others")


def warn_if_cut(feats: Any, rebuilt: list[Any], logits: Tensor) -> None:
    """Warns where gradients will not arrive at the features, or at some of the levels rebuilt from them."""
    levels = [feats] if isinstance(feats, Tensor) else feats
    used = [i for i, (level, new) in enumerate(zip(levels, rebuilt)) if new is not level]  # does not pass through
    if not any(levels[i].requires_grad for i in used):
        warn(
            "feats: none of the features requires a gradient (the teacher's, or detached?), so the loss does not "
            "reach the encoder; give the student's features"
        )
    nodes = {i: rebuilt[i].grad_fn for i in used if rebuilt[i].requires_grad}
    seen: set[Any] = set()
    to_visit: list[Any] = [logits.grad_fn]
    while to_visit:  # a walk through the decoder's graph
        node = to_visit.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if node not in nodes.values():  # what lies behind the features is the encoder's
                to_visit += [following for following, _ in node.next_functions]
    missed = [i for i, node in nodes.items() if node not in seen]
    if missed and len(missed) == len(nodes):
        warn(
            "decoder_fn: no gradient gets from its logits to the rebuilt features (no_grad, or detached?), so the "
            "loss trains neither encoder nor Rebuilder; to freeze a decoder use decoder.requires_grad_(False)"
        )
    elif missed:
        warn(
            f"decoder_fn: its logits do not depend on level(s) {', '.join(map(str, missed))} of feats, rebuilt in "
            "vain; give None for them in encoder_channels (it saves computing, and DistributedDataParallel stops "
            "at parameters that get no gradient)"
        )
