"""ClassMix, mixing, pseudo-labels, cross-entropies and EMA against the numbers of the DACS and MIC references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity import Parity, quirk_labels, quirk_weights
from torch import Tensor, nn
from uda.data.batches import without_margins
from uda.selftraining.mixing import class_mask, mix, present_ids
from uda.selftraining.teacher import ema_alpha, pseudo_label, update_teacher

from mrm_loss import weighted_cross_entropy


@pytest.fixture(scope="module")
def dacs() -> Parity:
    return Parity("dacs_pieces")


def teacher_logits(dacs: Parity) -> Tensor:
    """A wave in float32 with a peak of its own height at one class per pixel, (2, 19, 48, 64)."""
    logits = dacs.wave((2, 19, 48, 64), amp=0.5).float()
    j = np.arange(2 * 48 * 64, dtype=np.float64)
    height = torch.from_numpy((4.5 + 4.5 * np.sin(0.37 * j)).astype(np.float32)).view(2, 1, 48, 64)
    b, y, x = torch.meshgrid(torch.arange(2), torch.arange(48), torch.arange(64), indexing="ij")
    peak = ((y // 8) * 3 + (x // 8) * 5 + b) % 19
    return logits.scatter_add(1, peak.unsqueeze(1), height).double()


def test_source_labels(dacs: Parity) -> None:
    assert torch.equal(quirk_labels(2, 48, 64), dacs["src_label"])


@pytest.mark.parametrize("image", [0, 1])
def test_class_mask(dacs: Parity, image: int) -> None:
    labels = dacs["src_label"]
    present = labels.unique()
    assert present.tolist() == dacs.meta["batch_unique"]
    count, drawn, order = dacs.meta["class_choice_calls_n_k_indices"][image]
    assert (len(present), (len(present) + 1) // 2) == (count, drawn)
    mask = class_mask(labels[image : image + 1], present_ids(present[order].view(1, 1, -1)))
    assert torch.equal(mask.long(), dacs[f"mask.{image}"])


def test_pseudo_label_and_margins(dacs: Parity) -> None:
    labels, weights = pseudo_label(teacher_logits(dacs).softmax(1))
    assert torch.equal(labels, dacs["pseudo_label"])
    assert weights.float().unique().item() == dacs["pseudo_weight_value"].item()  # the reference keeps float32
    margins = without_margins(weights.float(), 15, 12, 0, 0)
    assert torch.equal(margins.double(), dacs["filtered_weight"])
    y, x = torch.arange(48).view(-1, 1), torch.arange(64)
    trusted = ((3 * y + x) % 5 != 0).float()
    assert torch.equal((weights.float() * trusted).double(), dacs["filtered_weight_validmask"])


def test_mix(dacs: Parity) -> None:
    mask = torch.cat([dacs["mask.0"], dacs["mask.1"]])[:, 0].bool()  # (2, 48, 64)
    source = dacs.wave((2, 3, 48, 64), amp=2.0)
    target = dacs.wave((2, 3, 48, 64), amp=2.0, shift=1.3)
    dacs.check("mixed_img", mix(mask, source, target))
    labels = mix(mask, dacs["src_label"], dacs["pseudo_label"].unsqueeze(1))
    assert torch.equal(labels, dacs["mixed_label"])
    weights = mix(mask, torch.ones(2, 48, 64).double(), dacs["filtered_weight"])
    assert torch.equal(weights, dacs["mixed_weight"])


def test_cross_entropies(dacs: Parity) -> None:
    logits = dacs.wave((2, 19, 48, 64), amp=3.0, shift=0.5).requires_grad_()
    labels = dacs["src_label"].squeeze(1)
    weights = quirk_weights((2, 48, 64))
    stored = dacs.meta["cross_entropy"]["values"]["f64"]
    weighted = weighted_cross_entropy(logits, labels, weights)
    assert weighted.item() == pytest.approx(stored["mmseg_weighted"], rel=1e-9)
    assert weighted.item() == pytest.approx(stored["dacs_pixelwise_weighted"], rel=1e-9)
    assert weighted_cross_entropy(logits, labels).item() == pytest.approx(stored["mmseg_noweight"], rel=1e-9)
    valid = weighted_cross_entropy(logits, labels, reduction="valid")
    assert valid.item() == pytest.approx(stored["dacs_CrossEntropy2d"], rel=1e-9)
    weighted.backward()
    assert logits.grad is not None
    dacs.check("ce_grad_logits", logits.grad)
    assert weighted_cross_entropy(logits, torch.full_like(labels, 255)).item() == stored["all_ignored_mmseg"] == 0.0


class Scaled(nn.Module):
    """A convolution, a BatchNorm and (for MIC's rule) a scalar."""

    def __init__(self, scalar: bool) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        if scalar:
            self.sc = nn.Parameter(torch.zeros(()))


def filled(dacs: Parity, scalar: bool, fill: str) -> Scaled:
    module = Scaled(scalar)
    module.load_state_dict(dacs.fill(module.state_dict(), fill))
    return module


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for _, p in module.named_parameters()]).double()


def test_ema(dacs: Parity) -> None:
    recipe = dacs.meta["ema"]["traj"]
    student, teacher = filled(dacs, True, "hash"), filled(dacs, True, "sin")
    buffers = teacher.bn.running_var.clone()
    update_teacher(teacher, student, 0, 0.999)
    assert torch.equal(flat(teacher), flat(student)) == recipe["init_equal_params"]
    assert torch.equal(teacher.bn.running_var, buffers)  # buffers are not the average's business
    rows = []
    for step in dacs.meta["ema"]["iters"]:
        with torch.no_grad():
            for j, parameter in enumerate(student.parameters()):
                wave = np.sin(np.arange(parameter.numel(), dtype=np.float64) + step + j).astype(np.float32)
                parameter += torch.from_numpy(wave).view_as(parameter) * (0.01 * step**0.5)
        update_teacher(teacher, student, step, 0.999)
        rows.append(flat(teacher))
        assert ema_alpha(step, 0.999) == pytest.approx(recipe[f"alpha_{step}"], rel=1e-15)
    assert torch.equal(flat(student), dacs["ema_student_final"])
    assert torch.equal(torch.stack(rows), dacs["ema_params_after_updates"])  # bit for bit, in float32


def test_ema_of_dacs(dacs: Parity) -> None:
    student, teacher = filled(dacs, False, "hash"), filled(dacs, False, "sin")
    rows = []
    for step in range(3):
        update_teacher(teacher, student, step, 0.99)
        rows.append(flat(teacher))
    assert torch.equal(torch.stack(rows), dacs["dacs_repo_ema_iter012_fixed_student"])
