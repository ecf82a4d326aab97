"""Released checkpoints of DAFormer, HRDA and MIC (mmcv files) under this project's parameter names."""

from __future__ import annotations

import re

from torch import Tensor, nn

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
    return dropped
