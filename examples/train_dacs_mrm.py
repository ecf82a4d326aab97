"""DACS (Tranheden et al., WACV 2021) with Masked Representation Modeling.

python examples/train_dacs_mrm.py                                        # embedded street scenes, a laptop's CPU
python examples/train_dacs_mrm.py --mrm-weight 0                         # the exact baseline
python examples/train_dacs_mrm.py --method source-only
python examples/train_dacs_mrm.py --preset paper --source gta5:PATH --target cityscapes:PATH
python examples/train_dacs_mrm.py --resume runs/dacs+mrm-seed0
torchrun --nproc-per-node=2 examples/train_dacs_mrm.py
"""

from __future__ import annotations

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
        self, images: Tensor, labels: Tensor, weights: Tensor | float = 1.0, masked: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy of images (B, 3, H, W) or, given masked cells, of their rebuilt features."""
        feats = self.network.encode(images)
        if masked is None or self.mrm is None:
            return self.network.loss(feats, labels, weights)
        loss: Tensor = self.mrm(feats, self.network.decode, labels, weights, mask=masked)
        return loss


def train_step(step: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
    """One step of DACS. Every loss is followed at once by its backward, so that memory is that of one pass."""
    student, teacher = models.student, models.teacher
    if step < 0 or cfg.method == "source-only":
        images = draws.colours("source", batch.source_images) if cfg.augment_source else batch.source_images
        loss_source = student(images, batch.source_labels)
        loss_source.backward()
        return {"source": loss_source.detach()}
    if step > 0:
        update_teacher(teacher, student.network, step, cfg.alpha)

    # supervised, on the source
    loss_source = student(batch.source_images, batch.source_labels)
    loss_source.backward()

    # pseudo-labels of the target; one weight for all of it: the share of confident pixels
    with torch.no_grad():
        labels, weights = pseudo_label(teacher.predict(batch.target_images), cfg.threshold)
    weights = mean_over_ranks(weights) * batch.target_trusted

    # ClassMix: half of each source image's classes, pasted on the target
    pasted = draws.pasted(batch.source_labels)
    mixed = draws.colours("mixed", mix(pasted, batch.source_images, batch.target_images))
    mixed_labels = mix(pasted, batch.source_labels, labels)
    mixed_weights = mix(pasted, torch.ones_like(weights), weights)
    loss_mixed = student(mixed, mixed_labels, mixed_weights)
    loss_mixed.backward()
    losses = {"source": loss_source, "mixed": loss_mixed, "trust": weights.mean()}

    # masked representation modeling
    if student.mrm is not None:
        on_target = batch.target_images, labels, weights
        on_source = batch.source_images, batch.source_labels, torch.ones_like(weights)
        passes = {"target": {"mrm": on_target}, "source": {"mrm source": on_source}}
        passes["both"] = passes["target"] | passes["source"]
        for name, (images, y, w) in passes[cfg.mrm_on].items():
            images = draws.colours(name, images) if cfg.mrm_augment else images
            with frozen_norm_stats(*[student] * cfg.mrm_freeze_norm):
                losses[name] = student(images, y, w, masked=draws.masked(name, images))
            losses[name].backward()
    return {name: loss.detach() for name, loss in losses.items()}


if __name__ == "__main__":
    command(
        lambda: train(parse(__doc__, ("dacs", "source-only"), mrm_on=("target", "source", "both")), Student, train_step)
    )
