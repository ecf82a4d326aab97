"""Learning rate and weight decay of every parameter against mmcv's optimiser for HRDA on MiT-B0."""

from __future__ import annotations

import json

import pytest
from parity import PARITY_DIR
from uda.checkpoints.released import rename
from uda.networks.build import build_network
from uda.settings import Settings, preset_values
from uda.training.optimizers import optimizers_of


def test_parameter_groups() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    network = build_network("mit_b0", hrda=True, embed_dim=64, attention_dim=256)
    settings = Settings(**preset_values("paper", "hrda"))
    (optimizer,) = optimizers_of(settings, network, None)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    ours = {
        names[id(parameter)]: (group["lr"], group["initial_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    official = json.loads((PARITY_DIR / "adamw_param_groups_hrda_mitb0.json").read_text())
    theirs = {rename(key.removeprefix("model.")): (lr, lr, decay) for key, lr, decay, _ in official}
    assert len(theirs) == len(official) == 223
    assert ours == theirs
