"""The blocks of `examples/libraries.md`: features, decoder and MRM fit together and are trained."""

from __future__ import annotations

import warnings

import framework_scripts as page
import pytest
import torch

for library in ("segmentation_models_pytorch", "torchvision", "timm", "transformers", "mmseg", "mmcv"):
    pytest.importorskip(library)
pytestmark = pytest.mark.integration

BLOCKS = page.blocks(page.LIBRARIES)
FIRST = "What to give"  # what all go on from
AFTER = {"mmsegmentation 2": ["mmsegmentation"], "Mask2Former and OneFormer 2": ["Mask2Former and OneFormer"]}
HRDA = "HRDA and other networks of two resolutions"


def run(name):
    """The block at a quarter of its image size, after those that it goes on from."""
    names = {}
    for part in (FIRST, *AFTER.get(name, []), name):
        code = BLOCKS[part].replace("512", "128").replace("518", "126").replace("3, 1024, 1024", "3, 256, 256")
        code = code.replace("(2, 1024, 1024)", "(2, 256, 256)")
        exec(compile(code, f"{page.LIBRARIES.name}: {name}", "exec"), names)
    return names


@pytest.mark.parametrize("name", [name for name in BLOCKS if name not in (FIRST, HRDA, "mmsegmentation 2")])
def test_block(name):
    names = run(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*coarser than the mask's grid")  # at a quarter of the size
        warnings.filterwarnings("ignore", message=".*Lazy modules")
        loss = names["mrm"](names["feats"], names["decoder"], names["pseudo_labels"])
    loss.backward()
    assert loss.isfinite()
    assert [n for n, p in names["mrm"].named_parameters() if p.grad is None or not p.grad.any()] == []
    levels = [names["feats"]] if isinstance(names["feats"], torch.Tensor) else names["feats"]
    assert all(f.requires_grad for f, c in zip(levels, names["mrm"].rebuilder.encoder_channels) if c)


def test_two_resolutions():
    """One Rebuilder serves both, with a mask each, and the loss reaches all that is trained."""
    names = run(HRDA)
    names["loss"].backward()
    assert all(p.grad.any() for p in names["mrm"].parameters())
    assert all(p.grad is not None for p in names["model"].parameters())
    assert names["context"][-1].shape == names["detail"][-1].shape  # so that the same scale_factors fit both
    assert names["fused"].shape[-2:] == names["labels"].shape[-2:]


def test_mmengine_builds_the_optimiser():
    names = run("mmsegmentation 2")
    names["losses"]["loss_mrm"].backward()
    rates = {p: group["lr"] for group in names["optimizer"].param_groups for p in group["params"]}
    model = names["model"]
    assert rates.keys() >= set(model.parameters())
    assert [rates[p] for p in model.mrm.parameters()] == pytest.approx([2e-4] * len(list(model.mrm.parameters())))
    assert {rates[p] for p in model.backbone.parameters()} == {6e-5}
    assert all(p.grad.any() for p in model.mrm.parameters())
