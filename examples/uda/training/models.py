"""What settings say as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mrm_loss import MRM

from ..checkpoints.loading import network_of
from ..checkpoints.released import load_official, read_official
from ..data.labels import THINGS, ClassSet
from ..networks import Encoder, Segmentor
from ..runtime.rng import own_rng
from ..selftraining.teacher import make_teacher
from ..settings import Settings


class Models:
    """The networks of a run.

    classes: of the data.
    student: the trainer's module, with `network` and `mrm` (None where MRM is off).
    teacher: the moving average of `student.network`.
    imagenet: a frozen ImageNet encoder where the feature distance is on.
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
            load_official(network, read_official(settings.init))
        self.student: Any = make_student(network, mrm_of(settings, network)).to(device)
        self.teacher = make_teacher(network)
        self.imagenet = imagenet_encoder(settings)
        if self.imagenet is not None and not classes.things:
            raise SystemExit(f"--fd-weight: expected a class named as one of {', '.join(THINGS)}; give --fd-weight 0")
        if self.imagenet is not None:
            self.imagenet.to(device)

    @torch.no_grad()
    def imagenet_feats(self, images: Tensor) -> list[Tensor]:
        """The frozen ImageNet encoder's levels."""
        assert self.imagenet is not None
        feats: list[Tensor] = self.imagenet(images)
        return feats


def mrm_of(settings: Settings, network: Segmentor) -> MRM | None:
    """The Rebuilder, drawn from random numbers of its own; None where MRM is off."""
    if not settings.uses_mrm:
        return None
    # rows of a level per row of the grid, at the training crop; HRDA's context is half of it
    rows = settings.crop[0] // (2 if settings.hrda else 1)
    strides: Any = network.encoder.strides
    with own_rng(settings.seed, "rebuilder"):
        return MRM(
            network.used_channels,
            scale_factors=[max(1, rows // stride // settings.mrm_grid[0]) for stride in strides],
            grid_size=settings.mrm_grid,
            mask_ratio=settings.mrm_mask_ratio,
            block_size=settings.mrm_block_size,
            embed_dim=settings.mrm_width,
            depth=settings.mrm_depth,
            num_heads=settings.mrm_heads,
            loss_weight=settings.mrm_weight,
        )


def imagenet_encoder(settings: Settings) -> nn.Module | None:
    """A second, frozen encoder with the weights that the network's started from."""
    if settings.fd_weight == 0 or settings.method in ("dacs", "source-only"):
        return None
    if not settings.encoder_weights:
        raise SystemExit(
            "--fd-weight: the feature distance needs an encoder with ImageNet weights: give --encoder-weights, "
            "or --fd-weight 0 to do without"
        )
    stride = 32 if settings.decoder == "daformer" else 8
    return Encoder(settings.encoder, settings.encoder_weights, output_stride=stride).eval().requires_grad_(False)
