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

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from uda.data.batches import Batch
from uda.data.labels import IGNORE
from uda.networks import Segmentor, ViTEncoder
from uda.runtime.command import command
from uda.runtime.processes import mean_over_ranks
from uda.selftraining.draws import Draws
from uda.selftraining.mixing import mix
from uda.selftraining.teacher import confident_label, mirrored_probabilities, update_teacher
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
        self,
        name: str,
        images: Tensor,
        labels: Tensor,
        weights: Tensor | float = 1.0,
        hidden: Tensor | None = None,
        masked: Tensor | None = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """Cross-entropy of images (B, 3, H, W), under a name.

        Args:
            hidden: patches (B, rows, cols) whose place the encoder's mask token takes.
            masked: cells to rebuild the features of; None: they are decoded as they are.
        """
        feats = self.network.encode(images) if hidden is None else self.network.encoder(images, hidden)
        if masked is None or self.mrm is None:
            yield name, self.network.loss(feats, labels, weights)
        else:
            yield name, self.mrm(feats, self.network.decode, labels, weights, mask=masked)


def train_step(step: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
    """One step of VFM-UDA. Every loss is followed at once by its backward, so that memory is that of one pass."""
    student, teacher, passes = models.student, models.teacher, models.passes
    source, target = batch.source_images, batch.target_images

    # supervised, on the source in other colours; the mean over its labelled pixels
    labelled = mean_over_ranks((batch.source_labels != IGNORE).to(source).mean())
    weights = (1 / labelled.clamp(min=1e-6)).expand(len(source), 1, 1)
    losses = passes.backward(student, "source", draws.weak_colours("source", source), batch.source_labels, weights)
    if step < 0 or cfg.method == "source-only":
        return losses

    # pseudo-labels of the target and of its mirror image; one weight for all of it: the share of confident pixels
    probabilities = mirrored_probabilities(partial(passes.predict, teacher.predict), target)
    labels, weights = confident_label(probabilities, cfg.threshold)
    weights = mean_over_ranks(weights) * batch.target_trusted
    losses["trust"] = weights.mean()

    # ClassMix: half of the batch's classes, drawn anew for each image, pasted on the target in other colours
    pasted = draws.pasted(batch.source_labels, per_image=False)
    mixed = draws.colours("mixed", mix(pasted, source, draws.weak_colours("target", target)))
    mixed_labels = mix(pasted, batch.source_labels, labels)
    mixed_weights = mix(pasted, torch.ones_like(weights), weights)
    losses |= passes.backward(student, "mixed", mixed, mixed_labels, mixed_weights)

    # masked consistency: the target with patches hidden must give the same pseudo-labels
    images, hidden = draws.colours("masked", target), None
    if isinstance(student.network.encoder, ViTEncoder):
        hidden = draws.hidden(images, student.network.encoder.grid(images.shape[-2:]))
    else:  # a pyramid has no tokens: MIC's blocks of pixels
        images = images * draws.kept(images)
    factors = {"masked": cfg.mic_weight}
    losses |= passes.backward(student, "masked", images, labels, weights, hidden, factors=factors)

    # masked representation modeling
    if student.mrm is not None and cfg.mrm_due(step):
        images = draws.colours("mrm", target) if cfg.mrm_augment else target
        with frozen_norm_stats(*[student] * cfg.mrm_freeze_norm):
            losses |= passes.backward(student, "mrm", images, labels, weights, masked=draws.masked("mrm", images))
    return losses


def after_step(step: int, models: Models, cfg: Settings) -> None:
    """The teacher follows the weights that the step has made, BatchNorm's statistics included."""
    if step >= 0 and cfg.method != "source-only":
        update_teacher(models.teacher, models.student.network, step + 1, cfg.alpha, buffers=True)


if __name__ == "__main__":
    command(lambda: train(parse(__doc__, ("vfm", "source-only"), mrm_on=("target",)), Student, train_step, after_step))
