"""Parameter groups: every parameter once, at its rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from uda.settings import Settings, preset_values
from uda.training.optimizers import go_on_with, optimizers_of, parameter_groups, update


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 1), "norm": nn.GroupNorm(1, 4), "bn1": nn.BatchNorm2d(4)})
        self.decoder = nn.ModuleDict({"norm": nn.BatchNorm2d(4), "classify": nn.Conv2d(4, 2, 1)})


def optimizers(method: str, mrm: nn.Module | None = None) -> list[torch.optim.Optimizer]:
    return optimizers_of(Settings(**preset_values("paper", method)), Toy(), mrm)


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


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_changed_rates_hold_after_resuming(kind: str) -> None:
    """Moments are the checkpoint's, rates and decays those of the settings."""
    network, mrm = Toy(), nn.Linear(2, 2)

    def made(**changes: float) -> list[torch.optim.Optimizer]:
        settings = Settings(**preset_values("paper", "mic") | {"optimizer": kind} | changes)
        return optimizers_of(settings, network, mrm)

    def hyper(optimizers: list[torch.optim.Optimizer]) -> list[dict[str, object]]:
        return [{k: v for k, v in g.items() if k != "params"} for o in optimizers for g in o.param_groups]

    first = made()
    for parameter in [*network.parameters(), *mrm.parameters()]:
        parameter.grad = torch.ones_like(parameter)
    for optimizer in first:
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] / 2  # as a schedule has it
    saved = [optimizer.state_dict() for optimizer in first]
    changes = {"lr": 1e-3, "head_lr_factor": 3.0, "weight_decay": 0.5, "mrm_lr": 7e-4}
    for options in ({}, changes):
        again, fresh = made(**options), made(**options)
        for optimizer, state in zip(again, saved):
            go_on_with(optimizer, state)
        assert hyper(again) == hyper(fresh)
        for old, new in zip(first, again):
            assert old.state.keys() == new.state.keys()
            for p in old.state:
                assert all(torch.equal(old.state[p][name], new.state[p][name]) for name in old.state[p])


def test_fp16_scales_losses_and_leaves_out_updates_that_overflow():
    layer, scaler = nn.Linear(3, 2), torch.amp.GradScaler("cpu")
    trained, idle = torch.optim.SGD(layer.parameters(), lr=1.0), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scaler.scale(layer(torch.ones(3)).sum()).backward()
    scaled = layer.weight.grad.clone()
    assert scaled.max() == 65536
    before = layer.weight.detach().clone()
    update([trained, idle], scaler)
    torch.testing.assert_close(layer.weight.detach(), before - 1)
    before = layer.weight.detach().clone()
    layer.weight.grad[0, 0] = torch.inf
    update([trained, idle], scaler)
    assert torch.equal(layer.weight.detach(), before)
    assert scaler.get_scale() == 32768
