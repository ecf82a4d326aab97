"""What settings say as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mrm_loss import MRM

from ..checkpoints.loading import load_released, network_of
from ..data.labels import THINGS, ClassSet
from ..networks import Segmentor, build_encoder, checkpoint_activations
from ..runtime.passes import Passes, allow_fast_kernels
from ..runtime.rng import own_rng
from ..selftraining.teacher import make_teacher
from ..settings import FEATURE_DISTANCE, Settings


class Models:
    """The networks of a run.

    classes: of the data.
    student: the trainer's module, with `network` and `mrm` (None where MRM is off).
    teacher: the moving average of `student.network`.
    imagenet: a frozen ImageNet encoder where the feature distance is on.
    passes: how passes through these are run.
    """

    def __init__(
        self,
        settings: Settings,
        classes: ClassSet,
        make_student: Callable[[Segmentor, MRM | None], nn.Module],
        device: torch.device,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.classes = classes
        network = network_of(settings, len(classes))
        if settings.init:
            load_released(network, settings.init)
        if settings.sync_batchnorm:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        layout = torch.channels_last if settings.channels_last else torch.preserve_format
        network.to(memory_format=layout)
        self.student: Any = make_student(network, mrm_of(settings, network)).to(device)
        self.teacher = make_teacher(network)
        self.imagenet = imagenet_encoder(settings)
        if self.imagenet is not None and not classes.things:
            raise ValueError(f"--fd-weight: expected a class named as one of {', '.join(THINGS)}; give --fd-weight 0")
        if self.imagenet is not None:
            self.imagenet.to(device).to(memory_format=layout)
        if settings.checkpoint_activations:
            checkpoint_activations(network.encoder)
        if settings.compile:
            self.compile()
        allow_fast_kernels(device, settings.tf32)
        parts = settings.batch_size // settings.micro_batch if settings.micro_batch else 1
        self.passes = Passes(device, settings.precision, parts, settings.compile)

    def compile(self, backend: str = "inductor") -> None:
        """Compiles the networks and the Rebuilder in place, each module anew for each size that a step has."""
        modules = [*self.student.network.compilable, *self.teacher.compilable]
        modules += [] if self.student.mrm is None else [self.student.mrm.rebuilder]
        modules += [] if self.imagenet is None else [self.imagenet]
        for module in modules:
            module.compile(dynamic=False, backend=backend)
        torch._dynamo.config.recompile_limit = 64  # modules of one kind share a limit; 8 would be too few for HRDA

    @torch.no_grad()
    def imagenet_feats(self, images: Tensor) -> list[Tensor]:
        """The frozen ImageNet encoder's levels."""
        assert self.imagenet is not None
        with self.passes.autocast():
            feats: list[Tensor] = self.imagenet(images)
        return feats


def mrm_of(settings: Settings, network: Segmentor) -> MRM | None:
    """The Rebuilder, drawn from random numbers of its own; None where MRM is off."""
    if not settings.uses_mrm:
        return None
    # rows of a level per row of the grid, at the training crop; HRDA's context is half of it
    rows = settings.crop[0] // (2 if settings.hrda else 1)
    level_rows: Any = network.encoder.level_rows
    with own_rng(settings.seed, "rebuilder"):
        return MRM(
            network.used_channels,
            scale_factors=[max(1, level // settings.mrm_grid[0]) for level in level_rows(rows)],
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
