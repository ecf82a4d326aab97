"""Three training steps of MIC, through the trainer's own step function, against MIC's own numbers."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from mic_steps import SETTINGS, Step, build, build_student, check_step, check_teacher, step_inputs
from parity import Parity
from torch import Tensor, nn
from train_mic_mrm import train_step
from uda.data.batches import Batch
from uda.data.layouts import STREETS
from uda.selftraining.draws import Draws
from uda.selftraining.teacher import make_teacher
from uda.settings import Settings, preset_values
from uda.training.optimizers import optimizers_of

pytest.importorskip("segmentation_models_pytorch")


class GivenDraws(Draws):
    """The reference's random choices in place of drawn ones."""

    def __init__(self, given: Step) -> None:
        self.given = given

    def pasted(self, labels: Tensor, per_image: bool = True) -> Tensor:
        assert not per_image  # MIC draws from the classes of the batch
        return self.given.paste[:, 0]

    def colours(self, purpose: str, images: Tensor) -> Tensor:
        return images

    def kept(self, images: Tensor) -> Tensor:
        return self.given.keep

    def box(self, purpose: str, network: nn.Module, images: Tensor):
        return getattr(self.given, f"{purpose}_box")


def test_three_steps_of_mic() -> None:
    parity = Parity("uda_mic_steps")
    student, imagenet = build_student(parity), build(parity, "sin").encoder.eval()
    teacher = make_teacher(student)
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()  # the reference's teacher starts with fresh statistics
    models = SimpleNamespace(
        network=student,
        mrm=None,
        teacher=teacher,
        imagenet_feats=torch.no_grad()(imagenet),
        classes=STREETS,
        autocast=nullcontext,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
    )
    values = preset_values("paper", "mic") | dict(
        method="mic",
        lr=SETTINGS["lr"],
        weight_decay=SETTINGS["weight_decay"],
        alpha=SETTINGS["alpha"],
        threshold=SETTINGS["threshold"],
        fd_weight=SETTINGS["feature_distance_weight"],
        mrm_weight=0.0,
    )
    settings = Settings(**values)
    (optimizer,) = optimizers_of(settings, student, None)
    teacher_logits: list[Tensor] = []
    predict = teacher.predict
    teacher.predict = lambda images: teacher_logits.append(predict(images)) or teacher_logits[-1]

    for index in range(3):
        step = step_inputs(parity, index)
        optimizer.zero_grad()
        batch = Batch(step.source, step.labels, step.target, step.trusted)
        losses = train_step(index, batch, models, settings, GivenDraws(step))
        gradients = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
        check_teacher(parity, index, teacher, teacher_logits[-1], teacher_logits[-1].argmax(1))
        optimizer.step()
        check_step(parity, index, {name: loss.item() for name, loss in losses.items()}, gradients, student)
