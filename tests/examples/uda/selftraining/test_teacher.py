"""The mean teacher by its closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from uda.selftraining.teacher import (
    balance,
    ema_alpha,
    make_teacher,
    pseudo_label,
    update_teacher,
)


class DropPath(nn.Module):
    """A stand-in with the name and attribute that timm, transformers and others give it."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(()) >= self.drop_prob) if self.training else x


def student_with_dropout() -> nn.Sequential:
    layers = [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Dropout2d(0.5), DropPath(0.5)]
    return nn.Sequential(*layers, nn.AlphaDropout(0.5))


def test_alpha_grows_to_its_limit() -> None:
    assert [ema_alpha(step, 0.9) for step in (0, 1, 3, 9, 10, 1000)] == pytest.approx([0, 0.5, 0.75, 0.9, 0.9, 0.9])


def test_at_step_zero_the_teacher_becomes_the_student() -> None:
    student, teacher = nn.Linear(3, 2), nn.Linear(3, 2)
    update_teacher(teacher, student, 0, 0.99)
    assert torch.equal(teacher.weight, student.weight)


def test_early_updates_average_all_students() -> None:
    teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for step, value in enumerate([1.0, 2.0, 6.0]):
        nn.init.constant_(student.weight, value)
        update_teacher(teacher, student, step, 0.999)
    assert teacher.weight.item() == pytest.approx(3.0)


def test_update_leaves_buffers_gradients_and_student_alone() -> None:
    student = student_with_dropout()
    student(torch.randn(2, 3, 4, 4)).sum().backward()
    teacher = make_teacher(student)
    assert all(p.grad is None for p in teacher.parameters())
    before = {key: value.clone() for key, value in student.state_dict().items()}
    teacher[1].running_mean.fill_(7.0)
    update_teacher(teacher, student, 5, 0.99)
    assert teacher[1].running_mean.tolist() == [7.0] * 4
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


def test_teacher_has_batch_statistics_but_no_dropout() -> None:
    student = student_with_dropout().eval()
    teacher = make_teacher(student)
    assert teacher.training
    x = torch.randn(4, 3, 5, 5)
    teacher.eval()
    teacher.train()  # as around an evaluation in between
    outs = [teacher(x) for _ in range(8)]
    assert all(torch.equal(out, outs[0]) for out in outs)
    expected = nn.functional.batch_norm(student[0](x), None, None, training=True)
    torch.testing.assert_close(outs[0], expected)
    assert student[2].p == 0.5 and student[4].drop_prob == 0.5


def test_teacher_of_attention_and_torchvision_layers() -> None:
    torchvision = pytest.importorskip("torchvision")
    student = nn.ModuleList([nn.MultiheadAttention(8, 2, dropout=0.5), torchvision.ops.StochasticDepth(0.5, "row")])
    teacher = make_teacher(student)
    assert teacher[0].dropout == 0.0
    assert teacher[1].p == 0.0


@pytest.mark.parametrize("name", ["mit_b0", "tu-convnext_atto"])
def test_teacher_of_library_encoders(name: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    extra = {"drop_path_rate": 0.5} if name.startswith("tu-") else {}
    depth = 4 if name.startswith("tu-") else 5
    teacher = make_teacher(smp.encoders.get_encoder(name, weights=None, depth=depth, **extra))
    paths = [module for module in teacher.modules() if type(module).__name__ == "DropPath"]
    assert paths
    assert all(module.drop_prob == 0.0 for module in paths)


def test_pseudo_label_weight_is_the_share_of_confident_pixels() -> None:
    logits = torch.zeros(2, 3, 2, 2)
    logits[0, 2] = 20.0  # the first image is certain, the second is not
    labels, weights = pseudo_label(logits.softmax(1), threshold=0.9)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [[[2, 2], [2, 2]], [[0, 0], [0, 0]]]
    assert weights.shape == (2, 2, 2)
    assert weights.unique().tolist() == [0.5]


def test_pseudo_label_counts_the_threshold_itself() -> None:
    _, weights = pseudo_label(torch.full((1, 2, 1, 1), 0.5), threshold=0.5)
    assert weights.item() == 1.0


def test_pixels_of_rare_labels_weigh_more_and_all_as_much_as_before() -> None:
    labels = torch.tensor([[[0] * 9, [0] * 9], [[0] * 9, [2] * 9]])  # a third as many of class 2; none of 1 and 3
    weights = torch.full((2, 2, 9), 0.5, dtype=torch.float64)
    balanced = balance(weights, labels, 4)
    assert balanced.dtype == torch.float64
    assert balanced.mean().item() == pytest.approx(0.5)
    assert (balanced[1, 1] / balanced[0, 0]).tolist() == pytest.approx([3**0.5] * 9)
    assert torch.equal(balance(weights, torch.full_like(labels, 2), 4), weights)  # one class alone


def test_buffers_are_averaged_where_wanted() -> None:
    student = nn.BatchNorm1d(2)
    teacher = make_teacher(student)
    student.running_mean.fill_(4.0)
    update_teacher(teacher, student, 3, 0.9)
    assert teacher.running_mean.tolist() == [0.0, 0.0]
    update_teacher(teacher, student, 3, 0.9, buffers=True)  # a quarter of the way
    assert teacher.running_mean.tolist() == [1.0, 1.0]
