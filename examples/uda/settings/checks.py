"""Whether settings fit their fields (types, choices, and the ranges beside their help) and each other."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch

from ..networks import DECODERS, OWN_ENCODERS, is_vit, known_encoder

NO_FILE = ("", "imagenet", "hub")  # weights that are named otherwise than by their file
FEATURE_DISTANCE = ("daformer", "hrda", "mic")  # the methods that hold features close to ImageNet's


def option(name: str) -> str:
    """A field's name as it is on the command line."""
    return f"--{name.replace('_', '-')}"


def check_fields(settings: Any) -> None:
    """Raises ValueError, in one line, at the first field of the dataclass that holds what it cannot.

    The line names the option, what was expected, and what came. Whole numbers pass as fractions, nothing as a truth
    value; numbers are finite.
    """
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value, kind = getattr(settings, field.name), hints[field.name]
        if not fits(value, kind, field.metadata):
            raise ValueError(f"{option(field.name)}: expected {expected(kind, field.metadata)}, got {shown(value)}")


def fits(value: Any, kind: Any, limits: Mapping[str, Any]) -> bool:
    """Whether a value is of a type (bool, int, float, str, a tuple of int, or None besides) and within its limits."""
    if is_optional(kind):
        return value is None or fits(value, get_args(kind)[0], limits)
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        return isinstance(value, tuple) and len(value) == len(kinds) and all(fits(v, int, limits) for v in value)
    if kind in (bool, str):
        return isinstance(value, kind) and (not limits["choices"] or value in limits["choices"])
    numbers = (int, float) if kind is float else int
    return isinstance(value, numbers) and not isinstance(value, bool) and within(value, limits)


