"""MRM's loss and gradients in the patched official tree against those of our trainer, in float64."""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import train_mic_mrm
from uda.checkpoints.released import from_released
from uda.data.batches import Batch
from uda.data.layouts import STREETS
from uda.networks.sliding import Box
from uda.selftraining.draws import Draws
from uda.settings import Settings, preset_values
from uda.training.models import Models

from mrm_loss import MRM, random_mask

from .official_tree import arguments, build

THRESHOLD = 0.06  # between the confidences of random networks of 19 classes: some pixels pass, some do not
BATCH_SIZE = 2


class Given(Draws):
    """A step's own random choices but for MRM's detail crop, and its masks, which `take_masks` gives."""

    mrm_box: Box | None = None

    def box(self, purpose: str, network: Any, images: Tensor) -> Box | None:
        return self.mrm_box if purpose == "mrm" else super().box(purpose, network, images)

    def colours(self, purpose: str, images: Tensor) -> Tensor:
        return images


def differences(checkout: Path, method: str, crop: int = 64) -> dict[str, float]:
    """One training step of either side, of MiT-B0 with the same weights, images and masks.

    Args:
        checkout: the patched copy.
        method: "daformer", "hrda" or "mic".
        crop: a power of two; HRDA's context and detail are half of it.

    Returns:
        Relative error of the "loss"; largest errors of the gradients of "encoder", "decoder" and "Rebuilder" relative
        to their standard deviation; the "share" of confident pixels that both sides found.
    """
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # features coarser than the grid; mmcv's age
            return _differences(checkout, method, crop)
    finally:
        torch.set_default_dtype(torch.float32)


def _differences(checkout: Path, method: str, crop: int) -> dict[str, float]:
    uda = build(checkout, method, crop)
    without_dropout(uda)
    uda.pseudo_threshold = THRESHOLD
    models, cfg = ours(uda, method, crop)
    images = torch.randn(2, BATCH_SIZE, 3, crop, crop)
    labels = torch.randint(19, (BATCH_SIZE, crop // 32, crop // 32)).repeat_interleave(32, 1).repeat_interleave(32, 2)
    batch = Batch(images[0], labels, images[1], torch.randint(2, labels.shape).double())
    masks = [random_mask(BATCH_SIZE) for _ in range(1 if method == "daformer" else 2)]  # context and detail

    boxes = record_boxes(uda.model.decode_head)
    take_masks(uda.mrm, masks, uda)
    log = uda.forward_train(**arguments(batch.source_images, labels, batch.target_images, batch.target_trusted))
    theirs = sum(value for name, value in log.items() if name.startswith("mrm.") and name.endswith("loss_seg"))

    draws = Given(cfg, step=1)
    draws.mrm_box = Box(*boxes[-1]) if boxes else None
    take_masks(models.mrm, masks, models.student)
    losses = train_mic_mrm.train_step(1, batch, models, cfg, draws)

    network = models.network
    expected = from_released(gradients(uda.model))
    return {
        "loss": abs(losses["mrm"].item() / theirs - 1),
        "encoder": worst(gradients(network.encoder), inside("encoder.", expected)),
        "decoder": worst(gradients(network.decoder), inside("decoder.", expected)),
        "Rebuilder": worst(gradients(models.mrm), gradients(uda.mrm)),
        "share": losses["trust"].item() / batch.target_trusted.mean().item(),
    }


def ours(uda: nn.Module, method: str, crop: int) -> tuple[Models, Settings]:
    """Our trainer's networks and Rebuilder with the official weights, read as a checkpoint is."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(uda.state_dict(), Path(folder) / "weights.pth")
        values = preset_values("paper", method) | {"method": method, "preset": "paper", "device": "cpu"}
        values |= {"encoder": "mit_b0", "encoder_weights": "", "init": str(Path(folder) / "weights.pth")}
        values |= {"fd_weight": 0.0, "threshold": THRESHOLD, "detail_crop": crop // 2, "batch_size": BATCH_SIZE}
        cfg = Settings(**values)
        models = Models(cfg, STREETS, torch.device("cpu"))
    models.mrm.load_state_dict(uda.mrm.state_dict())
    without_dropout(models.student)
    return models, cfg


def without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        for name in ("p", "drop_prob"):
            if hasattr(module, name):
                setattr(module, name, 0.0)


def record_boxes(head: Any) -> list[tuple[int, int, int, int]]:
    """Where HRDA's detail crops come to lie; empty in DAFormer."""
    boxes: list[tuple[int, int, int, int]] = []
    if hasattr(head, "set_hr_crop_box"):
        set_box = head.set_hr_crop_box
        head.set_hr_crop_box = lambda box: (boxes.append(box), set_box(box))
    return boxes


def take_masks(mrm: MRM, masks: list[Tensor], model: nn.Module) -> None:
    """MRM masks these cells; with the first, the gradients of the losses before it are forgotten."""
    rebuild, left = mrm.rebuild, list(masks)

    def with_mask(feats: list[Tensor], mask: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        if len(left) == len(masks):
            model.zero_grad()
        return rebuild(feats, left.pop(0))

    mrm.rebuild = with_mask


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def inside(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def worst(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Largest error relative to the tensor's standard deviation.

    Some gradients are zero in theory, those of biases that a BatchNorm takes out again: their scale is a millionth of
    the largest deviation in the module.
    """
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    least = 1e-6 * torch.stack([t.std(correction=0) for t in theirs.values()]).max()
    errors = [(ours[name] - t).abs().max() / t.std(correction=0).clamp(min=least) for name, t in theirs.items()]
    return torch.stack(errors).max().item()  # NaN, if one of them is
