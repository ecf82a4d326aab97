"""MIC (Hoyer et al., CVPR 2023), and HRDA, DAFormer and DACS inside it, with Masked Representation Modeling.

python examples/train_mic_mrm.py                                         # embedded street scenes, a laptop's CPU
python examples/train_mic_mrm.py --mrm-weight 0                          # the exact baseline
python examples/train_mic_mrm.py --method hrda                           # or daformer, dacs, source-only
python examples/train_mic_mrm.py --preset paper --source gta5:PATH --target cityscapes:PATH
python examples/train_mic_mrm.py --preset paper --encoder resnet101 --decoder deeplabv2 ...   # or deeplabv3plus
python examples/train_mic_mrm.py --preset paper --no-hrda ...            # at one resolution, with 512 crops
python examples/train_mic_mrm.py --resume runs/mic+mrm-seed0
torchrun --nproc-per-node=2 examples/train_mic_mrm.py
"""

from __future__ import annotations

import torch
from torch import Tensor
from uda.data.batches import Batch
from uda.networks.segmentor import Features, cut, join
from uda.runtime.command import command
from uda.runtime.processes import mean_over_ranks
from uda.selftraining.draws import Draws
from uda.selftraining.feature_distance import feature_distance, thing_weights
from uda.selftraining.mixing import mix
from uda.selftraining.teacher import balance, pseudo_label, update_teacher
from uda.settings import Settings, parse
from uda.training.loop import train
from uda.training.models import Models


def train_step(step: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
    """One step of MIC; returns its losses.

    Every loss is followed at once by its backward, so that memory is that of one pass. Where losses share the features
    of one encoder pass, `cut` ends their backward at the features, and `join` goes on through the encoder once.

    Args:
        step: of the self-training, from 0; negative while the network is still trained on the source alone.
        batch: images (B, 3, H, W) of both domains, source labels (B, H, W), and which target pixels may be trusted.
        models: the network, its teacher, MRM (None with --mrm-weight 0), autocast and the loss scale of --precision.
        draws: every random choice of this step.
    """
    network, teacher, autocast = models.network, models.teacher, models.autocast
    source, source_labels, target = batch.source_images, batch.source_labels, batch.target_images
    only_source = step < 0 or cfg.method == "source-only"
    mrm = models.mrm if not only_source and cfg.mrm_due(step) else None
    losses: dict[str, Tensor] = {}

    def backward(name: str, loss: Tensor) -> None:
        models.scaler.scale(loss).backward()
        losses[name] = loss.detach()

    def mrm_backward(name: str, images: Tensor, feats: Features, labels: Tensor, weights: Tensor) -> None:
        """MRM on these features of `images`.

        At one resolution this is `mrm(feats, network.decoder, labels, weights)`. HRDA has two, which are rebuilt with a
        mask each, and its own loss of the fused logits and of the detail's: hence `mrm.rebuild` and `network.loss`.
        """
        assert mrm is not None
        masks = (draws.masked(f"{name}{resolution}", images) for resolution in ("", " detail"))
        with autocast():
            rebuilt = network.rebuild(feats, lambda levels: mrm.rebuild(levels, next(masks))[0])
            loss = mrm.loss_weight * network.loss(rebuilt, labels, weights)
        backward(name, loss)

    # supervised, on the source; things stay close to the ImageNet encoder's features (DAFormer)
    if only_source and cfg.augment_source:
        source = draws.colours("source", source)
    distant = cfg.fd_weight > 0 and not only_source
    imagenet = models.imagenet_feats(network.context_images(source)) if distant else []
    with autocast():
        feats = network.encode(source, draws.box("source", network, source))
        leaves = cut(feats)
        loss = network.loss(leaves, source_labels)
    backward("source", loss)
    if distant:
        things = thing_weights(source_labels, imagenet, models.classes.things, num_classes=len(models.classes))
        with autocast():
            loss = cfg.fd_weight * feature_distance(network.context_levels(leaves), imagenet, things)
        backward("distance", loss)
    join(feats, leaves)
    if only_source:
        return losses

    # pseudo-labels of the target by the teacher; one weight for all of them: the share of confident pixels
    if step > 0:
        update_teacher(teacher, network, step, cfg.alpha)
    with torch.no_grad(), autocast():
        labels, weights = pseudo_label(teacher.predict(target).softmax(1), cfg.threshold)
    weights = mean_over_ranks(weights) * batch.target_trusted
    losses["trust"] = weights.mean()
    if cfg.balance_labels:  # pixels of rare pseudo-labels weigh more
        weights = balance(weights, labels, len(models.classes))

    # ClassMix: half of the source's classes, pasted on the target (of the batch's; in DACS of each image's)
    pasted = draws.pasted(source_labels, per_image=cfg.method == "dacs")
    mixed = draws.colours("mixed", mix(pasted, source, target))
    mixed_labels = mix(pasted, source_labels, labels)
    mixed_weights = mix(pasted, torch.ones_like(weights), weights)
    with autocast():
        feats = network.encode(mixed, draws.box("mixed", network, mixed))
        leaves = cut(feats)
        loss = network.loss(leaves, mixed_labels, mixed_weights)
    backward("mixed", loss)
    if mrm is not None and cfg.mrm_on == "mixed":
        mrm_backward("mrm mixed", mixed, leaves, mixed_labels, mixed_weights)
    join(feats, leaves)

    # masked image consistency: the target with blocks removed must give the same pseudo-labels (MIC)
    if cfg.method == "mic":
        masked = draws.colours("masked", target) * draws.kept(target)
        with autocast():
            feats = network.encode(masked, draws.box("masked", network, masked))
            leaves = cut(feats)
            loss = network.loss(leaves, labels, weights)
        backward("masked", loss)
        if mrm is not None and cfg.mrm_on == "masked":
            mrm_backward("mrm masked", masked, leaves, labels, weights)
        join(feats, leaves)

    # masked representation modeling, in a pass of its own
    own = {}
    if mrm is not None and cfg.mrm_on in ("target", "both"):
        own["mrm"] = target, labels, weights
    if mrm is not None and cfg.mrm_on in ("source", "both"):
        own["mrm source"] = source, source_labels, torch.ones_like(weights)
    for name, (images, y, w) in own.items():
        images = draws.colours(name, images) if cfg.mrm_augment else images
        with autocast():
            feats = network.encode(images, draws.box(name, network, images))
        mrm_backward(name, images, feats, y, w)
    return losses


if __name__ == "__main__":
    command(lambda: train(parse(__doc__, ("mic", "hrda", "daformer", "dacs", "source-only")), train_step))
