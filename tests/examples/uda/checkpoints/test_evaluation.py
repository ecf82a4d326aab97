from __future__ import annotations

import numpy as np
import pytest
import torch
from uda.checkpoints.evaluation import class_iou, confusion_matrix, iou_table, mean_in_words, mean_iou


def test_iou_by_counting():
    labels = torch.tensor([[0, 0, 1], [1, 255, 0]])
    predicted = torch.tensor([[0, 1, 1], [2, 0, 0]])
    confusion = confusion_matrix(labels, predicted, 4)
    assert confusion.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    iou = class_iou(confusion)
    assert iou[:2].tolist() == pytest.approx([100 * 2 / 3, 100 / 3])
    assert iou[2] == 0  # predicted once, labelled nowhere
    assert iou[3].isnan()  # neither
    assert mean_iou(confusion) == pytest.approx(100 / 3)
    assert mean_iou(confusion, [0, 1, 3]) == pytest.approx(50)


def test_the_mean_says_which_classes_it_is_over():
    labels, names = torch.tensor([[0, 0, 1, 1]]), ["road", "sky", "car", "bus"]
    one, other = (confusion_matrix(labels, torch.tensor([row]), 4) for row in ([0, 0, 1, 2], [0, 0, 1, 1]))
    assert mean_in_words({"student": one, "teacher": one}, names) == (
        "mIoU is over 3 of 4 classes; neither labelled nor predicted: bus; "
        "counted as 0, for they are predicted and have no labelled pixel: car"
    )
    first, second = mean_in_words({"student": one, "teacher": other}, names, [0, 2]).splitlines()
    assert first.startswith("mIoU of the student is over 2 of 2 classes; counted as 0") and first.endswith(": car")
    assert second == "mIoU of the teacher is over 1 of 2 classes; neither labelled nor predicted: car"
    table = iou_table({"student": one, "teacher": other}, names).splitlines()
    assert [line.split() for line in table[1:4]] == [
        ["road", "100.0", "100.0"],
        ["sky", "50.0", "100.0"],
        ["car", "0.0"],
    ]
    assert table[-1].split() == ["mIoU", "50.00", "100.00"]


def test_the_mean_is_that_of_the_published_code():
    """As mmsegmentation 0.16 counts: the mean over classes of intersection / union, without those of no union."""
    gen = torch.Generator().manual_seed(0)
    for _ in range(20):
        labels = torch.randint(0, 4, (5, 7), generator=gen)
        predicted = torch.randint(0, 6, (5, 7), generator=gen)
        labels[torch.rand(5, 7, generator=gen) < 0.2] = 255
        counted = labels != 255
        y, p = labels[counted].numpy(), predicted[counted].numpy()
        both = np.array([((y == k) & (p == k)).sum() for k in range(8)], float)
        either = np.array([((y == k) | (p == k)).sum() for k in range(8)], float)
        with np.errstate(invalid="ignore"):
            expected = 100 * np.nanmean(both / either)
        assert mean_iou(confusion_matrix(labels, predicted, 8)) == pytest.approx(expected)


def test_table_names_classes_and_networks():
    labels, k = torch.arange(19).repeat(2), 19
    table = iou_table(
        {"student": confusion_matrix(labels, labels, k), "teacher": confusion_matrix(labels, labels * 0, k)}
    )
    lines = table.splitlines()
    assert lines[0].split() == ["class", "student", "teacher"]
    assert lines[1].split()[0] == "road"
    assert lines[-1].split() == ["mIoU", "100.00", f"{100 / 19 / 19:.2f}"]
