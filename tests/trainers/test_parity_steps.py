"""Three training steps of MIC against MIC's own numbers, put together from the pieces the trainers use."""

from __future__ import annotations

import pytest
import torch
from mic_steps import SETTINGS, build, build_student, check_step, check_teacher, step_inputs
from parity import Parity
from torch import Tensor, nn
from uda.losses import feature_distance
from uda.mixing import mix
from uda.optim import adamw
from uda.teacher import make_teacher, pseudo_label, update_teacher

pytest.importorskip("segmentation_models_pytorch")


def test_three_steps_of_mic() -> None:
    parity = Parity("uda_mic_steps")
    student, imagenet = build_student(parity), build(parity, "sin").encoder.eval()
    teacher = make_teacher(student)
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()  # the reference's teacher starts with fresh statistics
    optimizer = adamw(student, SETTINGS["lr"], SETTINGS["weight_decay"])
    for index in range(3):
        step, losses = step_inputs(parity, index), {}
        update_teacher(teacher, student, index, SETTINGS["alpha"])
        optimizer.zero_grad()

        def backward(name: str, parts: dict[str, Tensor], losses: dict[str, float] = losses) -> None:
            losses[f"{name}decode.loss_seg"] = parts["fused"].item()
            losses[f"{name}decode.hr.loss_seg"] = parts["detail"].item()
            (parts["fused"] + parts["detail"]).backward(retain_graph=name == "")

        feats = student.encode(step.source, step.source_box)
        backward("", student.loss_parts(feats, step.labels))
        with torch.no_grad():
            reference = imagenet(student.context_images(step.source))
        distance = feature_distance(student.context_levels(feats), reference, step.labels)
        distance = SETTINGS["feature_distance_weight"] * distance
        distance.backward()
        losses["src.loss_imnet_feat_dist"] = distance.item()

        with torch.no_grad():
            logits = teacher.predict(step.target)
        pseudo_labels, weights = pseudo_label(logits, SETTINGS["threshold"])
        losses["pseudo_weight"] = weights[0, 0, 0].item()
        check_teacher(parity, index, teacher, logits, pseudo_labels)
        weights = weights * step.trusted

        mixed = student.encode(mix(step.paste, step.source, step.target), step.mixed_box)
        mixed_labels = mix(step.paste, step.labels, pseudo_labels)
        mixed_weights = mix(step.paste, torch.ones_like(weights), weights)
        backward("mix.", student.loss_parts(mixed, mixed_labels, mixed_weights))

        masked = student.encode(step.target * step.keep, step.masked_box)
        backward("masked.", student.loss_parts(masked, pseudo_labels, weights))

        gradients = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
        optimizer.step()
        check_step(parity, index, losses, gradients, student)
