"""Encoder, decoder heads and HRDA against the numbers of MIC's code, through the networks the trainers build."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from parity import Parity, quirk_labels, quirk_weights
from torch import Tensor, nn
from uda.checkpoints.released import load_released, rename
from uda.networks.backbones import Encoder
from uda.networks.build import build_network
from uda.networks.heads import DAFormerHead, DeepLabV2Head
from uda.networks.hrda import HRDA, HRDAFeatures
from uda.networks.segmentor import pixel_loss
from uda.networks.sliding import Box, sliding_rows
from uda.runtime.files import load_strictly

pytest.importorskip("segmentation_models_pytorch")


def load_head(head: nn.Module, official: dict[str, Tensor]) -> nn.Module:
    """Load a decoder's official weights by way of the checkpoint reader's names."""
    state = {rename(f"decode_head.{key}").removeprefix("decoder."): value for key, value in official.items()}
    load_strictly(head.double(), state, "the head")
    return head


def load_network(network: nn.Module, official: dict[str, Tensor]) -> nn.Module:
    """Load a network's official weights, all of them but BatchNorm's counters, which the recipe leaves out."""
    load_released(network.double(), official)
    return network


def test_mit() -> None:
    parity = Parity("mit_b0_hash")
    encoder = Encoder("mit_b0").double().eval()
    nn.Module.load_state_dict(encoder.body, parity.weights())
    images = parity.wave((2, 3, 128, 192), amp=2.0).requires_grad_()
    levels = encoder(images)
    assert [level.shape[1] for level in levels] == encoder.out_channels == [32, 64, 160, 256]
    for index, level in enumerate(levels):
        parity.check(f"out.{index}", level)
    total = torch.stack([(x * parity.cotangent(tuple(x.shape), 0.7 * i)).sum() for i, x in enumerate(levels)]).sum()
    total.backward()
    assert images.grad is not None
    parity.check("grad.input", images.grad)
    check_gradients(parity, "grad.", encoder.body, str)


def check_gradients(parity: Parity, prefix: str, module: nn.Module, name_of: object) -> None:
    """Every stored gradient against the module's, found under `name_of(official key)`."""
    parameters = dict(module.named_parameters())
    keys = [key for key in parity.meta["tensors"] if key.startswith(prefix) and "input" not in key]
    assert keys
    for key in keys:
        gradient = parameters[name_of(key.removeprefix(prefix))].grad
        assert gradient is not None
        parity.check(key, gradient)


def test_daformer_head() -> None:
    parity = Parity("daformer_head_hash")
    channels, sizes = [32, 64, 160, 256], parity.meta["config"]["sizes"]
    feats = [parity.wave((2, c, *size), shift=0.1 * i) for i, (c, size) in enumerate(zip(channels, sizes))]
    labels, weights = quirk_labels(2, 128, 192).squeeze(1), quirk_weights((2, 128, 192))
    head = load_head(DAFormerHead(channels, 19, embed_dim=64), parity.weights()).eval()
    logits = head(feats)
    parity.check("eval.logits", logits)
    parity.check("eval.loss_seg", pixel_loss(logits, labels, weights))
    parity.check("eval.loss_seg_noweight", pixel_loss(logits, labels))

    head.train()
    head.dropout.eval()
    feats[-1].requires_grad_()
    logits = head(feats)
    loss = pixel_loss(logits, labels, weights)
    parity.check("train.logits", logits)
    parity.check("train.loss_seg", loss)
    loss.backward()
    assert feats[-1].grad is not None
    parity.check("train.grad.input_last", feats[-1].grad)

    def ours(key: str) -> str:
        return rename(f"decode_head.{key}").removeprefix("decoder.")

    check_gradients(parity, "train.grad.", head, ours)
    after = [key for key in parity.meta["tensors"] if key.startswith("train.after.")]
    for key in after:
        parity.check(key, head.state_dict()[ours(key.removeprefix("train.after."))])


@pytest.mark.parametrize("dilations", [(6, 12), (6, 12, 18, 24)])
def test_deeplabv2_head(dilations: tuple[int, ...]) -> None:
    parity = Parity("dlv2_head_hash")
    name = "d" + "_".join(map(str, dilations))
    head = load_head(DeepLabV2Head([256], 19, dilations), parity.weights(f"weights_{name}"))
    feats = parity.wave((2, 256, 33, 24)).requires_grad_()
    logits = head([feats])
    parity.check(f"{name}.logits", logits)
    loss = pixel_loss(logits, quirk_labels(2, 264, 192).squeeze(1))
    parity.check(f"{name}.loss_seg", loss)
    loss.backward()
    assert feats.grad is not None
    parity.check(f"{name}.grad.input", feats.grad)
    gradient = head.branches[0].weight.grad
    parity.check(f"{name}.grad.aspp_modules.0.conv.weight", gradient)


