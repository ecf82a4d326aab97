"""Released checkpoints with weights of one's own."""

from __future__ import annotations

from torch import Tensor, nn
from uda.checkpoints.released import rename


def checkpoint(network: nn.Module) -> dict[str, Tensor]:
    """A network's weights as mmcv would have saved them, as student, teacher and ImageNet model."""
    names = {rename(key): key for key in official_names(network)}
    state = {names[key]: value for key, value in network.state_dict().items()}
    return {
        **{f"model.{key}": value for key, value in state.items()},
        **{f"ema_model.{key}": value + 1 for key, value in state.items()},
        **{f"imnet_model.{key}": value + 2 for key, value in state.items()},
    }


def official_names(network: nn.Module) -> list[str]:
    out = []
    for key in network.state_dict():
        key = key.replace("encoder.body.", "backbone.").replace("decoder.", "decode_head.")
        key = key.replace("decode_head.attention.", "decode_head.scale_attention.")
        for index in range(4):
            key = key.replace(f".embed.{index}.", f".embed_layers.{index}.proj.")
            key = key.replace(f".branches.{index}.", f".aspp_modules.{index}.")
        key = key.replace("thwise.", "thwise_conv.").replace("pointwise.", "pointwise_conv.")
        out.append(key.replace(".fuse.", ".fuse_layer.").replace(".classify.", ".conv_seg."))
    return out


def vfm_checkpoint(network: nn.Module) -> dict[str, Tensor]:
    """The network's weights under the names of VFM-UDA's and DINOv2's code, as student and teacher."""
    out = {}
    for key, value in network.state_dict().items():
        name = key.replace("encoder.body.", "encoder.").replace("decoder.upscale.", "upscale.")
        name = name.replace("decoder.classify.", "out.")
        out |= {f"network.{name}": value, f"network_ema.{name}": value + 1}
    for model in ("network", "network_ema"):
        out[f"{model}.token_masking.mask_token"] = out[f"{model}.encoder.mask_token"]
    return out
