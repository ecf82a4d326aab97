"""DACS (Tranheden et al., WACV 2021) with Masked Representation Modeling (CVPR 2026, arXiv 2509.13801).

python examples/train_dacs_mrm.py                                        # synthetic street scenes, on a laptop's CPU
python examples/train_dacs_mrm.py --mrm-weight 0                         # DACS alone, with the same random choices
python examples/train_dacs_mrm.py --method source-only
python examples/train_dacs_mrm.py --preset paper --source gta5:PATH --target cityscapes:PATH
python examples/train_dacs_mrm.py --resume runs/dacs+mrm-seed0
torchrun --nproc-per-node=2 examples/train_dacs_mrm.py

`train_step` below has all losses and backwards of the method. For each step, `one_step` in uda/training/run.py sets the
learning rates, clears the gradients, calls `train_step`, averages the gradients over the processes (there is no DDP
wrapper), and steps the optimisers of the network and of MRM. `mrm_of` in uda/training/models.py builds the MRM.
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
from uda.selftraining.teacher import balance, pseudo_label, update_teacher
from uda.settings import Settings, parse
from uda.training.loop import train
from uda.training.models import Models


def train_step(step: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
    """One step of DACS; returns what is logged.

    Each loss is followed at once by its backward, so that one pass alone is in memory. The gradients of all
    losses add up.

    Args:
        step: negative during --pretrain-iterations on the source alone, then 0, 1, ... for DACS.
        batch: images (B, 3, H, W) of both domains, source labels (B, H, W), and target_trusted (B, H, W), which is 0 in
            the image's --margins, whose pseudo-labels never count, and else 1.
        models: the network, its teacher, and MRM (None with --mrm-weight 0). Their autocast and gradient scaler do
            nothing with --precision fp32.
        draws: the random choices of this step. Each name, such as "mixed", has random numbers of its own, so that a run
            without MRM makes the same choices.
    """
    network, teacher, mrm, scaler = models.network, models.teacher, models.mrm, models.scaler
    source, source_labels, target = batch.source_images, batch.source_labels, batch.target_images
    supervised_alone = step < 0 or cfg.method == "source-only"

    # supervised, on the source; its colours change only where there is no other loss
    if supervised_alone and cfg.augment_source:
        source = draws.colours("source", source)
    with models.autocast():
        loss = pixel_loss(network(source), source_labels)
    scaler.scale(loss).backward()
    logged = {"source": loss.detach()}
    if supervised_alone:
        return logged

    # the teacher is a moving average of the network; before step 0 it was made a copy of it
    if step > 0:
        update_teacher(teacher, network, step, cfg.alpha)

    # pseudo-labels of the target as it is; all pixels have one weight: the share of pixels, in the batches of all
    # processes, whose highest probability reaches --threshold; it is 0 where the target is not trusted
    with torch.no_grad(), models.autocast():
        probabilities = teacher.predict(target).softmax(1)  # (B, K, H, W)
    labels, weights = pseudo_label(probabilities, cfg.threshold)  # (B, H, W) each
    weights = mean_over_ranks(weights) * batch.target_trusted
    logged["trust"] = weights.mean()
    if cfg.balance_labels:  # pixels of rare pseudo-labels weigh more
        weights = balance(weights, labels, len(models.classes))

    # ClassMix: half of each source image's classes are pasted on the target; colour jitter and blur follow
    pasted = draws.pasted(source_labels)  # (B, H, W), True where the source is pasted
    mixed = draws.colours("mixed", mix(pasted, source, target))
    mixed_labels = mix(pasted, source_labels, labels)
    mixed_weights = mix(pasted, torch.ones_like(weights), weights)
    with models.autocast():
        loss = pixel_loss(network(mixed), mixed_labels, mixed_weights)
    scaler.scale(loss).backward()
    logged["mixed"] = loss.detach()

    # masked representation modeling: the encoder sees the whole target image, a part of its features is hidden and
    # rebuilt, the decoder segments the result; the loss is cross-entropy with the pseudo-labels, over all pixels
    if mrm is not None and cfg.mrm_due(step):
        images = draws.colours("mrm", target) if cfg.mrm_augment else target  # no pixel moves, so the labels fit
        mask = draws.masked("mrm", images)  # (B, 1, rows, cols) of the token grid, True = hidden
        with models.autocast():
            loss = mrm(network.encoder(images), network.decoder, labels, weights, mask=mask)  # --mrm-weight is in mrm
        scaler.scale(loss).backward()
        logged["mrm"] = loss.detach()
    return logged


if __name__ == "__main__":
    methods = ("dacs", "source-only")
    command(lambda: train(parse(__doc__, methods, mrm_on=("target",)), train_step))
