"""Optimisers, parameter groups, and the schedules of their rates: pure functions of the step.

Each group keeps its base rate under "initial_lr", as PyTorch's own schedulers do:

    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * rate_factor(step, settings)

Sources: the released configurations of DAFormer, HRDA and MIC; the code of DACS, whose poly is DeepLabV2's (Chen et
al., TPAMI 2018); VFM-UDA's code (Englert et al., CVPR workshops 2024); MRM's paper for the Rebuilder's rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..settings import Settings

REBUILDER_DECAY = 0.01  # our choice: MRM's authors published none


def parameter_groups(
    network: nn.Module, lr: float, weight_decay: float, head_factor: float = 10.0, norm_decay: bool = True
) -> list[dict[str, Any]]:
    """Split a network into its `encoder`, the encoder's norms, and everything else, the head.

    Args:
        lr: rate of the encoder.
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
    rates = {"encoder": lr, "encoder_norms": lr, "head": lr * head_factor}
    decays = {"encoder": weight_decay, "encoder_norms": 0.0, "head": weight_decay}
    return [
        {"params": params, "lr": rates[name], "initial_lr": rates[name], "weight_decay": decays[name], "name": name}
        for name, params in split.items()
        if params
    ]


def go_on_with(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Takes moments from a checkpoint; rates, decays and the like stay those of the settings.

    These are the checkpoint's too unless somebody has changed them on resuming, which `load_state_dict` would undo.
    """
    own = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, values in zip(optimizer.param_groups, own, strict=True):
        group.update(values)


def optimizers_of(settings: Settings, network: nn.Module, mrm: nn.Module | None) -> list[torch.optim.Optimizer]:
    """The network's optimiser, DACS's SGD or the others' AdamW, and where MRM is on the Rebuilder's AdamW."""
    factor, decay = settings.head_lr_factor, settings.weight_decay
    groups = parameter_groups(network, settings.lr, decay, factor, norm_decay=settings.norm_decay)
    own: torch.optim.Optimizer
    if settings.optimizer == "sgd":
        own = torch.optim.SGD(groups, lr=settings.lr, momentum=0.9)
    else:
        own = torch.optim.AdamW(groups, lr=settings.lr)
    if mrm is None:
        return [own]
    rate = settings.mrm_lr
    group = {"params": list(mrm.parameters()), "lr": rate, "initial_lr": rate, "weight_decay": REBUILDER_DECAY}
    return [own, torch.optim.AdamW([group | {"name": "rebuilder"}], lr=rate)]


def update(optimizers: Iterable[torch.optim.Optimizer], scaler: torch.amp.GradScaler) -> None:
    """Steps the optimisers that have gradients; in fp16 one whose gradients overflowed is left out."""
    for optimizer in optimizers:
        if any(p.grad is not None for group in optimizer.param_groups for p in group["params"]):
            scaler.step(optimizer)
    scaler.update()


def rate_factor(step: int, settings: Settings) -> float:
    """Learning rate of `step` / base rate; pretraining comes first and has a rate of its own."""
    if step < settings.pretrain_iterations:
        return settings.pretrain_lr / settings.lr * warmup_factor(step, settings.warmup)
    step -= settings.pretrain_iterations
    if settings.warmup_apart:
        return warmup_apart(step, settings.iterations, settings.warmup, settings.schedule_power)
    return poly(step, settings.iterations, settings.schedule_power) * warmup_factor(step, settings.warmup)


def poly(step: int, total: int, power: float = 0.9) -> float:
    """(1 - step / total) ** power, for step = 0 ... total - 1; zero from `total` on."""
    return float(max(1.0 - step / total, 0.0) ** power)


def warmup_factor(step: int, warmup: int = 1500, ratio: float = 1e-6) -> float:
    """Linear growth from `ratio` at step 0 to 1 at step `warmup`; 1 from there on. No warm-up if `warmup` is 0."""
    if step >= warmup:
        return 1.0
    return 1.0 - (1.0 - step / warmup) * (1.0 - ratio)


def warmup_apart(step: int, total: int, warmup: int = 1500, power: float = 1.0, start: float = 1e-3) -> float:
    """VFM-UDA's: linear growth from `start` at step 0 to 1 at step `warmup` - 1, thereafter `poly`.

    As that counts from step 0 too, the rate drops from 1 to (1 - warmup / total) ** power after the warm-up.
    """
    if step >= warmup:
        return poly(step, total, power)
    return start + (1.0 - start) * step / (warmup - 1) if warmup > 1 else start
