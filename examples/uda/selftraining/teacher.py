"""The mean teacher: its weights and its pseudo-labels.

Sources: Mean Teacher (Tarvainen & Valpola, NeurIPS 2017), DACS (Tranheden et al., WACV 2021), DAFormer (Hoyer et al.,
CVPR 2022, "Self-Training for UDA"), VFM-UDA (Englert et al., CVPR workshops 2024).
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ..runtime.processes import mean_over_ranks

Module = TypeVar("Module", bound=nn.Module)

# Stochastic depth has a class of its own in timm, transformers, segmentation_models_pytorch and torchvision.
_STOCHASTIC_DEPTH = {"DropPath", "StochasticDepth", "SegformerDropPath", "DropConnect"}


def ema_alpha(step: int, alpha: float) -> float:
    """Decay of the moving average at `step` (from 0): min(1 - 1 / (step + 1), alpha).

    0 at step 0 (the teacher becomes the student), then a plain average of the students so far until the
    average gets longer than `alpha` allows.
    """
    return min(1.0 - 1.0 / (step + 1), alpha)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, step: int, alpha: float, *, buffers: bool = False) -> None:
    """teacher = a * teacher + (1 - a) * student for every parameter, in place, with a = ema_alpha(step, alpha).

    Buffers are left alone by default: the teacher's BatchNorm statistics come from its own passes over target images.

    Args:
        step: training step, from 0.
        alpha: largest decay; 0.99 in DACS, 0.999 in DAFormer and later.
        buffers: whether those of floating-point numbers are averaged too (VFM-UDA).
    """
    averages: list[Tensor] = list(teacher.parameters())
    updates: list[Tensor] = list(student.parameters())
    if buffers:
        averages += [buffer for buffer in teacher.buffers() if buffer.is_floating_point()]
        updates += [buffer for buffer in student.buffers() if buffer.is_floating_point()]
    decay = ema_alpha(step, alpha)
    torch._foreach_mul_(averages, decay)
    torch._foreach_add_(averages, list(torch._foreach_mul(updates, 1.0 - decay)))


def make_teacher(student: Module) -> Module:
    """A copy of `student` to be moved by `update_teacher`.

    It needs no gradients and stays in train mode (BatchNorm normalises with the statistics of its own batch), but
    its dropout and stochastic depth are set to probability zero, for good: `teacher.eval()` for an evaluation and
    `teacher.train()` after it do not bring them back.
    """
    teacher = copy.deepcopy(student).requires_grad_(False)
    teacher.zero_grad(set_to_none=True)  # the copy brought the gradients along
    for module in teacher.modules():
        _switch_off_dropout(module)
    return teacher.train()


def _switch_off_dropout(module: nn.Module) -> None:
    if isinstance(module, nn.MultiheadAttention):
        module.dropout = 0.0
    elif isinstance(module, _DropoutNd) or type(module).__name__ in _STOCHASTIC_DEPTH:
        for name in ("p", "drop_prob"):
            if hasattr(module, name):
                setattr(module, name, 0.0)


def pseudo_label(probabilities: Tensor, threshold: float = 0.968) -> tuple[Tensor, Tensor]:
    """Labels and confidence weights of a batch from the teacher's class probabilities.

    Args:
        probabilities: (B, K, H, W), at the resolution of the labels wanted.
        threshold: a pixel counts as confident where its highest probability reaches this.

    Returns:
        labels: (B, H, W) int64, the argmax.
        weights: (B, H, W), the share of confident pixels in the whole batch at every pixel. One number per batch,
            given per pixel because margins and ClassMix change it locally.
    """
    confidence, labels = probabilities.max(dim=1)  # (B, H, W) each
    share = (confidence >= threshold).sum().to(confidence) / labels.numel()  # no float64: not every device has it
    return labels, share.expand(labels.shape).clone()


def balance(weights: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Gives pixels of rare pseudo-labels more weight (our addition).

    The factor is one over the root of the number of pixels, in the batches of all processes, that have the same label.
    It is scaled to be 1 on average.

    Args:
        weights: (B, H, W).
        labels: (B, H, W) int64, from 0 to num_classes - 1.
    """
    pixels = mean_over_ranks(torch.bincount(labels.flatten(), minlength=num_classes).to(weights))
    roots = pixels.sqrt()
    return weights * (pixels.sum() / roots.sum() / roots)[labels]
