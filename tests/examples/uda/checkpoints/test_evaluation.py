from __future__ import annotations

import pytest
import torch
from uda.checkpoints.evaluation import class_iou, confusion_matrix, iou_table, mean_iou


def test_iou_by_counting():
    labels = torch.tensor([[0, 0, 1], [1, 255, 0]])
    predicted = torch.tensor([[0, 1, 1], [2, 0, 0]])
    confusion = confusion_matrix(labels, predicted, 4)
    assert confusion.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    iou = class_iou(confusion)
    assert iou[:2].tolist() == pytest.approx([100 * 2 / 3, 100 / 3])
    assert iou[2:].isnan().all()  # without a labelled pixel
    assert mean_iou(confusion) == pytest.approx(50)


def test_table_names_classes_and_networks():
    labels, k = torch.arange(19).repeat(2), 19
    table = iou_table(
        {"student": confusion_matrix(labels, labels, k), "teacher": confusion_matrix(labels, labels * 0, k)}
    )
    lines = table.splitlines()
    assert lines[0].split() == ["class", "student", "teacher"]
    assert lines[1].split()[0] == "road"
    assert lines[-1].split() == ["mIoU", "100.00", f"{100 / 19 / 19:.2f}"]