def within(value: float, limits: Mapping[str, Any]) -> bool:
    low, high, above, below = (limits[name] for name in ("low", "high", "above", "below"))
    return (
        math.isfinite(value)
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def is_optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def expected(kind: Any, limits: Mapping[str, Any]) -> str:
    """What fits a field, in words, such as "a number above 0"."""
    kind = get_args(kind)[0] if is_optional(kind) else kind
    if kind is bool:
        return "true or false"
    if kind is str:
        return f"one of {', '.join(limits['choices'])}" if limits["choices"] else "text"
    if get_origin(kind) is tuple:
        what = f"{len(get_args(kind))} whole numbers ({' '.join(limits['names'])})"
    else:
        what = "a whole number" if kind is int else "a number"
    return f"{what} {range_of(limits)}".strip()


def range_of(limits: Mapping[str, Any]) -> str:
    """The range in words; empty where there is none."""
    low = "of at least" if limits["high"] is None else "from"
    words = {"low": low, "above": "above", "high": "to", "below": "below"}
    parts = [f"{word} {limits[name]:g}" for name, word in words.items() if limits[name] is not None]
    return " and ".join(parts).replace(" and to", " to")


def shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else repr(value)


def contradiction(settings: Any) -> str:
    """Which settings do not go together, or name a file that is not there, in words; empty where there are none."""
    cfg, uses_mrm = settings, settings.uses_mrm
    if bool(cfg.source) != bool(cfg.target):
        lacking, given = ("--target", "--source") if cfg.source else ("--source", "--target")
        return f"{lacking}: expected LAYOUT:PATH beside {given}, got none (neither of them: the embedded scenes)"
    for name in ("encoder_weights", "init"):
        path = getattr(cfg, name)
        if path not in NO_FILE and not Path(path).is_file():
            return f"{option(name)}: expected a file, found none at {path}"
    if cfg.mrm_on == "masked" and cfg.method != "mic":
        return "--mrm-on masked: only MIC has masked images; give --method mic"
    if cfg.fd_weight > 0 and cfg.method not in FEATURE_DISTANCE:
        return f"--fd-weight: {cfg.method} has no feature distance; give --method {', '.join(FEATURE_DISTANCE)}"
    if cfg.fd_weight > 0 and not cfg.encoder_weights:
        return "--fd-weight: expected --encoder-weights, ImageNet's, which features are held close to; or --fd-weight 0"
    if cfg.fd_weight > 0 and is_vit(cfg.encoder):
        return f"--fd-weight: the cells of {cfg.encoder} are no whole number of pixels; give --fd-weight 0"
    if 0 < cfg.eval_window < 32:  # the coarsest cells have 32 pixels
        return f"--eval-window: expected 0 for whole images, or at least 32 pixels, got {cfg.eval_window}"
    if cfg.lr == 0 and cfg.pretrain_iterations > 0:
        return "--lr: expected a number above 0 where there are steps of pretraining, got 0"
    if uses_mrm and not cfg.mrm_mask_only and (cfg.mrm_width % 4 or cfg.mrm_width % cfg.mrm_heads):
        return f"--mrm-width: expected a multiple of 4 and of --mrm-heads {cfg.mrm_heads}, got {cfg.mrm_width}"
    if uses_mrm and cfg.mrm_every > cfg.iterations:
        return f"--mrm-every: expected at most the {cfg.iterations} of --iterations, got {cfg.mrm_every}"
    if uses_mrm and cfg.mrm_block_size > max(cfg.mrm_grid):
        return f"--mrm-block-size: expected at most {max(cfg.mrm_grid)} cells of --mrm-grid, got {cfg.mrm_block_size}"
    return margins_cover_all(cfg) or not_here(cfg) or wrong_network(cfg)


def margins_cover_all(cfg: Any) -> str:
    """Margins that leave no pixel to trust, in words; those of images whose size is not set are left to the data."""
    size = cfg.target_size and (max(cfg.target_size),) * 2 if cfg.margins_of_image else cfg.crop  # frames are turned
    top, bottom, left, right = cfg.margins
    if size is None or cfg.method == "source-only" or (top + bottom < size[0] and left + right < size[1]):
        return ""
    name = "target_size" if cfg.margins_of_image else "crop"
    return f"--margins: expected less than {option(name)} {shown(getattr(cfg, name))}, got {shown(cfg.margins)}"


def not_here(cfg: Any) -> str:
    """What this machine or this torch does not have, in words; empty where there is all."""
    if cfg.compile and not hasattr(torch.compiler, "set_stance"):
        return f"--compile: expected torch 2.6 or later, got {torch.__version__}"
    cuda = cfg.device == "cuda" or (cfg.device == "auto" and torch.cuda.is_available())
    if cfg.sync_batchnorm and not cuda:
        return f"--sync-batchnorm: PyTorch has it on NVIDIA's GPUs alone, got --device {cfg.device} without one"
    return ""


def wrong_network(cfg: Any) -> str:
    """What is wrong with encoder, decoder and HRDA's crops, in words; empty where nothing is."""
    if not known_encoder(cfg.encoder):
        names = "a name of segmentation_models_pytorch such as mit_b5 or of timm such as vit_base_patch14_dinov2"
        return f"--encoder: expected small, or {names}, got {cfg.encoder!r}"
    if cfg.encoder in OWN_ENCODERS and cfg.encoder_weights not in NO_FILE:
        return f"--encoder-weights: {cfg.encoder} starts from random ones; leave them out"
    if is_vit(cfg.encoder) and cfg.decoder not in ("light", "daformer"):
        return f"--decoder: expected light or daformer with --encoder {cfg.encoder}, got {cfg.decoder!r}"
    if is_vit(cfg.encoder) and cfg.hrda:
        return f"--hrda: expected one resolution with the vision transformer {cfg.encoder}; give --no-hrda"
    if (cfg.encoder == "small") != (cfg.decoder == "small"):
        others = ", ".join(name for name in DECODERS if name != "small")
        wanted = "small" if cfg.encoder == "small" else f"one of {others}"
        return f"--decoder: expected {wanted} with --encoder {cfg.encoder}, got {cfg.decoder!r}"
    if cfg.encoder.startswith("mit_") and cfg.decoder.startswith("deeplab"):
        return (
            f"--decoder: expected daformer with --encoder {cfg.encoder}, which cannot be dilated, got {cfg.decoder!r}"
        )
    alone = cfg.batch_size == 1 and not cfg.sync_batchnorm
    if cfg.decoder == "deeplabv3plus" and alone:  # BatchNorm of one pooled pixel has no variance
        return "--batch-size: expected at least 2 images with --decoder deeplabv3plus, got 1"
    grid = 16 if cfg.decoder == "deeplabv2" else 8  # pixels per cell of HRDA's context
    for name in ("crop", "detail_crop") if cfg.hrda else ():
        sides = getattr(cfg, name)
        if any(side % grid for side in (sides if isinstance(sides, tuple) else (sides,))):
            return f"{option(name)}: expected multiples of {grid} pixels with --hrda, got {shown(sides)}"
    if cfg.hrda and cfg.detail_crop > min(cfg.crop):
        return f"--detail-crop: expected at most the shorter side of --crop {shown(cfg.crop)}, got {cfg.detail_crop}"
    return ""
