"""Key maps between the authors' Rebuilder (rebuilder.py of their repository) and `mrm_loss.Rebuilder`.

    rebuilder.load_state_dict(from_official(torch.load("rebuilder.pth")))

The authors' mask has 1 = keep, ours True = masked: `rebuilder(feats, mask=official_mask == 0)`.
"""

from __future__ import annotations

import re

from torch import Tensor

# (the authors' beginning of a key, ours)
PREFIXES = [
    ("embedding.linear_embed.", "embed."),
    ("transformer.blocks.", "blocks."),
    ("transformer.norm.", "norm."),
    ("transformer.pos_embed", "pos_embed"),
]
MLP = [(".mlp.fc1.", ".mlp.0."), (".mlp.fc2.", ".mlp.2.")]


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' state dict -> `Rebuilder.state_dict()`; a KeyError names a key that is not theirs."""
    ours = {}
    for key, value in state.items():
        if key == "transformer.mask_token":
            ours["mask_token"] = value.flatten()  # (1, E, 1, 1)
        elif m := re.fullmatch(r"projector\.(?:projector(\d+)\.)?(?:fpn\.(\d+)|norm)\.(\w+)", key):
            level = int(m[1] or 1) - 1
            layer = m[2] or _next_layer(state, key.replace(f"norm.{m[3]}", "fpn."))
            ours[f"projectors.{level}.{layer}.{m[3]}"] = value
        else:
            ours[_rename(key, PREFIXES, MLP)] = value
    return ours


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse. One level is the authors' DeepLabV2 variant, several are their DAFormer variant."""
    single = not any(key.startswith("projectors.1.") for key in state)
    official = {}
    for key, value in state.items():
        if key == "mask_token":
            official["transformer.mask_token"] = value.reshape(1, -1, 1, 1)
        elif m := re.fullmatch(r"projectors\.(\d+)\.(\d+)\.(\w+)", key):
            name = "projector." if single else f"projector.projector{int(m[1]) + 1}."
            last = int(m[2]) + 1 == _next_layer(state, f"projectors.{m[1]}.")
            official[name + ("norm" if last else f"fpn.{m[2]}") + f".{m[3]}"] = value
        else:
            back = [(ours, theirs) for theirs, ours in PREFIXES]
            official[_rename(key, back, [(ours, theirs) for theirs, ours in MLP])] = value
    return official


def _next_layer(state: dict[str, Tensor], prefix: str) -> int:
    """1 + the highest N among the keys PREFIX N.weight."""
    found = (re.fullmatch(re.escape(prefix) + r"(\d+)\.weight", key) for key in state)
    return 1 + max(int(m[1]) for m in found if m)


def _rename(key: str, prefixes: list[tuple[str, str]], infixes: list[tuple[str, str]]) -> str:
    for old, new in prefixes:
        if key.startswith(old):
            key = new + key.removeprefix(old)
            for old_mlp, new_mlp in infixes:
                key = key.replace(old_mlp, new_mlp)
            return key
    raise KeyError(f"not a key of the Rebuilder: {key}")
