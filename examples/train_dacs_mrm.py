"""DACS (Tranheden et al., WACV 2021) with Masked Representation Modeling.

python examples/train_dacs_mrm.py                                        # embedded street scenes, a laptop's CPU
python examples/train_dacs_mrm.py --mrm-weight 0                         # the exact baseline
python examples/train_dacs_mrm.py --method source-only
python examples/train_dacs_mrm.py --preset paper --source gta5:PATH --target cityscapes:PATH
python examples/train_dacs_mrm.py --resume runs/dacs+mrm-seed0
torchrun --nproc-per-node=2 examples/train_dacs_mrm.py
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from uda.data.batches import Batch
from uda.networks import Segmentor
from uda.runtime.command import command
from uda.runtime.processes import mean_over_ranks
from uda.selftraining.draws import Draws
from uda.selftraining.mixing import mix
from uda.selftraining.teacher import pseudo_label, update_teacher
from uda.settings import Settings, parse
from uda.training.loop import train
from uda.training.models import Models

from mrm_loss import MRM, frozen_norm_stats


class Student(nn.Module):
    """The network that is trained, and the Rebuilder beside it."""

    def __init__(self, network: Segmentor, mrm: MRM | None) -> None:
        super().__init__()
        self.network = network
        self.mrm = mrm

    def forward(
        self, name: str, images: Tensor, labels: Tensor, weights: Tensor | float = 1.0, masked: Tensor | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Cross-entropy of images (B, 3, H, W) or, given masked cells, of their rebuilt features; under a name."""
        feats = self.network.encode(images)
        if masked is None or self.mrm is None:
            yield name, self.network.loss(feats, labels, weights)
        else:
            yield name, self.mrm(feats, self.network.decode, labels, weights, mask=masked)


def train_step(step: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
    """One step of DACS. Every loss is followed at once by its backward, so that memory is that of one pass."""
    student, teacher, passes = models.student, models.teacher, models.passes
    if step < 0 or cfg.method == "source-only":
        images = draws.colours("source", batch.source_images) if cfg.augment_source else batch.source_images
        return passes.backward(student, "source", images, batch.source_labels)
    if step > 0:
        update_teacher(teacher, student.network, step, cfg.alpha)

    # supervised, on the source
    losses = passes.backward(student, "source", batch.source_images, batch.source_labels)

    # pseudo-labels of the target; one weight for all of it: the share of confident pixels
    labels, weights = pseudo_label(passes.predict(teacher.predict, batch.target_images), cfg.threshold)
    weights = mean_over_ranks(weights) * batch.target_trusted

    # ClassMix: half of each source image's classes, pasted on the target
    pasted = draws.pasted(batch.source_labels)
    mixed = draws.colours("mixed", mix(pasted, batch.source_images, batch.target_images))
    mixed_labels = mix(pasted, batch.source_labels, labels)
    mixed_weights = mix(pasted, torch.ones_like(weights), weights)
    losses |= passes.backward(student, "mixed", mixed, mixed_labels, mixed_weights)
    losses["trust"] = weights.mean()

    # masked representation modeling
    if student.mrm is not None and cfg.mrm_due(step):
        on_target = batch.target_images, labels, weights
        on_source = batch.source_images, batch.source_labels, torch.ones_like(weights)
        inputs = {"target": {"mrm": on_target}, "source": {"mrm source": on_source}}
        inputs["both"] = inputs["target"] | inputs["source"]
        for name, (images, y, w) in inputs[cfg.mrm_on].items():
            images = draws.colours(name, images) if cfg.mrm_augment else images
            with frozen_norm_stats(*[student] * cfg.mrm_freeze_norm):
                losses |= passes.backward(student, name, images, y, w, masked=draws.masked(name, images))
    return losses


if __name__ == "__main__":
    command(
        lambda: train(parse(__doc__, ("dacs", "source-only"), mrm_on=("target", "source", "both")), Student, train_step)
    )
