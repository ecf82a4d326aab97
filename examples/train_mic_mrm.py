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

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from uda.data.batches import Batch
from uda.networks import Box, Levels, Segmentor
from uda.runtime.command import command
from uda.runtime.processes import mean_over_ranks
from uda.selftraining.draws import Draws
from uda.selftraining.feature_distance import feature_distance, thing_weights
from uda.selftraining.mixing import mix
from uda.selftraining.teacher import pseudo_label, update_teacher
from uda.settings import Settings, parse
from uda.training.loop import train
from uda.training.models import Models

from mrm_loss import MRM, frozen_norm_stats

# --mrm-on: passes whose features are rebuilt; "mixed" and "masked" are those that a step has anyway
MRM_ON = {
    "target": ("mrm",),
    "source": ("mrm source",),
    "both": ("mrm", "mrm source"),
    "mixed": ("mixed",),
    "masked": ("masked",),
}


class Student(nn.Module):
    """The network that is trained, and the Rebuilder beside it; one forward for all passes."""

    def __init__(self, network: Segmentor, mrm: MRM | None) -> None:
        super().__init__()
        self.network = network
        self.mrm = mrm

    def forward(
        self,
        name: str,
        images: Tensor,
        labels: Tensor,
        weights: Tensor | float = 1.0,
        box: Box | None = None,
        *,
        plain: bool = True,
        masked: Sequence[Tensor] = (),
        distance: tuple[Levels, Tensor] | None = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """Losses of one pass over images (B, 3, H, W) and their names, each to be followed by its backward.

        The encoder's own backward comes once, after the last.

        Args:
            name: of the pass.
            box: HRDA's detail crop.
            plain: whether to decode the features as they are.
            masked: cells to rebuild and decode, one mask per resolution; none: no MRM on these features.
            distance: levels of the frozen ImageNet encoder and the cells' weights in the feature distance to them;
                None: no such loss.
        """
        feats, join = self.network.cut(self.network.encode(images, box))
        if plain:
            yield name, self.network.loss(feats, labels, weights)
        if distance is not None:
            yield "distance", feature_distance(self.network.context_levels(feats), *distance)
        if masked and self.mrm is not None:
            rebuild, masks, factor = self.mrm.rebuild, iter(masked), self.mrm.loss_weight
            rebuilt = self.network.rebuild(feats, lambda levels: rebuild(levels, next(masks))[0])
            yield f"mrm {name}" if plain else name, factor * self.network.loss(rebuilt, labels, weights)
        join()


def train_step(step: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
    """One step of MIC. Every loss is followed at once by its backward, so that memory is that of one pass."""
    student, teacher, passes, network = models.student, models.teacher, models.passes, models.student.network
    source, target = batch.source_images, batch.target_images
    if step < 0 or cfg.method == "source-only":
        source = draws.colours("source", source) if cfg.augment_source else source
        return passes.backward(student, "source", source, batch.source_labels, box=draws.box("source", network, source))
    if step > 0:
        update_teacher(teacher, network, step, cfg.alpha)

    def masks_on(name: str, images: Tensor) -> list[Tensor]:
        """Where these features are masked for MRM; HRDA's two resolutions get a mask each."""
        if student.mrm is None or not cfg.mrm_due(step) or name not in MRM_ON[cfg.mrm_on]:
            return []
        return [draws.masked(f"{name}{resolution}", images) for resolution in ("", " detail")]

    # supervised, on the source; things stay close to the ImageNet encoder's features (DAFormer)
    distance = None
    if cfg.fd_weight > 0:
        feats, classes = models.imagenet_feats(network.context_images(source)), models.classes
        distance = feats, thing_weights(batch.source_labels, feats, classes.things, num_classes=len(classes))
    box, factors = draws.box("source", network, source), {"distance": cfg.fd_weight}
    losses = passes.backward(
        student, "source", source, batch.source_labels, box=box, distance=distance, factors=factors
    )

    # pseudo-labels of the target; one weight for all of it: the share of confident pixels
    labels, weights = pseudo_label(passes.predict(teacher.predict, target), cfg.threshold)
    weights = mean_over_ranks(weights) * batch.target_trusted
    losses["trust"] = weights.mean()

    # ClassMix: half of the source's classes, pasted on the target (of the batch's; in DACS of each image's)
    pasted = draws.pasted(batch.source_labels, per_image=cfg.method == "dacs")
    mixed = draws.colours("mixed", mix(pasted, source, target))
    mixed_labels = mix(pasted, batch.source_labels, labels)
    mixed_weights = mix(pasted, torch.ones_like(weights), weights)
    box, masked = draws.box("mixed", network, mixed), masks_on("mixed", mixed)
    losses |= passes.backward(student, "mixed", mixed, mixed_labels, mixed_weights, box, masked=masked)

    # masked image consistency: the target with blocks removed must give the same pseudo-labels (MIC)
    if cfg.method == "mic":
        images = draws.colours("masked", target) * draws.kept(target)
        box, masked = draws.box("masked", network, images), masks_on("masked", images)
        factors = {"masked": cfg.mic_weight}
        losses |= passes.backward(student, "masked", images, labels, weights, box, masked=masked, factors=factors)

    # masked representation modeling, in a pass of its own
    inputs = {"mrm": (target, labels, weights), "mrm source": (source, batch.source_labels, torch.ones_like(weights))}
    for name, (images, y, w) in inputs.items():
        if masked := masks_on(name, images):
            images = draws.colours(name, images) if cfg.mrm_augment else images
            box = draws.box(name, network, images)
            with frozen_norm_stats(*[student] * cfg.mrm_freeze_norm):
                losses |= passes.backward(student, name, images, y, w, box, plain=False, masked=masked)
    return losses


if __name__ == "__main__":
    command(lambda: train(parse(__doc__, ("mic", "hrda", "daformer", "dacs", "source-only")), Student, train_step))
