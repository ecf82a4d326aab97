"""What settings say as modules."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from mrm_loss import MRM

from ..checkpoints.loading import load_init, network_of
from ..data.labels import THINGS, ClassSet
from ..networks.build import build_encoder
from ..networks.checkpointing import checkpoint_activations
from ..networks.segmentor import Segmentor
from ..runtime.rng import own_rng
from ..selftraining.teacher import make_teacher
from ..settings import FEATURE_DISTANCE, Settings

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Models:
    """The networks of a run, and in which precision they compute.

    classes: of the data.
    network: is trained, and kept.
    mrm: is trained beside it; None where MRM is off.
    teacher: the moving average of `network`.
    imagenet: a frozen ImageNet encoder where the feature distance is on.
    scaler: multiplies losses in fp16, whose gradients would underflow, and leaves out updates that overflow
        (Micikevicius et al., ICLR 2018); in other precisions it does nothing.
    """

    def __init__(self, settings: Settings, classes: ClassSet, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.classes, self.device, self.half = classes, device, HALVES.get(settings.precision)
        network = network_of(settings, len(classes))
        if settings.init:
            load_init(network, settings.init, classes.names)
        if settings.sync_batchnorm:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network: Segmentor = network.to(device)
        self.mrm = mrm_of(settings, network)
        if self.mrm is not None:
            self.mrm.to(device)
        self.teacher = make_teacher(network)
        self.imagenet = imagenet_encoder(settings)
        if self.imagenet is not None and not classes.things:
            raise ValueError(f"--fd-weight: expected a class named as one of {', '.join(THINGS)}; give --fd-weight 0")
        if self.imagenet is not None:
            self.imagenet.to(device)
        if settings.checkpoint_activations:
            checkpoint_activations(network.encoder)
        self.compiled = settings.compile
        if settings.compile:
            self.compile()
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # as DAFormer's, HRDA's and MIC's configurations: crops have one size
            torch.backends.cudnn.allow_tf32 = True
            torch.set_float32_matmul_precision("high")
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")

    @property
    def student(self) -> nn.ModuleDict:
        """All that is trained, under the names that a checkpoint has."""
        trained: dict[str, Any] = {"network": self.network, "mrm": self.mrm}
        return nn.ModuleDict({name: module for name, module in trained.items() if module is not None})

    def autocast(self) -> AbstractContextManager[None]:
        """Inside it networks compute as --precision says; their weights stay in float32."""
        return torch.autocast(self.device.type, self.half, enabled=self.half is not None)

    def eager(self) -> AbstractContextManager[None]:
        """Inside it compiled modules run as they are written: for evaluation, whose sizes are others."""
        return torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()

    def compile(self, backend: str = "inductor") -> None:
        """Compiles the networks and the Rebuilder in place, each module anew for each size that a step has."""
        modules = [*self.network.compilable, *self.teacher.compilable]
        modules += [] if self.mrm is None else [self.mrm.rebuilder]
        modules += [] if self.imagenet is None else [self.imagenet]
        for module in modules:
            module.compile(dynamic=False, backend=backend)
        torch._dynamo.config.recompile_limit = 64  # modules of one kind share a limit; 8 would be too few for HRDA

    @torch.no_grad()
    def imagenet_feats(self, images: Tensor) -> list[Tensor]:
        """The frozen ImageNet encoder's levels."""
        assert self.imagenet is not None
        with self.autocast():
            feats: list[Tensor] = self.imagenet(images)
        return feats


def mrm_of(settings: Settings, network: Segmentor) -> MRM | None:
    """The Rebuilder, drawn from random numbers of its own; None where MRM is off."""
    if not settings.uses_mrm:
        return None
    # HRDA's context is half of the training crop
    rows, strides = settings.crop[0] // (2 if settings.hrda else 1), cast("list[float]", network.encoder.strides)
    with own_rng(settings.seed, "rebuilder"):
        return MRM(
            network.used_channels,
            scale_factors=[max(1, int(rows / stride) // settings.mrm_grid[0]) for stride in strides],
            grid_size=settings.mrm_grid,
            mask_ratio=settings.mrm_mask_ratio,
            block_size=settings.mrm_block_size,
            embed_dim=settings.mrm_width,
            depth=settings.mrm_depth,
            num_heads=settings.mrm_heads,
            mask_only=settings.mrm_mask_only,
            loss_weight=settings.mrm_weight * settings.mrm_every,
        )


def imagenet_encoder(settings: Settings) -> nn.Module | None:
    """A second, frozen encoder with the weights that the network's started from."""
    if settings.fd_weight == 0 or settings.method not in FEATURE_DISTANCE:
        return None
    encoder = build_encoder(settings.encoder, settings.decoder, settings.encoder_weights)
    return encoder.eval().requires_grad_(False)
