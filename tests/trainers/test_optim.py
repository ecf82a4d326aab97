"""Parameter groups: every parameter once, at its rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from uda.optim import adamw, parameter_groups, rebuilder_adamw, sgd


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 1), "norm": nn.GroupNorm(1, 4), "bn1": nn.BatchNorm2d(4)})
        self.decoder = nn.ModuleDict({"norm": nn.BatchNorm2d(4), "classify": nn.Conv2d(4, 2, 1)})


def test_adamw_spares_only_the_encoders_norms() -> None:
    network = Toy()
    groups = {group["name"]: group for group in adamw(network, lr=1.0, weight_decay=0.1).param_groups}
    assert {name: (g["lr"], g["weight_decay"], len(g["params"])) for name, g in groups.items()} == {
        "encoder": (1.0, 0.1, 4),
        "encoder_norms": (1.0, 0.0, 2),
        "head": (10.0, 0.1, 4),
    }
    assert groups["encoder_norms"]["params"][0] is network.encoder["norm"].weight
    assert all(group["initial_lr"] == group["lr"] for group in groups.values())


def test_sgd_of_dacs() -> None:
    groups = sgd(Toy()).param_groups
    assert [(g["name"], g["lr"], g["weight_decay"], g["momentum"]) for g in groups] == [
        ("encoder", 2.5e-4, 5e-4, 0.9),
        ("head", 2.5e-3, 5e-4, 0.9),
    ]


def test_every_trainable_parameter_once() -> None:
    network = Toy()
    network.encoder["conv"].weight.requires_grad_(False)
    params = [p for group in parameter_groups(network, 1.0, 0.0) for p in group["params"]]
    assert {id(p) for p in params} == {id(p) for p in network.parameters() if p.requires_grad}
    assert len(params) == len({id(p) for p in params})


def test_rebuilder() -> None:
    (group,) = rebuilder_adamw(nn.Linear(2, 2).parameters()).param_groups
    assert (group["lr"], group["initial_lr"], group["weight_decay"]) == (2e-4, 2e-4, 0.01)


def test_a_network_without_head() -> None:
    network = nn.Module()
    network.encoder = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"network.*`encoder`"):
        parameter_groups(network, 1.0, 0.0)
    assert torch.is_grad_enabled()
