"""The libraries' blocks of `examples/frameworks.md`: features, decoder and MRM fit together and are trained."""

from __future__ import annotations

import warnings

import framework_scripts as page
import pytest
import torch

for library in ("segmentation_models_pytorch", "torchvision", "timm", "transformers", "mmseg", "mmcv"):
    pytest.importorskip(library)
pytestmark = pytest.mark.integration

BLOCKS = page.blocks()
NAMES = list(BLOCKS)[list(BLOCKS).index("Segmentation libraries") + 1 :]


def run(name):
    """The block at a quarter of its image size, after those lines that all of them start with."""
    names = {}
    for part in ("Segmentation libraries", name):
        code = BLOCKS[part].replace("512", "128").replace("518", "126")
        exec(compile(code, f"{page.PAGE.name}: {name}", "exec"), names)
    return names


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("mmsegmentation 2", NAMES[-1])])
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


def test_mmengine_builds_the_optimiser():
    names = run("mmsegmentation 2")
    names["losses"]["loss_mrm"].backward()
    rates = {p: group["lr"] for group in names["optimizer"].param_groups for p in group["params"]}
    model = names["model"]
    assert rates.keys() >= set(model.parameters())
    assert [rates[p] for p in model.mrm.parameters()] == pytest.approx([2e-4] * len(list(model.mrm.parameters())))
    assert {rates[p] for p in model.backbone.parameters()} == {6e-5}
    assert all(p.grad.any() for p in model.mrm.parameters())


def test_a_head_and_a_loss_of_ones_own():
    names = run("A head and a loss of your own")
    for module in (names["encoder"], names["depth_head"], names["mrm"]):
        assert all(p.grad.any() for p in module.parameters())
