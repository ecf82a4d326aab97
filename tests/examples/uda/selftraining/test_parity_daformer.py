"""Rare class sampling and feature distance against DAFormer's numbers."""

from __future__ import annotations

import pytest
import torch
from parity import Parity
from uda.data.layouts import STREETS
from uda.data.rare_class import RareClassSampler
from uda.selftraining.feature_distance import downscale_labels, feature_distance, thing_weights


@pytest.fixture(scope="module")
def daformer() -> Parity:
    return Parity("daformer_pieces")


def labels_of(daformer: Parity) -> torch.Tensor:
    return daformer["fd.label"].squeeze(1).long()


@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_class_probabilities(daformer: Parity, temperature: float) -> None:
    counts = {int(k): count for k, count in daformer.meta["rcs_pixel_counts"].items()}
    sampler = RareClassSampler([counts], temperature)
    assert sampler.classes == daformer[f"rcs.classes.T{temperature}"].tolist()
    error = (sampler.probabilities.double() - daformer[f"rcs.prob.T{temperature}"]).abs().max()
    error /= sampler.probabilities.std()
    assert error < 1e-9


@pytest.mark.parametrize("factor", [4, 8, 16, 32])
@pytest.mark.parametrize("min_ratio", [0.75, 0.5])
def test_downscale_labels(daformer: Parity, factor: int, min_ratio: float) -> None:
    found = downscale_labels(labels_of(daformer), factor, 19, min_ratio)
    assert torch.equal(found, daformer[f"downscale.sf{factor}.mr{min_ratio}"].squeeze(1))


def test_feature_distance(daformer: Parity) -> None:
    recipe = daformer.meta["fd"]
    assert recipe["classes"] == STREETS.things
    feats = daformer.wave((2, 64, 4, 6)).requires_grad_()
    imagenet = daformer.wave((2, 64, 4, 6), shift=0.8)
    weights = thing_weights(labels_of(daformer), [imagenet], recipe["classes"], num_classes=19)
    loss = recipe["lam"] * feature_distance([feats], [imagenet], weights)
    assert loss.item() == pytest.approx(recipe["loss_f64"], rel=1e-9)
    loss.backward()
    assert feats.grad is not None
    daformer.check("fd.grad", feats.grad)
    weights = thing_weights(torch.full((2, 128, 192), 255), [imagenet], recipe["classes"], num_classes=19)
    empty = feature_distance([feats], [imagenet], weights)
    assert empty.item() == 0.0 and empty.requires_grad  # the reference has NaN, with zero gradients
