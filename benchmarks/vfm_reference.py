"""Three training steps of VFM-UDA through train_vfm_mrm's step function against those of VFM-UDA's own code.

    python benchmarks/vfm_reference.py PATH/TO/vfm-uda PATH/TO/dinov2        # needs lightning, torchmetrics, timm

The paths are checkouts of github.com/tue-mps/vfm-uda and github.com/facebookresearch/dinov2. Everything is in float64,
on a small DINOv2 transformer with random weights; the random choices (flips, colours, classes, hidden patches) are
given to both. Compared are the losses, gradients, weights and teacher of each step, the learning rate of every
parameter, and the schedule of all 40000 steps. Exits with 1 where one differs by more than 1e-9 of its standard
deviation.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import train_vfm_mrm
from timm.models.vision_transformer import VisionTransformer
from uda.checkpoints.released import from_released, load_released
from uda.data.batches import Batch
from uda.networks import LightHead, Segmentor, ViTEncoder
from uda.networks.vit import use_dinov2_positions
from uda.selftraining.draws import Draws
from uda.selftraining.teacher import make_teacher
from uda.settings import Settings, preset_values
from uda.training.models import Models
from uda.training.optimizers import optimizers_of, rate_factor, warmup_apart

STEPS, CLASSES, CROP, BATCH = 3, 19, 56, 2
VIT = {"patch_size": 14, "embed_dim": 32, "depth": 3, "num_heads": 2, "mlp_ratio": 4.0, "init_values": 1.0}
TABLE = 42  # the position table's side in pixels, resized to that of the crops
RATE, WARMUP, TOTAL = 1e-2, 2, 10
THRESHOLD = 0.09  # among the probabilities that random weights give
TOLERANCE = 1e-9
# the statistics in float64; as float32 they would be the largest error
MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(3, 1, 1)


def weak(images: Tensor) -> Tensor:
    """Stands for the weak colours of images in [0, 1], in both."""
    return 0.9 * images + 0.05 * images.flip(1)


def strong(images: Tensor) -> Tensor:
    return 0.8 * images + 0.1


class Choices:
    """One step's inputs and random choices."""

    def __init__(self, step: int) -> None:
        gen = torch.Generator().manual_seed(step)
        self.images = torch.randint(256, (2, BATCH, 3, CROP, CROP), generator=gen, dtype=torch.uint8)
        labels = torch.randint(6, (BATCH, 1, 7, 7), generator=gen).double()
        labels = nn.functional.interpolate(labels, (CROP, CROP))[:, 0].long()
        self.labels = labels.masked_fill(torch.rand(labels.shape, generator=gen) < 0.1, 255)
        self.ignored = torch.zeros(BATCH, CROP, CROP, dtype=torch.long)
        self.ignored[:, :5] = self.ignored[:, -9:] = 255
        present = torch.unique(self.labels)
        half = (len(present) + 1) // 2
        classes = [present[torch.randperm(len(present), generator=gen)[:half]] for _ in range(BATCH)]
        self.pasted = torch.stack([torch.isin(y, c) for y, c in zip(self.labels, classes)])  # (B, H, W)
        side = int(CROP * 1.1 // VIT["patch_size"])
        self.hidden = torch.rand(BATCH, side, side, generator=gen) < 0.7


class GivenDraws(Draws):
    def __init__(self, given: Choices) -> None:
        self.given = given

    def pasted(self, labels: Tensor, per_image: bool = True) -> Tensor:
        assert not per_image  # of the batch's classes
        return self.given.pasted

    def colours(self, purpose: str, images: Tensor) -> Tensor:
        return (strong(images * STD + MEAN) - MEAN) / STD

    def weak_colours(self, purpose: str, images: Tensor) -> Tensor:
        return (weak(images * STD + MEAN) - MEAN) / STD

    def hidden(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.given.hidden


# ---- the reference


@contextmanager
def reference(vfm: Path, dinov2: Path) -> Iterator[None]:
    """Lets the reference's modules be imported and run in float64, on today's libraries, without its logger."""
    wandb = types.ModuleType("wandb")
    scheduler = torch.optim.lr_scheduler.LRScheduler
    init: Callable[..., None] = scheduler.__init__

    def without_verbose(self: Any, optimizer: Any, last_epoch: int = -1, **_: Any) -> None:
        init(self, optimizer, last_epoch)

    def hub(_: str, name: str) -> nn.Module:
        from dinov2.models.vision_transformer import DinoVisionTransformer

        return DinoVisionTransformer(img_size=TABLE, block_chunks=0, **VIT)

    sys.path[:0] = [str(vfm), str(dinov2)]
    try:
        with (
            patch.dict(sys.modules, {"wandb": wandb}),
            patch.object(scheduler, "__init__", without_verbose),
            patch.object(torch.hub, "load", hub),
            patch.object(Tensor, "float", Tensor.double),
        ):
            yield
    finally:
        del sys.path[:2]


def reference_steps() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The state at the start and what each step of the reference's own trainer leaves."""
    import lightning
    import models.token_masking
    import training.uda_vit.uda_vit_generic as generic
    from models.vit_variants.vit_lightweight_head import VITLightweightHead

    torch.manual_seed(0)
    network = VITLightweightHead(img_size=CROP, model_name="small", num_classes=CLASSES)
    with torch.no_grad():  # a mask token and layer scales as trained ones are: neither zero nor one
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    module = generic.UDAVITGeneric(
        batch_size=BATCH, img_size=CROP, network=network, lr=RATE, warmup_iters=WARMUP, token_mask_ratio=0.7
    ).double()
    module.pseudo_threshold = THRESHOLD
    start = {key: value.clone() for key, value in module.state_dict().items()}
    module.random_aug_weak, module.random_aug_uda = weak, strong
    given: list[Choices] = []
    records: list[dict[str, Any]] = []

    class Record(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            given.append(Choices(index))
            records.append({"rates": rates_by_name(module, trainer.optimizers[0])})

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            names = {"source": "train_loss_source", "mixed": "train_loss_mix", "masked": "loss_masked"}
            records[-1] |= {
                "losses": {ours: trainer.callback_metrics[theirs] for ours, theirs in names.items()},
                "gradients": {name: p.grad.clone() for name, p in module.network.named_parameters()},
                "state": {key: value.clone() for key, value in module.state_dict().items()},
            }

    def batches() -> Iterator[tuple[Tensor, ...]]:
        for step in range(STEPS):
            c = Choices(step)
            yield c.images[0], c.labels, c.ignored, c.images[1], c.labels, c.ignored

    masking = models.token_masking.TokenMasking
    with (
        patch.object(generic, "batched_rand_hflip", lambda x, y: (x, y)),
        patch.object(generic, "get_class_masks", lambda labels: list(given[-1].pasted[:, None, None].long())),
        patch.object(masking, "get_random_token_mask_idx", lambda *_: given[-1].hidden.flatten(1)),
    ):
        trainer = lightning.Trainer(
            max_steps=TOTAL,
            limit_train_batches=STEPS,
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Record()],
        )
        trainer.fit(module, torch.utils.data.DataLoader(list(batches()), batch_size=None))
    return start, records


def rates_by_name(module: Any, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """Rate and weight decay of every parameter."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {names[p]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


# ---- ours


def our_network(start: dict[str, Any]) -> Segmentor:
    body = VisionTransformer(img_size=TABLE, num_classes=0, dynamic_img_size=True, **VIT)
    use_dinov2_positions(body)
    encoder = ViTEncoder(body, VIT["patch_size"])
    network = Segmentor(encoder, LightHead(encoder.out_channels, CLASSES)).double()
    load_released(network, {key: value for key, value in start.items() if key.startswith("network")})
    return network


def compare(start: dict[str, Any], records: list[dict[str, Any]]) -> dict[str, float]:
    """The largest error of each kind, in standard deviations, or relative where there is one number."""
    values = preset_values("paper", "vfm") | {
        "method": "vfm",
        "mrm_weight": 0.0,
        "threshold": THRESHOLD,
        # the reference's rate grows with the root of the whole batch
        "lr": 0.1 * RATE * BATCH**0.5,
        "warmup": WARMUP,
        "iterations": TOTAL,
    }
    settings = Settings(**values)
    network = our_network(start)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    parts = dict(network=network, mrm=None, teacher=make_teacher(network), autocast=nullcontext, scaler=scaler)
    models: Models = SimpleNamespace(**parts)  # type: ignore
    (optimizer,) = optimizers_of(settings, network, None)
    worst = dict.fromkeys(("losses", "gradients", "weights", "teacher", "rates"), 0.0)

    def check(kind: str, ours: Tensor, theirs: Tensor, name: str) -> None:
        scale = theirs.std() if theirs.numel() > 1 and theirs.std() > 0 else theirs.abs().max()
        error = ((ours - theirs).abs().max() / scale.clamp(min=1e-300)).item()
        if not error <= TOLERANCE:
            print(f"{kind} of {name}: {error:.1e}")
        worst[kind] = max(worst[kind], error)

    for step, record in enumerate(records):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate_factor(step, settings)
        optimizer.zero_grad()
        c = Choices(step)
        source, target = ((images.double() / 255 - MEAN) / STD for images in c.images)
        batch = Batch(source, c.labels, target, (c.ignored == 0).double())
        losses = train_vfm_mrm.train_step(step, batch, models, settings, GivenDraws(c))
        gradients = {name: p.grad for name, p in network.named_parameters()}
        ours = rates_by_name(network, optimizer)
        theirs = {our_name(name): rates for name, rates in record["rates"].items()}
        assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
        for name, rates in theirs.items():
            check("rates", *(torch.tensor(pair, dtype=torch.float64) for pair in (ours[name], rates)), name)
        for name, loss in record["losses"].items():
            check("losses", losses[name], loss, f"{name} at step {step}")
        for name, gradient in record["gradients"].items():
            check("gradients", gradients[our_name(f"network.{name}")], gradient, f"{name} at step {step}")
        optimizer.step()
        train_vfm_mrm.after_step(step, models, settings)
        for kind, which, mine in (("weights", "student", network), ("teacher", "teacher", models.teacher)):
            state, _ = from_released(record["state"], which)
            for name, value in mine.state_dict().items():
                check(kind, value, state[name], f"{name} at step {step}")
        print(f"step {step}: trust {losses['trust']:.3f}, losses {[round(x.item(), 4) for x in losses.values()]}")
    return worst


def our_name(name: str) -> str:
    """Ours of the reference's name of a parameter."""
    return next(iter(from_released({name: torch.empty(0)})[0]))


def compare_schedule() -> float:
    """The largest difference of the factors of all steps."""
    from models.warmup_and_linear_scheduler import WarmupAndLinearScheduler

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = WarmupAndLinearScheduler(optimizer, 1e-3, 1500, 1, 0, 40000).lr_schedule
    return max(abs(warmup_apart(step, 40000, 1500) - theirs[step]) for step in range(40001))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vfm", type=Path, help="checkout of vfm-uda")
    parser.add_argument("dinov2", type=Path, help="checkout of dinov2")
    args = parser.parse_args()
    with reference(args.vfm, args.dinov2):
        start, records = reference_steps()
        schedule = compare_schedule()
    worst = compare(start, records) | {"schedule": schedule}
    for kind, error in worst.items():
        print(f"{kind}: {error:.1e}")
    sys.exit(any(not error <= TOLERANCE for error in worst.values()))


if __name__ == "__main__":
    main()
