"""Inputs, random choices and results of the three recorded training steps of MIC (`uda_mic_steps`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from parity import Parity
from torch import Tensor, nn
from uda.checkpoints.released import load_released, rename
from uda.networks.build import build_network
from uda.networks.hrda import HRDA
from uda.networks.sliding import Box
from uda.selftraining.mixing import keep_blocks

BOXES = (Box(16, 80, 40, 104), Box(64, 128, 0, 64), Box(24, 88, 56, 120))
SETTINGS = {
    "alpha": 0.999,
    "threshold": 0.5,
    "feature_distance_weight": 0.005,
    "masked_weight": 1.0,
    "mask_ratio": 0.7,
    "mask_block": 16,
    "lr": 6e-5,
    "weight_decay": 0.01,
}


@dataclass
class Step:
    """What one training step is given: data and every random choice."""

    index: int
    source: Tensor  # (2, 3, 128, 128)
    labels: Tensor  # (2, 128, 128) int64
    target: Tensor  # (2, 3, 128, 128)
    trusted: Tensor  # (2, 128, 128), 1 where pseudo-labels may be trusted, 0 at the margins
    source_box: Box
    mixed_box: Box
    masked_box: Box
    paste: Tensor  # (2, 1, 128, 128) bool: ClassMix's masks
    keep: Tensor  # (2, 1, 128, 128) bool: MIC's blocks


def build(parity: Parity, fill: str) -> HRDA:
    """HRDA on MiT-B0 without dropout and stochastic depth, filled by formula, in float64 and train mode."""
    network = build_network("mit_b0", hrda=True, embed_dim=32, attention_dim=24, detail_crop=64)
    assert isinstance(network, HRDA)
    for module in network.modules():
        for rate in {"p", "drop_prob"} & vars(module).keys():
            setattr(module, rate, 0.0)
    load_released(network.double(), parity.weights("weights_student", fill))
    return network.train()


def build_student(parity: Parity) -> HRDA:
    """The student, with the recipe's sharper classifier."""
    network = build(parity, "hash")
    weight = network.decoder.head.classify.weight
    with torch.no_grad():
        weight.copy_(weight.float() * 12.0)  # rounded to float32, as there
    return network


def step_inputs(parity: Parity, index: int) -> Step:
    """Everything step `index` (0, 1, 2) is given."""
    size = 128
    labels = parity[f"it{index}.src_label"].squeeze(1)
    trusted = torch.ones(2, size, size, dtype=torch.float64)
    trusted[:, :5] = 0
    trusted[:, size - 16 :] = 0
    draws = torch.from_numpy(_uniform(4.1414 + index, 2 * 8 * 8)).view(2, 1, 8, 8)
    return Step(
        index=index,
        source=parity.wave((2, 3, size, size), amp=2.0, shift=0.3 * index),
        labels=labels,
        target=parity.wave((2, 3, size, size), amp=1.5, shift=1.1 + 0.3 * index),
        trusted=trusted,
        source_box=BOXES[index % 3],
        mixed_box=BOXES[(1 + index) % 3],
        masked_box=BOXES[(2 + index) % 3],
        paste=torch.stack([torch.isin(labels[q], _drawn(labels, q, index)) for q in range(2)]).unsqueeze(1),
        keep=keep_blocks(draws, (size, size), SETTINGS["mask_ratio"]),
    )


def _uniform(phase: float, count: int) -> np.ndarray:
    values = np.sin(12.9898 * (np.arange(count) + 1) + phase) * 43758.5453
    return (values - np.floor(values)).astype(np.float32)


def _drawn(labels: Tensor, call: int, index: int) -> Tensor:
    """The classes that call `call` of step `index` draws from those of the whole batch."""
    present = torch.unique(labels)
    n = len(present)
    order = list(dict.fromkeys((2 * j + call + index) % n for j in range(n)))
    return present[order[: (n + 1) // 2]]


# what our losses are called -> the reference's, whose sum they are
LOSSES = {
    "source": ("decode.loss_seg", "decode.hr.loss_seg"),
    "distance": ("src.loss_imnet_feat_dist",),
    "mixed": ("mix.decode.loss_seg", "mix.decode.hr.loss_seg"),
    "masked": ("masked.decode.loss_seg", "masked.decode.hr.loss_seg"),
}


def check_step(
    parity: Parity, index: int, losses: dict[str, float], gradients: dict[str, Tensor], student: nn.Module
) -> None:
    """The losses, the accumulated gradients, and the student after the optimiser's step."""
    stored = parity.meta["log_vars"]["torch.float64"][index]
    for name, parts in LOSSES.items():
        expected = sum(stored[part] for part in parts)
        error = abs(losses[name] - expected) / abs(expected)
        print(f"it{index} {name}: {error:.1e}")
        assert error < 1e-9, f"it{index} {name}: {losses[name]} in place of {expected}"
    trust = stored["pseudo_weight"] * step_inputs(parity, index).trusted.mean().item()
    assert abs(losses["trust"] - trust) < 1e-9
    for key in _keys(parity, f"it{index}.grad."):
        parity.check(key, gradients[rename(key.split(".grad.")[1])])
    state = student.state_dict()
    for key in _keys(parity, f"it{index}.student_after."):
        parity.check(key, state[rename(key.split(".student_after.")[1])])
    for key in _keys(parity, f"it{index}.student_bn."):
        parity.check(key, state[rename(key.split(".student_bn.")[1])])


def check_teacher(parity: Parity, index: int, teacher: nn.Module, logits: Tensor, pseudo_labels: Tensor) -> None:
    """The teacher as step `index` used it: its weights, logits and labels, and the BatchNorm statistics afterwards."""
    assert torch.equal(pseudo_labels, parity[f"it{index}.pseudo_label"])
    parity.check(f"it{index}.ema_logits", logits)
    state = teacher.state_dict()
    for kind in ("ema", "ema_bn"):
        for key in _keys(parity, f"it{index}.{kind}."):
            parity.check(key, state[rename(key.split(f".{kind}.")[1])])


def _keys(parity: Parity, prefix: str) -> list[str]:
    keys = [key for key in parity.meta["tensors"] if key.startswith(prefix)]
    assert keys, prefix
    return keys
