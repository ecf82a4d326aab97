"""The networks' contract: shapes, what the Rebuilder gets, losses, weights from files, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from uda.checkpoints.loading import network_of
from uda.networks.backbones import Encoder
from uda.networks.build import build_network
from uda.networks.hrda import HRDA, HRDADecoder
from uda.networks.segmentor import cut, join, pixel_loss
from uda.networks.sliding import Box
from uda.settings import Settings

from mrm_loss import MRM

pytest.importorskip("segmentation_models_pytorch")


def test_the_decoder_is_as_wide_as_the_setting_says():
    network = network_of(Settings(encoder="resnet18", decoder="daformer", decoder_width=16), 5)
    assert {embed.out_features for embed in network.decoder.embed} == {network.decoder.classify.in_channels} == {16}
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 5, 16, 16)


@pytest.mark.parametrize(
    ("encoder", "decoder", "stride"),
    [
        ("mit_b0", "daformer", 4),
        ("resnet18", "daformer", 4),
        ("resnet18", "deeplabv2", 8),
        ("resnet18", "deeplabv3plus", 4),
    ],
)
@pytest.mark.parametrize("size", [(64, 96), (70, 53)])
def test_one_resolution(encoder: str, decoder: str, stride: int, size: tuple[int, int]) -> None:
    network = build_network(encoder, decoder, 5, embed_dim=16).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        feats = network.encode(images)
        assert [level.shape[1] for level in feats] == network.encoder.out_channels
        cells = [tuple(-(-edge // s) for edge in size) for s in network.encoder.strides]
        assert [tuple(level.shape[-2:]) for level in feats] == cells
        assert network(images).shape == (2, 5, *(-(-edge // stride) for edge in size))
        assert network.predict(images).shape == (2, 5, *size)
    assert network.draw_box(size) is None


@pytest.mark.parametrize(
    ("encoder", "decoder"), [("mit_b0", "daformer"), ("resnet18", "deeplabv2"), ("small", "small")]
)
def test_hrda_of_any_size(encoder: str, decoder: str) -> None:
    network = build_network(encoder, decoder, 5, hrda=True, embed_dim=16, detail_crop=32).eval()
    with torch.no_grad():
        for size in [(64, 64), (61, 83), (90, 70)]:
            assert network.predict(torch.randn(1, 3, *size)).shape == (1, 5, *size)


def labels_like(images: Tensor, num_classes: int = 5) -> Tensor:
    labels = torch.randint(num_classes, (images.shape[0], *images.shape[-2:]))
    labels[:, :3] = 255
    return labels


@pytest.mark.parametrize("hrda", [False, True])
@pytest.mark.parametrize(("encoder", "decoder"), [("mit_b0", "daformer"), ("resnet18", "deeplabv2")])
def test_a_training_step_with_mrm_reaches_every_parameter(encoder: str, decoder: str, hrda: bool) -> None:
    network = build_network(encoder, decoder, 5, hrda=hrda, embed_dim=16, detail_crop=64)
    factors = [32 // stride for stride in network.encoder.strides]
    mrm = MRM(network.used_channels, scale_factors=factors, grid_size=2, embed_dim=32, num_heads=4)
    images = torch.randn(2, 3, 128, 128)
    labels, weights = labels_like(images), torch.rand(2, 128, 128)
    box = network.draw_box((128, 128), torch.Generator().manual_seed(0))
    feats = network.encode(images, box)
    masks = []

    def rebuild(levels: list[Tensor]) -> list[Tensor]:
        rebuilt, mask = mrm.rebuild(levels)
        masks.append(mask)
        return rebuilt

    loss = network.loss(network.rebuild(feats, rebuild), labels, weights)
    loss.backward()
    assert len(masks) == (2 if hrda else 1)
    for module in (network, mrm):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name


@pytest.mark.parametrize("hrda", [False, True])
@pytest.mark.parametrize(("encoder", "decoder"), [("mit_b0", "daformer"), ("resnet18", "deeplabv2")])
def test_losses_of_cut_features_go_backward_one_by_one(encoder: str, decoder: str, hrda: bool) -> None:
    """The gradients of their sum, and one backward of the encoder for all."""
    network = build_network(encoder, decoder, 5, hrda=hrda, embed_dim=16, detail_crop=64).double().eval()
    images = torch.randn(2, 3, 128, 128, dtype=torch.float64)
    labels, box = labels_like(images), network.draw_box((128, 128))
    first = next(network.encoder.parameters())
    backwards: list[Tensor] = []
    first.register_hook(backwards.append)

    def halved(levels: list[Tensor]) -> list[Tensor]:
        return [level / 2 for level in levels]

    feats = network.encode(images, box)
    (network.loss(feats, labels) + network.loss(network.rebuild(feats, halved), labels)).backward()
    expected = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    times = len(backwards)
    network.zero_grad()
    backwards.clear()

    feats = network.encode(images, box)
    leaves = cut(feats)
    network.loss(leaves, labels).backward()
    network.loss(network.rebuild(leaves, halved), labels).backward()
    assert first.grad is None
    join(feats, leaves)
    found = [p.grad for p in network.parameters() if p.grad is not None]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert len(backwards) == times == 1


def test_mrm_through_the_network_is_mrm_called_directly() -> None:
    network = build_network("mit_b0", num_classes=5, embed_dim=16).eval()
    mrm = MRM(network.used_channels, grid_size=2, embed_dim=32, num_heads=4).eval()
    images = torch.randn(2, 3, 64, 64)
    labels, weights = labels_like(images), torch.rand(2, 64, 64)
    feats = network.encode(images)
    mask = torch.rand(2, 1, 2, 2) < 0.5
    direct = mrm(feats, network.decode, labels, weights, mask=mask)
    rebuilt = network.rebuild(feats, lambda levels: mrm.rebuild(levels, mask)[0])
    torch.testing.assert_close(network.loss(rebuilt, labels, weights), direct)


def test_hrda_losses_are_weighted_parts() -> None:
    network = build_network("mit_b0", num_classes=5, hrda=True, embed_dim=16, detail_crop=32).eval()
    images = torch.randn(1, 3, 64, 64)
    labels, weights = labels_like(images), torch.rand(1, 64, 64)
    box = Box(8, 40, 24, 56)
    feats = network.encode(images, box)
    logits = network.decoder(feats)
    fused = pixel_loss(logits.fused, labels, weights)
    expected = 0.9 * fused + 0.1 * pixel_loss(logits.detail, box.crop(labels), box.crop(weights))
    torch.testing.assert_close(network.loss(feats, labels, weights), expected)
    torch.testing.assert_close(network.loss(feats, labels, 2.0), 2 * network.loss(feats, labels))


class MeanColour(nn.Module):
    """An encoder and a head whose logits are the image's own colours at stride 4."""

    out_channels = (3,)
    used_channels = (3,)

    def forward(self, x: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        return [nn.functional.avg_pool2d(x, 4)] if isinstance(x, Tensor) else x[0]


class Constant(nn.Module):
    """A scale attention that trusts the detail everywhere or nowhere."""

    def __init__(self, score: float) -> None:
        super().__init__()
        self.score = score

    def forward(self, feats: list[Tensor]) -> Tensor:
        return torch.full_like(feats[0], self.score)


def test_hrda_fuses_detail_where_attention_trusts_it() -> None:
    colours = MeanColour()
    images = torch.rand(2, 3, 64, 96)
    full = nn.functional.avg_pool2d(images, 4)
    detail = HRDA(colours, HRDADecoder(colours, Constant(100.0)), detail_crop=32)
    torch.testing.assert_close(detail(images), full)  # overlapping crops of the same colours
    context = HRDA(colours, HRDADecoder(colours, Constant(-100.0)), detail_crop=32)
    half = nn.functional.interpolate(images, scale_factor=0.5, mode="bilinear")
    expected = nn.functional.interpolate(nn.functional.avg_pool2d(half, 4), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(context(images), expected)


def test_hrda_uses_detail_only_inside_its_crop() -> None:
    colours = MeanColour()
    images = torch.rand(1, 3, 64, 64)
    network = HRDA(colours, HRDADecoder(colours, Constant(100.0)), detail_crop=32)
    feats = network.encode(images, Box(16, 48, 32, 64))
    logits = network.decoder(feats)
    assert logits.attention[0, 0, 2:6, 4:8].min() == 1.0
    assert logits.attention.sum() == 3 * 16
    cells = Box(4, 12, 8, 16)
    full = nn.functional.avg_pool2d(images, 4)
    centre = Box(5, 11, 9, 15)  # the attention is blurred at the crop's edge
    torch.testing.assert_close(centre.crop(logits.fused), centre.crop(full))
    torch.testing.assert_close(logits.detail, cells.crop(full))


def test_boxes_lie_inside_on_the_grid() -> None:
    network = build_network("mit_b0", num_classes=5, hrda=True, embed_dim=16, detail_crop=32)
    generator = torch.Generator().manual_seed(0)
    boxes = [network.draw_box((96, 64), generator) for _ in range(400)]
    assert {box.top for box in boxes} == set(range(0, 64, 8))
    assert {box.left for box in boxes} == set(range(0, 32, 8))
    assert all(box.bottom - box.top == box.right - box.left == 32 for box in boxes)
    assert network.draw_box((32, 24)) == Box(0, 32, 0, 24)


def test_weights_from_a_file(tmp_path: Path) -> None:
    source = Encoder("resnet18")
    state = {**source.body.state_dict(), "fc.weight": torch.zeros(3, 3), "fc.bias": torch.zeros(3)}
    plain, wrapped = tmp_path / "resnet18.pth", tmp_path / "wrapped.pth"
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, plain)
    torch.save({"state_dict": {f"backbone.{key}": value for key, value in state.items()}, "epoch": 3}, wrapped)
    for path in (plain, wrapped):
        loaded = Encoder("resnet18", weights=str(path))
        assert torch.equal(loaded.body.layer4[1].conv2.weight, source.body.layer4[1].conv2.weight)
    with pytest.raises(ValueError, match=r"resnet18\.pth does not fit the encoder: Missing.*patch_embed1"):
        Encoder("mit_b0", weights=str(plain))
    with pytest.raises(FileNotFoundError, match=r'"imagenet" or a file.*nowhere\.pth'):
        Encoder("resnet18", weights="nowhere.pth")
    torch.save({"state_dict": [1, 2]}, wrapped)
    with pytest.raises(ValueError, match=r"wrapped\.pth: expected a file of weights; found a list"):
        Encoder("resnet18", weights=str(wrapped))
    torch.save({**state, "conv1.weight": state["conv1.weight"] / 0}, plain)
    with pytest.raises(ValueError, match=r"resnet18\.pth .* values that are not finite in conv1\.weight"):
        Encoder("resnet18", weights=str(plain))


@pytest.mark.parametrize("size", [0, 5, 5000])
def test_a_torn_file_of_weights_is_named(tmp_path: Path, size: int) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "resnet18.safetensors"
    save_file({key: value.clone() for key, value in Encoder("resnet18").body.state_dict().items()}, path)
    Encoder("resnet18", weights=str(path))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        ValueError, match=r"^encoder weights: .*resnet18\.safetensors: expected a whole file of weights"
    ):
        Encoder("resnet18", weights=str(path))


def test_an_unreachable_hub_names_the_file_and_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    import segmentation_models_pytorch.encoders as library

    def offline(*args: object, **kwargs: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(library, "hf_hub_download", offline)
    with pytest.raises(ConnectionError, match=r"mit_b0.*no route.*model\.safetensors.*--encoder-weights FILE"):
        Encoder("mit_b0", weights="imagenet")


def test_drop_path_grows_over_the_blocks() -> None:
    rates = [m.drop_prob for m in Encoder("mit_b0").body.modules() if type(m).__name__ == "DropPath"]
    assert rates == pytest.approx([0.1 * block / 7 for block in range(1, 8)])


def test_an_unknown_encoder() -> None:
    with pytest.raises(ValueError, match=r"name.*resnet7"):
        Encoder("resnet7")
