"""DACS (Tranheden et al., WACV 2021) with Masked Representation Modeling.

python examples/train_dacs_mrm.py                                        # embedded street scenes, a laptop's CPU
python examples/train_dacs_mrm.py --mrm-weight 0                         # the exact baseline
python examples/train_dacs_mrm.py --method source-only
python examples/train_dacs_mrm.py --preset paper --source gta5:PATH --target cityscapes:PATH
python examples/train_dacs_mrm.py --resume runs/dacs+mrm-seed0
torchrun --nproc-per-node=2 examples/train_dacs_mrm.py

`train_step` is the whole method: forward passes, losses, backward passes. The loop around it (uda/training/run.py) sets
the learning rates before it; after it, it averages the gradients over the processes and steps the optimisers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from uda.data.batches import Batch
from uda.networks.segmentor import pixel_loss
from uda.runtime.command import command
from uda.runtime.processes import mean_over_ranks
from uda.selftraining.draws import Draws
from uda.selftraining.mixing import mix
from uda.selftraining.teacher import pseudo_label, update_teacher
from uda.settings import Settings, parse
from uda.training.loop import train
from uda.training.models import Models


def train_step(step: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
    """One step of DACS; returns its losses.

    Every loss is followed at once by its backward, so that memory is that of one pass. Gradients add up.

    Args:
        step: of the self-training, from 0; negative while the network is still trained on the source alone.
        batch: images (B, 3, H, W) of both domains, source labels (B, H, W), and which target pixels may be trusted.
        models: the network, its teacher, MRM (None with --mrm-weight 0), autocast and the loss scale of --precision.
        draws: every random choice of this step.
    """
    network, teacher, mrm, scaler = models.network, models.teacher, models.mrm, models.scaler
    source, source_labels, target = batch.source_images, batch.source_labels, batch.target_images
    only_source = step < 0 or cfg.method == "source-only"

    # supervised, on the source
    if only_source and cfg.augment_source:
        source = draws.colours("source", source)
    with models.autocast():
        loss = pixel_loss(network(source), source_labels)
    scaler.scale(loss).backward()
    losses = {"source": loss.detach()}
    if only_source:
        return losses

    # pseudo-labels of the target by the teacher; one weight for all of them: the share of confident pixels
    if step > 0:
        update_teacher(teacher, network, step, cfg.alpha)
    with torch.no_grad(), models.autocast():
        logits = teacher.predict(target)
    labels, weights = pseudo_label(logits, cfg.threshold)
    weights = mean_over_ranks(weights) * batch.target_trusted
    losses["trust"] = weights.mean()

    # ClassMix: half of each source image's classes, pasted on the target, in other colours
    pasted = draws.pasted(source_labels)
    mixed = draws.colours("mixed", mix(pasted, source, target))
    mixed_labels = mix(pasted, source_labels, labels)
    mixed_weights = mix(pasted, torch.ones_like(weights), weights)
    with models.autocast():
        loss = pixel_loss(network(mixed), mixed_labels, mixed_weights)
    scaler.scale(loss).backward()
    losses["mixed"] = loss.detach()

    # masked representation modeling: features of the target are masked and rebuilt; the loss holds its own weight
    if mrm is not None and cfg.mrm_due(step):
        images = draws.colours("mrm", target) if cfg.mrm_augment else target
        with models.autocast():
            feats = network.encoder(images)
            loss = mrm(feats, network.decoder, labels, weights, mask=draws.masked("mrm", images))
        scaler.scale(loss).backward()
        losses["mrm"] = loss.detach()
    return losses


if __name__ == "__main__":
    command(lambda: train(parse(__doc__, ("dacs", "source-only"), mrm_on=("target",)), train_step))
