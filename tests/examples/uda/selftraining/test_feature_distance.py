"""Feature distance and label down-scaling by their closed forms."""

from __future__ import annotations

import pytest
import torch
from uda.data.layouts import STREETS
from uda.selftraining.feature_distance import downscale_labels, feature_distance, thing_weights

STREET_THINGS = {"classes": STREETS.things, "num_classes": 19}


def distance(student, imagenet, labels, **things):
    return feature_distance(student, imagenet, thing_weights(labels, imagenet, **things or STREET_THINGS))


def test_downscale_wants_enough_of_one_class() -> None:
    labels = torch.tensor([[[6, 6, 7, 7], [6, 0, 7, 255]]])
    assert downscale_labels(labels, 2, 19).tolist() == [[[6, 7]]]  # three of four is exactly enough
    assert downscale_labels(labels, 2, 19, min_ratio=0.8).tolist() == [[[255, 255]]]
    assert torch.equal(downscale_labels(labels, 1, 19), labels)


def test_downscale_of_mostly_ignored_cells() -> None:
    assert downscale_labels(torch.tensor([[[255, 255], [255, 3]]]), 2, 19, 0.1).tolist() == [[[255]]]


def test_distance_is_the_mean_over_thing_cells() -> None:
    student = torch.zeros(1, 2, 1, 2, requires_grad=True)
    imagenet = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).repeat(1, 1, 1, 2)
    labels = torch.zeros(1, 4, 8, dtype=torch.long)
    labels[..., :4] = 13  # left cell: car, right cell: road
    imagenet[..., 1] = 100.0
    loss = distance([torch.empty(0), student], [torch.empty(0), imagenet], labels)
    assert loss.item() == 5.0
    loss.backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad[0, :, 0], torch.tensor([[-0.6, 0.0], [-0.8, 0.0]]))


def test_distances_of_parts_average_to_that_of_the_batch() -> None:
    student, imagenet = (torch.randn(2, 4, 2, 4) for _ in range(2))
    labels = torch.zeros(2, 8, 16, dtype=torch.long)
    labels[0, :4], labels[1, 4:, :4] = 13, 11  # four cells of the first image, one of the second
    weights = thing_weights(labels, [imagenet], **STREET_THINGS)
    parts = [feature_distance([student[i : i + 1]], [imagenet[i : i + 1]], weights[i : i + 1]) for i in (0, 1)]
    torch.testing.assert_close(sum(parts) / 2, feature_distance([student], [imagenet], weights))
    norms = (student - imagenet).norm(dim=1)
    torch.testing.assert_close(sum(parts) / 2, (norms[0, 0].sum() + norms[1, 1, 0]) / 5)


def test_half_precision_is_compared_in_float32() -> None:
    student, imagenet = (torch.randn(1, 4, 2, 4).bfloat16() for _ in range(2))
    found = distance([student], [imagenet], torch.full((1, 8, 16), 13))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (student.float() - imagenet.float()).norm(dim=1).mean())


def test_no_thing_gives_a_zero_on_the_graph() -> None:
    student = torch.randn(1, 2, 2, 2, requires_grad=True)
    loss = distance([student], [torch.zeros(1, 2, 2, 2)], torch.zeros(1, 8, 8, dtype=torch.long))
    assert loss.item() == 0.0
    loss.backward()
    assert student.grad is not None
    assert student.grad.abs().max() == 0.0


def test_other_classes_and_class_counts() -> None:
    student, zero = torch.ones(1, 4, 2, 2, requires_grad=True), torch.zeros(1, 4, 2, 2)
    labels = torch.full((1, 8, 8), 30)
    assert distance([student], [zero], labels, classes=[30], num_classes=31).item() == 2.0


def test_labels_that_do_not_scale_down_to_the_features() -> None:
    feats = [torch.zeros(1, 2, 2, 2)]
    with pytest.raises(ValueError, match=r"labels \(1, 8, 16\).*\(2, 2\)"):
        distance(feats, feats, torch.zeros(1, 8, 16, dtype=torch.long))
