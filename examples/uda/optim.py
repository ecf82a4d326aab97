"""Optimisers and parameter groups.

Each group keeps its base rate under "initial_lr", as PyTorch's own schedulers do:

    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * warmup_linear(step, total)

Sources: the released configurations of DAFormer, HRDA and MIC; the code of DACS; MRM's paper for the Rebuilder's rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def parameter_groups(
    network: nn.Module, lr: float, weight_decay: float, head_factor: float = 10.0, norm_decay: bool = True
) -> list[dict[str, Any]]:
    """Split a network into encoder, the encoder's norms, and everything else.

    Args:
        network: has an attribute `encoder`; all other parameters count as the head.
        lr: rate of the encoder.
        weight_decay: of every parameter but those that `norm_decay` exempts.
        head_factor: rate of the head / rate of the encoder.
        norm_decay: False exempts encoder parameters with "norm" or "pos_block" in their name. That is DAFormer's
            rule to the letter: it spares the transformer's LayerNorms, but neither a ResNet's BatchNorms ("bn1") nor
            the head's.

    Returns:
        Groups with "params", "lr", "initial_lr", "weight_decay" and "name"; empty ones are left out.
    """
    split: dict[str, list[nn.Parameter]] = {"encoder": [], "encoder_norms": [], "head": []}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        if not name.startswith("encoder."):
            split["head"].append(parameter)
        elif not norm_decay and ("norm" in name or "pos_block" in name):
            split["encoder_norms"].append(parameter)
        else:
            split["encoder"].append(parameter)
    if not split["head"] or not split["encoder"] + split["encoder_norms"]:
        raise ValueError("network: expected trainable parameters both under `encoder` and outside it")
    rates = {"encoder": lr, "encoder_norms": lr, "head": lr * head_factor}
    decays = {"encoder": weight_decay, "encoder_norms": 0.0, "head": weight_decay}
    return [
        {"params": params, "lr": rates[name], "initial_lr": rates[name], "weight_decay": decays[name], "name": name}
        for name, params in split.items()
        if params
    ]


def adamw(network: nn.Module, lr: float = 6e-5, weight_decay: float = 0.01) -> torch.optim.AdamW:
    """DAFormer's, HRDA's and MIC's optimiser: AdamW, head at ten times the rate, no decay on the encoder's norms."""
    return torch.optim.AdamW(parameter_groups(network, lr, weight_decay, norm_decay=False), lr=lr)


def sgd(network: nn.Module, lr: float = 2.5e-4, weight_decay: float = 5e-4, momentum: float = 0.9) -> torch.optim.SGD:
    """DACS's optimiser: SGD with momentum, head at ten times the rate."""
    return torch.optim.SGD(parameter_groups(network, lr, weight_decay), lr=lr, momentum=momentum)


def rebuilder_adamw(
    parameters: Iterable[nn.Parameter], lr: float = 2e-4, weight_decay: float = 0.01
) -> torch.optim.AdamW:
    """AdamW for the Rebuilder, whatever optimises the network. The rate is the paper's, the rest our choice."""
    params = list(parameters)
    group = {"params": params, "lr": lr, "initial_lr": lr, "weight_decay": weight_decay, "name": "rebuilder"}
    return torch.optim.AdamW([group], lr=lr)
