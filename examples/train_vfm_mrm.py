"""VFM-UDA (Englert et al., CVPR workshops 2024), self-training of foundation models, with MRM.

python examples/train_vfm_mrm.py                                         # embedded street scenes, a laptop's CPU
python examples/train_vfm_mrm.py --mrm-weight 0                          # the exact baseline
python examples/train_vfm_mrm.py --method source-only
python examples/train_vfm_mrm.py --preset paper --source gta5:PATH --target cityscapes:PATH     # DINOv2, ViT-B
python examples/train_vfm_mrm.py --preset paper --encoder vit_large_patch16_dinov3.lvd1689m ... # or another of timm
python examples/train_vfm_mrm.py --preset paper --decoder daformer ...   # on four of the encoder's blocks
python examples/train_vfm_mrm.py --resume runs/vfm+mrm-seed0
torchrun --nproc-per-node=4 examples/train_vfm_mrm.py --preset paper --batch-size 2 ...         # 8 images in all

Encoders of timm need the `models` extra. MRM on them is ours: neither its authors nor VFM-UDA's have published any. Its
grid of 16 x 16 cells, rate (2e-4) and weight (1) are those of the paper, where encoders learn at a third of that rate;
here they learn at 1.4e-5.
"""

from __future__ import annotations

import torch
from torch import Tensor
from uda.data.batches import Batch
from uda.data.labels import IGNORE
from uda.networks.segmentor import pixel_loss
from uda.networks.vit import ViTEncoder
from uda.runtime.command import command
from uda.runtime.processes import mean_over_ranks
from uda.selftraining.draws import Draws
from uda.selftraining.mixing import mix
from uda.selftraining.teacher import balance, pseudo_label, update_teacher
from uda.settings import Settings, parse
from uda.training.loop import train
from uda.training.models import Models


def train_step(step: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
    """One step of VFM-UDA; returns its losses. Arguments as in train_dacs_mrm.py.

    Every loss is followed at once by its backward, so that memory is that of one pass. Gradients add up.
    """
    network, teacher, mrm, scaler = models.network, models.teacher, models.mrm, models.scaler
    source, source_labels, target = batch.source_images, batch.source_labels, batch.target_images

    # supervised, on the source in other colours; the mean over its labelled pixels
    labelled = mean_over_ranks((source_labels != IGNORE).to(source).mean())
    weights = (1 / labelled.clamp(min=1e-6)).expand(len(source), 1, 1)
    images = draws.weak_colours("source", source)
    with models.autocast():
        loss = pixel_loss(network(images), source_labels, weights)
    scaler.scale(loss).backward()
    losses = {"source": loss.detach()}
    if step < 0 or cfg.method == "source-only":
        return losses

    # pseudo-labels by the mean of the probabilities of the target and of its mirror image; one weight for all of it:
    # the share of confident pixels
    with torch.no_grad(), models.autocast():
        as_it_is = teacher.predict(target).softmax(1)
        mirrored = teacher.predict(target.flip(-1)).flip(-1).softmax(1)
        labels, weights = pseudo_label((as_it_is + mirrored) / 2, cfg.threshold)
    weights = mean_over_ranks(weights) * batch.target_trusted
    losses["trust"] = weights.mean()
    if cfg.balance_labels:  # pixels of rare pseudo-labels weigh more
        weights = balance(weights, labels, len(models.classes))

    # ClassMix: half of the batch's classes, drawn anew for each image, pasted on the target in other colours
    pasted = draws.pasted(source_labels, per_image=False)
    mixed = draws.colours("mixed", mix(pasted, source, draws.weak_colours("target", target)))
    mixed_labels = mix(pasted, source_labels, labels)
    mixed_weights = mix(pasted, torch.ones_like(weights), weights)
    with models.autocast():
        loss = pixel_loss(network(mixed), mixed_labels, mixed_weights)
    scaler.scale(loss).backward()
    losses["mixed"] = loss.detach()

    # masked consistency: the target with patches hidden must give the same pseudo-labels
    images, hidden = draws.colours("masked", target), None
    if isinstance(network.encoder, ViTEncoder):
        hidden = draws.hidden(images, network.encoder.grid(images.shape[-2:]))
    else:  # a pyramid has no tokens: MIC's blocks of pixels
        images = images * draws.kept(images)
    with models.autocast():
        feats = network.encoder(images) if hidden is None else network.encoder(images, hidden)
        loss = pixel_loss(network.decoder(feats), labels, weights)
    scaler.scale(loss).backward()
    losses["masked"] = loss.detach()

    # masked representation modeling: features of the target are masked and rebuilt; the loss holds its own weight
    if mrm is not None and cfg.mrm_due(step):
        images = draws.colours("mrm", target) if cfg.mrm_augment else target
        with models.autocast():
            feats = network.encoder(images)
            loss = mrm(feats, network.decoder, labels, weights, mask=draws.masked("mrm", images))
        scaler.scale(loss).backward()
        losses["mrm"] = loss.detach()
    return losses


def after_step(step: int, models: Models, cfg: Settings) -> None:
    """The teacher follows the weights that the step has made, BatchNorm's statistics included."""
    if step >= 0 and cfg.method != "source-only":
        update_teacher(models.teacher, models.network, step + 1, cfg.alpha, buffers=True)


if __name__ == "__main__":
    command(lambda: train(parse(__doc__, ("vfm", "source-only"), mrm_on=("target",)), train_step, after_step))
