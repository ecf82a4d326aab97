"""VFM-UDA's released checkpoints: every key used or named, nothing but weights unpickled."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from released_files import vfm_checkpoint
from torch import nn
from uda.checkpoints.evaluation import predict_ids
from uda.checkpoints.loading import load_init, load_networks
from uda.checkpoints.released import from_released, load_released, read_weights_only, released_settings
from uda.data.labels import CITYSCAPES_NAMES
from uda.data.transforms import normalise
from uda.networks.build import build_network

pytest.importorskip("timm", minversion="1.0.20")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network("vit_small_patch14_dinov2", "light", 19)


def dinov2_names(depth: int) -> set[str]:
    """Of a state dict of DINOv2's own class and VFM-UDA's head, written down from their code."""
    layers = ["patch_embed.proj", "norm"]
    for layer in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
        layers += [f"blocks.{i}.{layer}" for i in range(depth)]
    names = {f"encoder.{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    names |= {f"encoder.blocks.{i}.ls{n}.gamma" for i in range(depth) for n in (1, 2)}
    names |= {f"encoder.{name}" for name in ("cls_token", "pos_embed", "mask_token")}
    names |= {f"upscale.{i}.weight" for i in (0, 1, 3, 4, 5, 6)} | {f"upscale.{i}.bias" for i in (1, 4, 6)}
    return names | {"out.weight", "token_masking.mask_token"}


def test_names(network):
    assert set(vfm_checkpoint(network)) == {
        f"{model}.{k}" for model in ("network", "network_ema") for k in dinov2_names(12)
    }


@pytest.mark.parametrize(("which", "added"), [("student", 0), ("teacher", 1)])
def test_every_weight_is_used(network, which, added):
    state = vfm_checkpoint(network)
    expected = {"encoder": "vit_small_patch14_dinov2", "decoder": "light", "num_classes": 19}
    assert released_settings(state, which) == expected
    loaded = build_network(**released_settings(state, which))
    load_released(loaded, state, which)
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value + added), key


def test_what_does_not_fit(network):
    state = vfm_checkpoint(network)
    del state["network.upscale.5.weight"]
    state["network.extra.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"Missing.*decoder\.upscale\.5\.weight.* Unexpected.*extra.weight"):
        load_released(build_network("vit_small_patch14_dinov2", "light", 19), state)
    with pytest.raises(ValueError, match=r"keys that start with 'network_ema\.' for the teacher, found none"):
        from_released({"network.out.weight": torch.zeros(1)}, "teacher")
    with pytest.raises(ValueError, match=r"expected a DINOv2 encoder of 12 of width 384, .* got 0 blocks of width 0"):
        released_settings({"network.out.weight": torch.zeros(1)})


class Planted:
    """Something that must not be run when a file is read."""

    ran = False

    def __reduce__(self):
        return (plant, ("planted",))


def plant(_: str) -> None:
    Planted.ran = True


def test_weights_only(network, tmp_path):
    """Lightning's files also hold what the model was built with; nothing of it is made, or run."""
    path = tmp_path / "step40000.ckpt"
    extra = {"planted": Planted(), "network": nn.Linear(2, 2), "lr": 5e-5}
    torch.save({"state_dict": vfm_checkpoint(network), "hyper_parameters": extra, "global_step": 40000}, path)
    content = read_weights_only(path)
    assert not Planted.ran
    assert content["hyper_parameters"]["lr"] == 5e-5
    assert not isinstance(content["hyper_parameters"]["network"], nn.Module)
    loaded = load_networks(path)
    assert not Planted.ran
    assert set(loaded.networks) == {"student", "teacher"}
    assert (loaded.size, loaded.window) == ((1024, 2048), 1024)
    images = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        expected = network.eval().predict(images)
        assert torch.equal(loaded.networks["student"].predict(images), expected)
    start = build_network("vit_small_patch14_dinov2", "light", 19)
    load_init(start, str(path), CITYSCAPES_NAMES)
    with torch.no_grad():
        assert torch.equal(start.eval().predict(images), expected)
    with pytest.raises(ValueError, match=r"step40000.ckpt: state_dict does not fit the network: Missing"):
        load_init(build_network("small_vit", "light", 19), str(path), CITYSCAPES_NAMES)
    assert load_networks(path, ("student",)).networks.keys() == {"student"}


def test_what_cannot_be_left_out_is_named(tmp_path):
    torch.save({"state_dict": {}, "hyper_parameters": defaultdict(list, a=[1])}, tmp_path / "a.ckpt")
    with pytest.raises(
        ValueError, match=r"a\.ckpt: .*; it holds builtins\.list, collections\.defaultdict; .* subclass of dict"
    ):
        load_networks(tmp_path / "a.ckpt")


@pytest.mark.parametrize("names", [("small_vit", "light"), ("small", "small")])
def test_windows_are_averaged_as_probabilities(names):
    """As VFM-UDA evaluates: softmax of each window, the mean where they overlap; of other heads that of the logits."""
    torch.manual_seed(0)
    network = build_network(*names, 5).eval()
    image = torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8)
    with torch.no_grad():
        x = normalise(image / 255)[None]
        left, right = (network.predict(x[..., start : start + 32]) for start in (0, 16))
        if "light" in names:
            left, right = left.softmax(1), right.softmax(1)
    both = torch.cat([left[..., :16], (left[..., 16:] + right[..., :16]) / 2, right[..., 16:]], dim=-1)
    assert torch.equal(predict_ids(network, image, (32, 48), torch.device("cpu"), window=32), both[0].argmax(0))