@pytest.fixture(scope="module")
def hrda_parity() -> Parity:
    return Parity("hrda_mitb0_hash")


def build_hrda(parity: Parity) -> HRDA:
    network = build_network("mit_b0", num_classes=19, hrda=True, embed_dim=64, attention_dim=256, detail_crop=128)
    assert isinstance(network, HRDA)
    load_network(network, parity.weights())
    return network.eval()


def check_parts(parity: Parity, prefix: str, network: HRDA, feats: HRDAFeatures) -> Tensor:
    logits = network.decoder(feats)
    parity.check(f"{prefix}.fused", logits.fused)
    parity.check(f"{prefix}.lr", logits.context)
    parity.check(f"{prefix}.hr", logits.detail)
    return logits.attention


def test_hrda_losses_in_eval_mode(hrda_parity: Parity) -> None:
    parity, network = hrda_parity, build_hrda(hrda_parity)
    images = parity.wave((2, 3, 256, 256), amp=2.0)
    labels, weights = quirk_labels(2, 256, 256).squeeze(1), quirk_weights((2, 256, 256))
    with torch.no_grad():
        feats = network.encode(images, Box(64, 192, 96, 224))
        for index, level in enumerate(network.context_levels(feats)):
            parity.check(f"eval.lr_feat.{index}", level)
        attention = torch.sigmoid(network.decoder.attention(feats.context))
        parity.check("eval.att_lr", attention)
        masked = check_parts(parity, "eval", network, feats)
        inside = Box(8, 24, 12, 28)
        assert torch.equal(inside.crop(masked), inside.crop(attention))
        assert masked.count_nonzero() == inside.crop(masked).numel()
        for prefix, trust in (("eval", weights), ("eval.noweight", 1.0)):
            stored = [parity[f"{prefix}.decode.{part}loss_seg"].item() for part in ("", "hr.")]
            assert network.loss(feats, labels, trust).item() == pytest.approx(sum(stored), rel=1e-9)


def test_hrda_training_step(hrda_parity: Parity) -> None:
    parity, network = hrda_parity, build_hrda(hrda_parity)
    network.train()
    for module in network.modules():
        if "Drop" in type(module).__name__:
            module.eval()
    images = parity.wave((2, 3, 256, 256), amp=2.0)
    labels, weights = quirk_labels(2, 256, 256).squeeze(1), quirk_weights((2, 256, 256))
    feats = network.encode(images, Box(64, 192, 96, 224))
    loss = network.loss(feats, labels, weights)
    for key in [key for key in parity.meta["tensors"] if key.startswith("train.after.")]:
        parity.check(key, network.state_dict()[rename(key.removeprefix("train.after."))])
    parity.check("train.total", loss)
    loss.backward()
    check_gradients(parity, "train.grad.", network, rename)
    with torch.no_grad():
        check_parts(parity, "train", network, feats)


def test_hrda_inference(hrda_parity: Parity) -> None:
    parity, network = hrda_parity, build_hrda(hrda_parity)
    images = parity.wave((2, 3, 256, 256), amp=2.0, shift=0.2)
    with torch.no_grad():
        feats = network.encode(images)
        assert [list(box) for box in feats.boxes] == parity.meta["config"]["infer_slide_boxes"]
        parity.check("infer.logits_os4", network(images))
        parity.check("infer.logits", network.predict(images))


def test_hrda_detail_logits_over_the_image(hrda_parity: Parity) -> None:
    from uda.networks.sliding import merge

    parity, network = hrda_parity, build_hrda(hrda_parity)
    images = parity.wave((2, 3, 256, 256), amp=2.0, shift=0.2)
    with torch.no_grad():
        feats = network.encode(images)
        detail = network.decoder(feats).detail
        parity.check(
            "infer.hr_logits", merge(detail.chunk(len(feats.boxes)), [box.scale(4) for box in feats.boxes], (64, 64))
        )


def test_hrda_sliding_evaluation(hrda_parity: Parity) -> None:
    parity, network = hrda_parity, build_hrda(hrda_parity)
    images = parity.wave((1, 3, 256, 384), amp=2.0, shift=0.4)
    logits = torch.cat(list(sliding_rows(network.predict, images, window=256, stride=128)), dim=-2)
    parity.check("slide.prob", F.softmax(logits, dim=1))
