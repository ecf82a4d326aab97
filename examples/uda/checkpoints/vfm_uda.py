"""Released checkpoints of VFM-UDA (Lightning files) under this project's parameter names.

    state = read_weights_only("vfmuda_base_gta2city_771miou_step40000.ckpt")["state_dict"]
    network = build_network(**vfm_settings(state))
    dropped = load_vfm(network, state)

Neither Lightning nor VFM-UDA's code is needed.
"""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.files import read_tensors
from .released import load_strictly

_MODELS = {"student": "network.", "teacher": "network_ema."}

# VFM-UDA's name -> ours, the first that fits; DINOv2's own names are timm's
_RENAMES = {
    "encoder.mask_token": "encoder.mask_token",
    "encoder.": "encoder.body.",
    "upscale.": "decoder.upscale.",
    "out.": "decoder.classify.",
}
_AGAIN = "token_masking.mask_token"  # the encoder's under a second name, and the same tensor

# width and depth -> encoder
_VITS = {
    (384, 12): "vit_small_patch14_dinov2",
    (768, 12): "vit_base_patch14_dinov2",
    (1024, 24): "vit_large_patch14_dinov2",
}


class _LeftOut:
    """Stands for an object of a class that is not loaded."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read_weights_only(path: Path) -> Any:
    """What `read_tensors` reads, and files that hold objects of other classes besides, which come back empty.

    Lightning saves what a model was built with beside its weights.

    Raises:
        ValueError: the file is damaged, or what cannot be left out: PyTorch fills plain dicts and lists alone.
    """
    serialization: Any = torch.serialization
    names = []
    if zipfile.is_zipfile(path) and hasattr(serialization, "get_unsafe_globals_in_checkpoint"):  # torch 2.6 on
        with suppress(Exception):  # said when it is read
            names = sorted(serialization.get_unsafe_globals_in_checkpoint(path))  # a set of strings in a random order
    if not names:
        return read_tensors(path)
    try:
        with serialization.safe_globals([(_LeftOut, name) for name in names]):
            return read_tensors(path)
    except ValueError as error:
        held = f"it holds {', '.join(names)}; what is left out must not be a subclass of dict or list"
        raise ValueError(f"{error}; {held}") from error


def is_vfm(state_dict: dict[str, Tensor]) -> bool:
    """Whether it holds VFM-UDA's network with the light head."""
    return any(str(key).startswith("network.upscale.") for key in state_dict)


def vfm_settings(state_dict: dict[str, Tensor], which: str = "student") -> dict[str, Any]:
    """The arguments of `build_network` for the network that a state dict belongs to."""
    state, _ = from_vfm(state_dict, which)
    depth = len({key.split(".")[3] for key in state if key.startswith("encoder.body.blocks.")})
    width = state.get("encoder.body.norm.weight", torch.empty(0)).numel()
    head = state.get("decoder.classify.weight")
    if (width, depth) not in _VITS or head is None:
        known = ", ".join(f"{depth} of width {width}" for width, depth in _VITS)
        raise ValueError(f"state_dict: expected a DINOv2 encoder of {known}, got {depth} blocks of width {width}")
    return {"encoder": _VITS[width, depth], "decoder": "light", "num_classes": len(head)}


def from_vfm(state_dict: dict[str, Tensor], which: str = "student") -> tuple[dict[str, Tensor], list[str]]:
    """Pick one model out of a state dict and rename its parameters.

    Args:
        state_dict: the checkpoint's "state_dict".
        which: "student" (what VFM-UDA evaluates) or "teacher".

    Returns:
        state: our name -> tensor.
        dropped: names that are left out on purpose: those of other models.
    """
    prefix, state, dropped = _MODELS[which], {}, []
    for key, value in state_dict.items():
        if not key.startswith(prefix):
            dropped.append(key)
            continue
        name = key.removeprefix(prefix)
        if name == _AGAIN and torch.equal(value, state_dict.get(f"{prefix}encoder.mask_token", torch.empty(0))):
            continue
        start = next((start for start in _RENAMES if name.startswith(start)), None)
        state[name if start is None else _RENAMES[start] + name.removeprefix(start)] = value
    if not state:
        raise ValueError(f"state_dict: expected keys that start with {prefix!r} for the {which}, found none")
    return state, dropped


def load_vfm(network: nn.Module, state_dict: dict[str, Tensor], which: str = "student") -> list[str]:
    """Load one model of a state dict into a network, strictly; returns the names dropped on purpose.

    Raises:
        ValueError: a parameter of the network is missing, left over or of another shape; the message lists the first.
    """
    state, dropped = from_vfm(state_dict, which)
    load_strictly(network, state)
    return dropped
