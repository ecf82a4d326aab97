"""The steps and parts of steps that overhead.py measures."""

from __future__ import annotations

import dataclasses
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import train_mic_mrm
import train_vfm_mrm
from uda.checkpoints.loading import network_of
from uda.data.batches import Batch
from uda.data.layouts import STREETS
from uda.networks.backbones import Encoder
from uda.networks.segmentor import cut, join, pixel_loss
from uda.selftraining.draws import Draws
from uda.settings import Settings
from uda.training.models import Models, mrm_of
from uda.training.optimizers import optimizers_of, update

STEP = 100  # far enough for the teacher's average to be in use
# what each arm adds to a step without MRM: a pass of its own, or the Rebuilder and the decoder on a pass that is there
ENCODER = ("encoder", "encoder backward")
REBUILDER = ("Rebuilder", "Rebuilder backward", "Rebuilder's optimiser")
DECODER = ("decoder and loss", "decoder backward")
ADDED = {
    "mrm": ENCODER + REBUILDER + DECODER,
    "floor": ENCODER + DECODER,
    "mixed": REBUILDER + DECODER,
    "masked": REBUILDER + DECODER,
}


class IdentityRebuilder(nn.Module):
    """Takes MRM's place and gives features back as they are."""

    loss_weight = 1.0

    def rebuild(self, feats: Any, mask: Tensor) -> tuple[Any, Tensor]:
        return feats, mask

    def forward(self, feats: Any, decoder_fn: Any, labels: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
        return pixel_loss(decoder_fn(feats), labels, weights)


class Bench:
    """One method's networks, batch and optimisers: its step in any arm, the parts of MRM's pass, and prediction."""

    def __init__(self, settings: Settings) -> None:
        self.device = torch.device(settings.device)
        # a rate of zero keeps the weights, so that every arm works on the same network; random ones cost the same
        self.settings = dataclasses.replace(settings, lr=0.0, mrm_lr=0.0, encoder_weights="")
        without_distance = dataclasses.replace(self.settings, fd_weight=0.0)
        self.trainer: Any = train_vfm_mrm if settings.method == "vfm" else train_mic_mrm
        self.models = Models(without_distance, STREETS, self.device)
        if self.settings.fd_weight > 0:
            self.models.imagenet = Encoder(settings.encoder).eval().requires_grad_(False).to(self.device)
        self.mrm = self.models.mrm
        network, mrm = optimizers_of(self.settings, self.models.network, self.mrm)
        without = dataclasses.replace(self.settings, mrm_mask_only=True)
        self.mask_tokens: Any = mrm_of(without, self.models.network)
        self.mask_tokens.to(self.device)
        tokens = torch.optim.AdamW(self.mask_tokens.parameters(), lr=0.0)
        self.optimizers = {"network": network, "mrm": mrm, "mask-only": tokens}
        self.batch = synthetic_batch(self.settings, len(STREETS)).to(self.device)

    def keep_only(self, arm: str) -> None:
        """Drops the Rebuilder, the mask tokens or both, with their optimisers: their memory is not the arm's."""
        if arm in ("baseline", "mask-only"):
            self.mrm = self.models.mrm = None
            del self.optimizers["mrm"]
        if arm != "mask-only":
            self.mask_tokens = None
            del self.optimizers["mask-only"]

    def make_optimizer_states(self) -> None:
        """As they are from the second step on; the first makes them when the passes' memory is free again."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.grad = torch.zeros_like(p)
            optimizer.step()
            optimizer.zero_grad()

    def step(self, arm: str) -> None:
        """The trainers' own step, with MRM as the arm has it."""
        models: Any = self.models
        others: dict[str, tuple[Any, list[str]]] = {
            "baseline": (None, []),
            "again": (None, []),
            "floor": (IdentityRebuilder(), []),
            "mask-only": (self.mask_tokens, ["mask-only"]),
        }
        models.mrm, own = others.get(arm, (self.mrm, ["mrm"]))
        on = arm if arm in ("mixed", "masked") else "target"
        cfg = dataclasses.replace(self.settings, mrm_on=on)
        used = [self.optimizers[name] for name in ("network", *own)]
        for optimizer in used:
            optimizer.zero_grad()
        self.trainer.train_step(STEP, self.batch, models, cfg, Draws(cfg, STEP))
        update(used, self.models.scaler)
        if hasattr(self.trainer, "after_step"):  # VFM-UDA's teacher
            self.trainer.after_step(STEP, self.models, cfg)

    def parts(self) -> dict[str, float]:
        """Seconds of each part of MRM's pass; features are cut from the graph between the parts."""
        network, images = self.models.network, self.batch.target_images
        draws, seconds = Draws(self.settings, STEP), {}
        masks = iter([draws.masked(name, images) for name in ("a", "b")])
        box = draws.box("mrm", network, images)
        labels = torch.zeros(len(images), *images.shape[-2:], dtype=torch.long, device=self.device)

        def timed(name: str, part: Callable[[], Any]) -> Any:
            seconds[name], result = self.seconds(part)
            return result

        encoded = timed("encoder", lambda: network.encode(images, box))
        feats = cut(encoded)
        rebuild = lambda levels: self.mrm.rebuild(levels, next(masks))[0]  # noqa: E731
        rebuilt = timed("Rebuilder", lambda: network.rebuild(feats, rebuild))
        leaves = cut(rebuilt)
        loss = timed("decoder and loss", lambda: network.loss(leaves, labels))
        timed("decoder backward", loss.backward)
        timed("Rebuilder backward", lambda: join(rebuilt, leaves))
        timed("Rebuilder's optimiser", self.optimizers["mrm"].step)
        timed("encoder backward", lambda: join(encoded, feats))
        return seconds

    def inference(self, repeats: int) -> dict[str, Any]:
        """Predicts with the network that MRM trained and with one built without MRM that took over its weights."""
        without = network_of(self.settings, len(STREETS)).to(self.device).eval()
        trained, images = self.models.network.eval(), self.batch.target_images
        without.load_state_dict(trained.state_dict())  # strict: the same modules
        networks = {"without": without, "mrm": trained}
        seconds: dict[str, list[float]] = {name: [] for name in networks}
        logits: dict[str, Tensor] = {}
        with torch.no_grad():
            for round_ in range(repeats):
                for name in random.Random(round_).sample(sorted(networks), 2):
                    took, logits[name] = self.seconds(lambda name=name: networks[name].predict(images))
                    seconds[name].append(took)
        same = torch.equal(logits["mrm"], logits["without"])
        trained.train()
        return {"same_outputs": same, "seconds": seconds}

    def seconds(self, part: Callable[[], Any]) -> tuple[float, Any]:
        """How long a part takes, and what it returns."""
        start = time.perf_counter()
        result = part()
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()  # cuda, mps or xpu
        return time.perf_counter() - start, result


def synthetic_batch(settings: Settings, num_classes: int) -> Batch:
    """Noise images and blocky labels of the training crop's size."""
    generator = torch.Generator().manual_seed(0)
    size, n = settings.crop, settings.batch_size
    images = [torch.randn(n, 3, *size, generator=generator) for _ in range(2)]
    blocks = torch.randint(num_classes, (n, 1, 4, 8), generator=generator).float()
    labels = nn.functional.interpolate(blocks, size, mode="nearest")[:, 0].long()
    return Batch(images[0], labels, images[1], torch.ones(n, *size))
