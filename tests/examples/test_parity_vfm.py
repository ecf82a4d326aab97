"""Three training steps of VFM-UDA, through the trainer's own step function, against VFM-UDA's own numbers."""

from __future__ import annotations

from contextlib import nullcontext
from types import MethodType, SimpleNamespace

import pytest
import torch
from parity import Parity
from torch import Tensor
from train_vfm_mrm import after_step, train_step
from uda.checkpoints.released import from_released, load_released
from uda.data.batches import Batch
from uda.networks.heads import LightHead
from uda.networks.segmentor import Segmentor
from uda.networks.vit import ViTEncoder
from uda.selftraining.draws import Draws
from uda.selftraining.teacher import make_teacher
from uda.settings import Settings, preset_values
from uda.training.optimizers import optimizers_of, rate_factor, warmup_apart
from vfm_steps import BATCH, CLASSES, RATE, SCHEDULE, STEPS, TABLE, THRESHOLD, TOTAL, VIT, WARMUP, Step, sample, strong
from vfm_steps import weak as weakly

# in float64: as float32 the statistics would be the largest error
MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(3, 1, 1)


class GivenDraws(Draws):
    """The reference's random choices in place of drawn ones."""

    def __init__(self, given: Step) -> None:
        self.given = given

    def pasted(self, labels: Tensor, per_image: bool = True) -> Tensor:
        assert not per_image  # of the batch's classes
        return self.given.pasted

    def colours(self, purpose: str, images: Tensor) -> Tensor:
        return (strong(images * STD + MEAN) - MEAN) / STD

    def weak_colours(self, purpose: str, images: Tensor) -> Tensor:
        return (weakly(images * STD + MEAN) - MEAN) / STD

    def hidden(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        assert self.given.hidden.shape[1:] == grid
        return self.given.hidden


def network_of(parity: Parity) -> Segmentor:
    from timm.models.vision_transformer import VisionTransformer
    from uda.networks.vit import dinov2_tokens

    body = VisionTransformer(img_size=TABLE, num_classes=0, dynamic_img_size=True, **VIT)
    body._pos_embed = MethodType(dinov2_tokens, body)
    encoder = ViTEncoder(body, VIT["patch_size"])
    network = Segmentor(encoder, LightHead(encoder.out_channels, CLASSES)).double()
    load_released(network, {f"network.{key}": value for key, value in parity.weights().items()})
    return network


def test_three_steps_of_vfm_uda() -> None:
    pytest.importorskip("timm", minversion="1.0.20")
    parity = Parity("vfm_steps")
    values = preset_values("paper", "vfm") | {"method": "vfm", "mrm_weight": 0.0, "threshold": THRESHOLD}
    # the reference's rate grows with the root of the batch
    values |= {"lr": 0.1 * RATE * BATCH**0.5, "warmup": WARMUP, "iterations": TOTAL}
    settings, network = Settings(**values), network_of(parity)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    parts = {"network": network, "mrm": None, "autocast": nullcontext, "scaler": scaler}
    models = SimpleNamespace(teacher=make_teacher(network), **parts)
    (optimizer,) = optimizers_of(settings, network, None)
    parameters = dict(network.named_parameters())
    official = list(parity.meta["rates"][0])
    names = [next(iter(from_released({f"network.{name}": torch.empty(0)}))) for name in official]
    assert sorted(names) == sorted(parameters)

    def check(kind: str, tensors: list[Tensor]) -> None:
        for found, expected in zip(sample(tensors), (parity[key] for key in (kind, f"{kind}.spread"))):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, msg=kind)

    for index in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate_factor(index, settings)
        rates = {p: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
        for name, theirs in zip(names, parity.meta["rates"][index].values()):
            assert rates[parameters[name]] == pytest.approx(theirs, rel=1e-9), name
        optimizer.zero_grad()
        step = Step(parity, index)
        source, target = ((images.double() / 255 - MEAN) / STD for images in step.images)
        batch = Batch(source, step.labels, target, (step.ignored == 0).double())
        losses = train_step(index, batch, models, settings, GivenDraws(step))
        assert 0 < losses["trust"] < 1
        for name, loss in parity.meta["losses"][index].items():
            assert losses[name].item() == pytest.approx(loss, rel=1e-9), name
        check(f"it{index}.gradients", [parameters[name].grad for name in names])
        optimizer.step()
        after_step(index, models, settings)
        check(f"it{index}.weights", [parameters[name] for name in names])
        teacher = models.teacher.state_dict()
        check(f"it{index}.teacher", [teacher[name] for name in names])


def test_schedule_of_vfm_uda() -> None:
    factors = torch.tensor([warmup_apart(step, 40000, 1500) for step in SCHEDULE], dtype=torch.float64)
    torch.testing.assert_close(factors, Parity("vfm_steps")["schedule"], rtol=1e-12, atol=1e-12)
