"""Checks of the tensors that MRM is called with; every error names the argument, what was expected and what came."""

from __future__ import annotations

from typing import Any, SupportsFloat

import torch
from torch import Tensor

from mrm_loss.checks import check_number, describe


def check_levels(feats: Any, channels: list[int | None]) -> list[Any]:
    """The levels of `feats` as a list, each known to be a (B, C, H, W) tensor unless it passes through."""
    if isinstance(feats, Tensor):
        levels: list[Any] = [feats]
    elif isinstance(feats, (list, tuple)):
        levels = list(feats)
    else:
        raise TypeError(
            f"feats: expected a tensor (B, C, H, W), or a list or tuple of them, got {describe(feats)}{_give(feats)}"
        )
    if len(levels) != len(channels):
        raise ValueError(
            f"feats: expected {len(channels)} level(s), as encoder_channels={channels} says, got {len(levels)}: "
            f"{describe(feats)}"
        )
    last = levels[-1]
    for i, (level, expected) in enumerate(zip(levels, channels)):
        if expected is None:
            continue
        if not isinstance(level, Tensor) or not level.is_floating_point():
            raise TypeError(
                f"feats[{i}]: expected a floating-point tensor (B, {expected}, H, W), got {describe(level)}"
            )
        if level.ndim != 4 or level.shape[1] != expected or 0 in level.shape[2:]:
            hint = ""
            if level.ndim == 4 and level.shape[3] == expected:
                hint = "; channels come second: feats.permute(0, 3, 1, 2)"
            elif level.ndim == 3 and level.shape[2] == expected:
                hint = f"; tokens become a map by feats.transpose(1, 2).reshape(B, {expected}, H, W)"
            raise ValueError(f"feats[{i}]: expected shape (B, {expected}, H, W), got {describe(level)}{hint}")
        if isinstance(last, Tensor) and (level.shape[0] != last.shape[0] or level.device != last.device):
            raise ValueError(
                f"feats[{i}]: expected the batch size and device of the last level "
                f"({last.shape[0]} on {last.device}), got {level.shape[0]} on {level.device}"
            )
    return levels


def _give(feats: Any) -> str:
    """What to give instead of a dict of features."""
    if not isinstance(feats, dict):
        return ""
    if "hidden_states" in feats:  # of the transformers library
        return "; give feats.hidden_states"
    if len(feats) == 1:
        return f"; give feats[{next(iter(feats))!r}]"
    return "; give list(feats.values())"


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


def check_labels(labels: Any, name: str = "pseudo_labels") -> Tensor:
    """Integer labels as (B, H, W) of int64."""
    expected = "an integer tensor of class ids, (B, H, W) or (B, 1, H, W)"
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name}: expected {expected}, got {describe(labels)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        hint = "; ids of logits are logits.argmax(1)" if labels.is_floating_point() else ""
        raise TypeError(f"{name}: expected {expected}, got {describe(labels)}{hint}")
    if labels.ndim == 4 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 3:
        raise ValueError(f"{name}: expected {expected}, got {describe(labels)}")
    ids: Tensor = labels.long()
    return ids


def check_weights(weights: Any, labels: Tensor, name: str = "pixel_weights") -> Tensor | float:
    """Pixel weights that broadcast against labels (B, H, W)."""
    expected = "a number >= 0, or a floating-point tensor (B, H, W), (B, 1, H, W), or (B, 1, 1)"
    if not isinstance(weights, Tensor):
        if isinstance(weights, bool) or not isinstance(weights, SupportsFloat) or hasattr(weights, "__array__"):
            raise TypeError(f"{name}: expected {expected}, got {describe(weights)}")
        return check_number(name, weights, 0)
    if not weights.is_floating_point():
        raise TypeError(f"{name}: expected {expected}, got {describe(weights)}; use weights.float()")
    per_pixel: Tensor = weights[:, 0] if weights.ndim == 4 and weights.shape[1] == 1 else weights
    fits = per_pixel.ndim == 3 and all(w in (1, n) for w, n in zip(per_pixel.shape, labels.shape))
    if per_pixel.ndim != 0 and not fits:
        raise ValueError(
            f"{name}: expected {expected}, for labels of shape {tuple(labels.shape)}, got {describe(weights)}"
        )
    return per_pixel


def check_device(name: str, tensor: Any, device: torch.device) -> None:
    """A number held on the CPU may stay there."""
    if isinstance(tensor, Tensor) and tensor.ndim > 0 and tensor.device != device:
        raise ValueError(f"{name}: expected a tensor on {device}, where the features are, got one on {tensor.device}")


def check_logits(logits: Any, batch_size: int) -> Tensor:
    expected = "one floating-point tensor of logits (B, K, h, w)"
    if not isinstance(logits, Tensor):
        hint = ""
        if isinstance(logits, (dict, list, tuple)):
            entry = '["out"]' if isinstance(logits, dict) else "[0]"
            hint = f"; wrap it:\n    def decoder_fn(feats):\n        return decoder(feats){entry}"
        raise TypeError(f"decoder_fn: expected it to return {expected}, got {describe(logits)}{hint}")
    if not logits.is_floating_point():
        raise TypeError(f"decoder_fn: expected it to return {expected}, got {describe(logits)}")
    if logits.ndim != 4 or logits.shape[0] != batch_size:
        raise ValueError(f"decoder_fn: expected it to return {expected} with B={batch_size}, got {describe(logits)}")
    if logits.shape[1] < 2:
        raise ValueError(
            f"decoder_fn: expected logits of at least 2 classes, got {describe(logits)}: cross-entropy over one class "
            "is always 0; for a binary mask return torch.cat([torch.zeros_like(logits), logits], dim=1)"
        )
    return logits


def check_values(labels: Tensor, weights: Tensor | float, num_classes: int, ignore_index: int) -> None:
    """Reads label ids and weights (on an accelerator: waits for it) and names those that are wrong."""
    valid = labels != ignore_index
    wrong = valid & ((labels < 0) | (labels >= num_classes))
    if bool(wrong.any()):
        ids = sorted(set(labels[wrong].tolist()))
        shown = ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
        raise ValueError(
            f"pseudo_labels: expected ids in [0, {num_classes}), as many as the decoder returns classes, or "
            f"ignore_index={ignore_index}, got {shown}"
        )
    if isinstance(weights, Tensor) and bool((valid & ~((weights >= 0) & weights.isfinite())).any()):
        raise ValueError("pixel_weights: expected finite numbers >= 0 at the pixels that are not ignored, got others")
