"""Released checkpoints of DAFormer, HRDA and MIC (mmcv's files) and of VFM-UDA (Lightning's) under our names.

    state = read_weights_only(Path("iter_40000.pth"))["state_dict"]
    network = build_network(**released_settings(state))
    load_released(network, state)

None of mmcv, mmseg, Lightning and VFM-UDA's code is needed.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.files import load_strictly, read_tensors

# Where the networks are in a file: of mmcv, of VFM-UDA.
_PREFIXES = {"student": ("model.", "network."), "teacher": ("ema_model.", "network_ema.")}

# Official name -> ours, all tried in order.
_MMCV = [
    (r"^backbone\.", "encoder.body."),
    (r"^decode_head\.head\.", "decoder.head."),
    (r"^decode_head\.scale_attention\.", "decoder.attention."),
    (r"^decode_head\.", "decoder."),
    (r"\.embed_layers\.(\d+)\.proj\.", r".embed.\1."),
    (r"\.fuse_layer\.", ".fuse."),
    (r"\.fuse\.aspp_modules\.(\d+)\.", r".fuse.branches.\1."),
    (r"\.aspp_modules\.(\d+)\.conv\.", r".branches.\1."),
    (r"\.(depth|point)wise_conv\.", r".\1wise."),
    (r"\.conv_seg\.", ".classify."),
]
# DINOv2's own names are timm's.
_VFM = [
    (r"^encoder\.(?!mask_token)", "encoder.body."),
    (r"^upscale\.", "decoder.upscale."),
    (r"^out\.", "decoder.classify."),
]

# Blocks per stage and channels of the first -> encoder.
_MITS: dict[tuple[int, ...], str] = {
    (2, 2, 2, 2, 32): "mit_b0",
    (2, 2, 2, 2, 64): "mit_b1",
    (3, 4, 6, 3, 64): "mit_b2",
    (3, 4, 18, 3, 64): "mit_b3",
    (3, 8, 27, 3, 64): "mit_b4",
    (3, 6, 40, 3, 64): "mit_b5",
}
# Width and depth -> encoder.
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


def is_mmcv(state_dict: Mapping[str, Any]) -> bool:
    """Whether it holds a network of DAFormer's code base."""
    return any(".block1." in str(key) or "decode_head." in str(key) for key in state_dict)


def is_vfm(state_dict: Mapping[str, Any]) -> bool:
    """Whether it holds VFM-UDA's network."""
    return any(str(key).startswith(("network.", "network_ema.")) for key in state_dict)


def released_settings(state_dict: dict[str, Tensor], which: str = "student") -> dict[str, Any]:
    """The arguments of `build_network` for the network that a state dict belongs to."""
    state = from_released(state_dict, which)
    if is_vfm(state_dict):
        depth = len({key.split(".")[3] for key in state if key.startswith("encoder.body.blocks.")})
        width = state.get("encoder.body.norm.weight", torch.empty(0)).numel()
        weight = state.get("decoder.classify.weight")
        if (width, depth) not in _VITS or weight is None:
            known = ", ".join(f"{depth} of width {width}" for width, depth in _VITS)
            raise ValueError(f"state_dict: expected a DINOv2 encoder of {known}, got {depth} blocks of width {width}")
        return {"encoder": _VITS[width, depth], "decoder": "light", "num_classes": len(weight)}
    stages = [f"encoder.body.block{i}." for i in range(1, 5)]
    blocks = [len({key.split(".")[3] for key in state if key.startswith(stage)}) for stage in stages]
    encoder = _MITS.get((*blocks, len(state.get("encoder.body.norm1.weight", ()))))
    hrda = any(key.startswith("decoder.attention.") for key in state)
    head = "decoder.head." if hrda else "decoder."
    if encoder is None or f"{head}fuse.branches.0.conv.weight" not in state:
        raise ValueError(
            "state_dict: expected a MiT encoder with DAFormer's separable ASPP decoder, "
            f"got blocks {blocks} and names such as {next(iter(state))}"
        )
    classes, width = state[f"{head}classify.weight"].shape[:2]
    settings = {"encoder": encoder, "decoder": "daformer", "num_classes": classes, "embed_dim": width, "hrda": hrda}
    return settings | ({"attention_dim": state["decoder.attention.classify.weight"].shape[1]} if hrda else {})


def rename(key: str, renames: list[tuple[str, str]] = _MMCV) -> str:
    """Our name of an official parameter, without the prefix of the model it belongs to."""
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def from_released(state_dict: dict[str, Tensor], which: str = "student") -> dict[str, Tensor]:
    """Pick one network out of a released state dict: our name -> tensor.

    Args:
        state_dict: the checkpoint's "state_dict", or the file's content itself.
        which: "student" (what the papers evaluate) or "teacher". An mmcv file of a bare model holds one network, which
            is taken as whichever is asked for.

    Raises:
        ValueError: the file holds no such network, or a backbone that is not here.
    """
    vfm = is_vfm(state_dict)
    prefix = _PREFIXES[which][vfm]
    # DataParallel's "module." may stand before or behind the model's name
    keys = {re.sub(r"^(module\.)?((ema_|imnet_)?model\.)?(module\.)?", r"\2", key): key for key in state_dict}
    if not vfm and not any(new.startswith(("model.", "ema_model.")) for new in keys):
        prefix = ""
    chosen = {new.removeprefix(prefix): key for new, key in keys.items() if new.startswith(prefix)}
    if not chosen:
        raise ValueError(f"state_dict: expected keys that start with {prefix!r} for the {which}, found none")
    if vfm:
        again = chosen.get("token_masking.mask_token")  # the encoder's under a second name
        if again and torch.equal(state_dict[again], state_dict.get(f"{prefix}encoder.mask_token", torch.empty(0))):
            del chosen["token_masking.mask_token"]
        return {rename(name, _VFM): state_dict[key] for name, key in chosen.items()}
    if any(name.startswith("backbone.stem.") for name in chosen):
        raise ValueError(
            "state_dict: holds a ResNetV1c, whose three-convolution stem segmentation_models_pytorch's ResNets lack; "
            "checkpoints with MiT encoders can be read"
        )
    unknown = [name for name in chosen if not name.startswith(("backbone.", "decode_head."))]
    if unknown:
        raise ValueError(f"state_dict: expected names under backbone. and decode_head., got {unknown[:5]}")
    return {rename(name): state_dict[key] for name, key in chosen.items()}


def load_released(network: nn.Module, state_dict: dict[str, Tensor], which: str = "student") -> None:
    """Load one network of a released state dict, strictly.

    Raises:
        ValueError: a parameter of the network is missing, left over or of another shape.
    """
    load_strictly(network, from_released(state_dict, which), "state_dict does not fit the network")
