"""Parameter groups: every parameter once, at its rate."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from uda.settings import Settings, preset_values
from uda.training.optimizers import optimizers_of, parameter_groups


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 1), "norm": nn.GroupNorm(1, 4), "bn1": nn.BatchNorm2d(4)})
        self.decoder = nn.ModuleDict({"norm": nn.BatchNorm2d(4), "classify": nn.Conv2d(4, 2, 1)})


def optimizers(method: str, mrm: nn.Module | None = None) -> list[torch.optim.Optimizer]:
    return optimizers_of(Settings(**preset_values("paper", method)), SimpleNamespace(network=Toy(), mrm=mrm))


def test_adamw_spares_only_the_encoders_norms() -> None:
    (optimizer,) = optimizers("mic")
    assert isinstance(optimizer, torch.optim.AdamW)
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert {name: (g["lr"], g["weight_decay"], len(g["params"])) for name, g in groups.items()} == {
        "encoder": (6e-5, 0.01, 4),
        "encoder_norms": (6e-5, 0.0, 2),
        "head": (pytest.approx(6e-4), 0.01, 4),
    }
    assert groups["encoder_norms"]["params"][0].shape == (4,)
    assert all(group["initial_lr"] == group["lr"] for group in groups.values())


def test_sgd_of_dacs() -> None:
    (optimizer,) = optimizers("dacs")
    assert isinstance(optimizer, torch.optim.SGD)
    assert [(g["name"], g["lr"], g["weight_decay"], g["momentum"]) for g in optimizer.param_groups] == [
        ("encoder", 2.5e-4, 5e-4, 0.9),
        ("head", 2.5e-3, 5e-4, 0.9),
    ]


@pytest.mark.parametrize("method", ["dacs", "mic"])
def test_rebuilder(method: str) -> None:
    rebuilder = nn.Linear(2, 2)
    _, optimizer = optimizers(method, rebuilder)
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["initial_lr"], group["weight_decay"]) == (2e-4, 2e-4, 0.01)
    assert [id(p) for p in group["params"]] == [id(p) for p in rebuilder.parameters()]


def test_every_trainable_parameter_once() -> None:
    network = Toy()
    network.encoder["conv"].weight.requires_grad_(False)
    params = [p for group in parameter_groups(network, 1.0, 0.0) for p in group["params"]]
    assert {id(p) for p in params} == {id(p) for p in network.parameters() if p.requires_grad}
    assert len(params) == len({id(p) for p in params})


def test_a_network_without_head() -> None:
    network = nn.Module()
    network.encoder = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"network.*`encoder`"):
        parameter_groups(network, 1.0, 0.0)
    assert torch.is_grad_enabled()
