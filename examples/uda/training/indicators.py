"""Whether MRM acts: what a run shows of it beside the losses. None of it changes a result.

mrm_gradient        size of the gradient that MRM's losses gave the decoder / size of the gradient of all losses before
                    them in the same step. At log steps; measured on the step's own gradients, without a pass more.
agreement_masked    percentage of masked pixels where the student, decoding masked features, predicts the teacher's
                    pseudo-label. At evaluations, on the target crops of the last step, in eval mode.
agreement_visible   the same of the pixels that were not masked: what can be reached.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batches import Batches
from ..runtime.devices import to_device
from ..runtime.processes import sum_over_ranks
from ..runtime.rng import generator

NAMES = ("mrm_gradient", "agreement_masked", "agreement_visible")


class GradientShare:
    """Watches the decoder's gradients in the steps that it is asked to, see mrm_gradient.

        share = GradientShare(models)
        share.watch(step_is_logged)
        ...                             # the step, with its backward passes
        share.values()                  # {"mrm_gradient": 0.3}, or {} where MRM took no part

    A backward belongs to MRM where it is the first since features were rebuilt. The encoder is left out: where MRM
    shares a pass with another loss (--mrm-on mixed, masked), their gradients reach it together.
    """

    def __init__(self, models: Any) -> None:
        self.watching = False
        self.waiting: set[nn.Parameter] = set()  # whose next gradient is MRM's
        self.before: dict[nn.Parameter, Tensor] = {}  # squared size of the gradients until then
        self.ours: dict[nn.Parameter, Tensor] = {}
        self.parameters = [p for p in models.network.decoder.parameters() if p.requires_grad]
        if models.mrm is None:
            return
        rebuild = models.mrm.rebuild

        def noting(*args: Any, **kwargs: Any) -> Any:
            if self.watching and torch.is_grad_enabled():
                self.waiting.update(self.parameters)
            return rebuild(*args, **kwargs)

        models.mrm.rebuild = noting
        for parameter in self.parameters:
            parameter.register_hook(lambda gradient, p=parameter: self._note(p, gradient))

    def watch(self, on: bool) -> None:
        self.watching = on
        if on:
            self.waiting, self.before, self.ours = set(), {}, {}

    def _note(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        if parameter not in self.waiting:
            return
        self.waiting.discard(parameter)
        gradient = gradient.detach().float()
        if parameter in self.ours:
            self.ours[parameter] = self.ours[parameter] + gradient
        else:
            earlier = torch.zeros_like(gradient) if parameter.grad is None else parameter.grad.detach().float()
            self.before[parameter] = earlier.square().sum()
            self.ours[parameter] = gradient.clone()  # autograd may add to this one in place

    def values(self) -> dict[str, float]:
        """mrm_gradient, read from the device at once; empty where nothing was seen."""
        if not self.ours:
            return {}
        ours = torch.stack([gradient.square().sum() for gradient in self.ours.values()]).sum()
        before = torch.stack(list(self.before.values())).sum()
        ratio = (ours / before.clamp(min=torch.finfo(before.dtype).tiny)).sqrt()
        self.ours, self.before = {}, {}
        return {"mrm_gradient": ratio.item()}


@torch.no_grad()
def agreement(run: Any, data: Batches) -> dict[str, float]:
    """Percentages of pixels, see agreement_masked and agreement_visible; empty without MRM and before it has begun.

    Args:
        run: a `Run` between two steps.
        data: its batches.
    """
    network, teacher, mrm = run.models.network, run.models.teacher, run.models.mrm
    if mrm is None or run.step <= run.settings.pretrain_iterations:
        return {}
    batch = data[run.step - 1]
    images = to_device(batch.target_images, run.device)
    trusted = to_device(batch.target_trusted, run.device) > 0  # (B, H, W)
    draws, masks = generator(run.settings.seed, "agreement", run.step, data.samples.start), []

    def rebuild(levels: list[Tensor]) -> list[Tensor]:
        rebuilt, mask = mrm.rebuild(levels, generator=draws)
        masks.append(mask)
        return rebuilt  # type: ignore[no-any-return]

    modes = network.training, teacher.training
    network.eval(), mrm.eval(), teacher.eval()
    with run.models.eager():
        same = teacher.predict(images).argmax(1) == network.predict(images, rebuild).argmax(1)
    network.train(modes[0]), mrm.train(modes[0]), teacher.train(modes[1])
    masked = F.interpolate(masks[0].float(), images.shape[-2:])[:, 0].bool()  # HRDA's first is the whole image's
    cells = torch.stack([trusted & masked, trusted & ~masked])
    counts = torch.stack([(cells & same).sum((1, 2, 3)), cells.sum((1, 2, 3))])
    hits, pixels = sum_over_ranks(counts).tolist()
    names = ("agreement_masked", "agreement_visible")
    return {name: 100 * hit / count for name, hit, count in zip(names, hits, pixels) if count}


def in_words(shares: dict[str, float]) -> str:
    """`agreement` for a line on the screen; empty where there is none."""
    if len(shares) < 2:
        return ""
    masked, visible = shares["agreement_masked"], shares["agreement_visible"]
    return f"masked cells agree with the pseudo-label on {masked:.1f} % (cells left as they are: {visible:.1f} %)"
