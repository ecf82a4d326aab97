"""Released checkpoints of DAFormer, HRDA and MIC (mmcv files) under this project's parameter names.

    saved = read_official("iter_40000.pth")
    network = build_network(**official_settings(saved))
    dropped = load_official(network, saved)

Neither mmcv nor mmseg is needed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..runtime.files import read_tensors

# Official name -> ours, tried in order on the part behind the model's prefix.
_RENAMES = [
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

# Models inside a self-training checkpoint, by prefix.
_MODELS = {"student": "model.", "teacher": "ema_model.", "imagenet": "imnet_model."}

# Blocks per stage and channels of the first -> encoder.
_MITS: dict[tuple[int, ...], str] = {
    (2, 2, 2, 2, 32): "mit_b0",
    (2, 2, 2, 2, 64): "mit_b1",
    (3, 4, 6, 3, 64): "mit_b2",
    (3, 4, 18, 3, 64): "mit_b3",
    (3, 8, 27, 3, 64): "mit_b4",
    (3, 6, 40, 3, 64): "mit_b5",
}


def read_official(path: str | Path) -> dict[str, Tensor]:
    """The state dict of an mmcv checkpoint, on the CPU; nothing but tensors and plain values is unpickled."""
    try:
        content = read_tensors(Path(path))
        state: dict[str, Tensor] = content.get("state_dict", content)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: expected a released checkpoint of DAFormer, HRDA or MIC; {error}") from error
    return state


def official_settings(state_dict: dict[str, Tensor], which: str = "student") -> dict[str, Any]:
    """The arguments of `build_network` for the network that an official state dict belongs to."""
    state, _ = from_official(state_dict, which)
    blocks = [
        len({key.split(".")[3] for key in state if key.startswith(f"encoder.body.block{i}.")}) for i in range(1, 5)
    ]
    first = state.get("encoder.body.norm1.weight", ())
    encoder = _MITS.get((*blocks, len(first)))
    hrda = any(key.startswith("decoder.attention.") for key in state)
    head = "decoder.head." if hrda else "decoder."
    if encoder is None or f"{head}fuse.branches.0.conv.weight" not in state:
        raise ValueError(
            "state_dict: expected a MiT encoder with DAFormer's separable ASPP decoder, "
            f"got blocks {blocks} and names such as {next(iter(state))}"
        )
    classes, width = state[f"{head}classify.weight"].shape[:2]
    settings = {"encoder": encoder, "decoder": "daformer", "num_classes": classes, "embed_dim": width, "hrda": hrda}
    if hrda:
        settings["attention_dim"] = state["decoder.attention.classify.weight"].shape[1]
    return settings


def rename(key: str) -> str:
    """Our name of an official parameter, without the prefix of the model it belongs to."""
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def from_official(state_dict: dict[str, Tensor], which: str = "student") -> tuple[dict[str, Tensor], list[str]]:
    """Pick one model out of an official state dict and rename its parameters.

    Args:
        state_dict: the checkpoint's "state_dict" (or the file's content itself), with or without the prefixes of the
            self-training wrapper: "model." student, "ema_model." teacher, "imnet_model." ImageNet encoder.
        which: "student" (what the papers evaluate), "teacher" or "imagenet". A file without these prefixes holds one
            model, which is taken as whichever is asked for.

    Returns:
        state: our name -> tensor.
        dropped: official names that are left out on purpose: the other models, and the loss weights or classifier
            of an ImageNet encoder.

    Raises:
        ValueError: the file holds no such model, or a backbone that is not here.
    """
    if which not in _MODELS:
        raise ValueError(f"which: expected one of {sorted(_MODELS)}, got {which!r}")
    keys = {re.sub(r"^module\.", "", key): key for key in state_dict}
    keys = {re.sub(r"^(model|ema_model|imnet_model)\.module\.", r"\1.", new): key for new, key in keys.items()}
    wrapped = any(new.startswith(tuple(_MODELS.values())) for new in keys)
    prefix = _MODELS[which] if wrapped else ""
    chosen = {new.removeprefix(prefix): key for new, key in keys.items() if new.startswith(prefix)}
    if not chosen:
        raise ValueError(f"state_dict: expected keys that start with {prefix!r} for the {which}, found none")
    if any(name.startswith("backbone.stem.") for name in chosen):
        raise ValueError(
            "state_dict: holds a ResNetV1c, whose three-convolution stem segmentation_models_pytorch's ResNets lack; "
            "checkpoints with MiT encoders can be read"
        )
    unknown = [name for name in chosen if not name.startswith(("backbone.", "decode_head."))]
    if unknown:
        raise ValueError(f"state_dict: expected names under backbone. and decode_head., got {unknown[:5]}")
    state = {rename(name): state_dict[key] for name, key in chosen.items()}
    dropped = sorted(set(state_dict) - set(chosen.values()))
    return state, dropped


def load_official(network: nn.Module, state_dict: dict[str, Tensor], which: str = "student") -> list[str]:
    """Load one model of an official state dict into a network, strictly; returns the names dropped on purpose.

    Raises:
        ValueError: a parameter of the network is missing, left over or of another shape; the message lists the first.
    """
    state, dropped = from_official(state_dict, which)
    load_strictly(network, state)
    return dropped


def load_strictly(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights under our names.

    Raises:
        ValueError: a parameter of the network is missing, left over or of another shape; the message lists the first.
    """
    own = network.state_dict()
    problems = [f"{key} is missing" for key in own if key not in state]
    problems += [f"{key} has no place" for key in state if key not in own]
    problems += [
        f"{key} is {tuple(value.shape)} in place of {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"state_dict does not fit the network: {'; '.join(problems[:5])}{more}")
    network.load_state_dict(state)
