"""How a step's passes are run: in which precision, in how many parts, and what a GPU may do faster.

passes = Passes(device, "bf16", parts=2)
losses = passes.backward(losses_of, images, labels)      # forward and backward, part by part; gradients add up
logits = passes.predict(teacher.predict, images)         # forward alone
passes.step(optimizers)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Losses = Iterator[tuple[str, Tensor]]  # names and values, each to be followed by its backward
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Passes:
    """Forward and backward passes of a step.

    Only what runs in `backward`'s and `predict`'s functions is in half precision, weights and everything between the
    passes are not. fp16's gradients would underflow: losses are multiplied by a scale, which is taken out again before
    the update and adapts itself; an update with an overflow is left out (Micikevicius et al., ICLR 2018).

    Args:
        device: of the networks.
        precision: "fp32", or "bf16" or "fp16" for autocast.
        parts: the batch goes through in so many parts, one after the other (gradient accumulation): the memory of one,
            the gradients of the whole batch's mean. BatchNorm sees parts.
        compiled: whether the networks' modules have been compiled.
    """

    def __init__(self, device: torch.device, precision: str = "fp32", parts: int = 1, compiled: bool = False) -> None:
        self.device, self.half, self.parts, self.compiled = device, HALVES.get(precision), parts, compiled
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, self.half, enabled=self.half is not None)

    def eager(self) -> AbstractContextManager[None]:
        """Inside it compiled modules run as they are written: for evaluation, whose sizes are others."""
        return torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()

    def backward(
        self, losses_of: Callable[..., Losses], *inputs: Any, factors: Mapping[str, float] | None = None, **options: Any
    ) -> dict[str, Tensor]:
        """The backward of each weighted loss of a pass, as it comes; returns them detached and weighted.

        Args:
            losses_of: called with the inputs and options, for each part with its share of every tensor in them.
            inputs, options: whatever it takes; tensors have the whole batch in their first dimension.
            factors: weights of the losses by name, 1 where not given.
        """
        totals: dict[str, Tensor] = {}
        for part in range(self.parts):
            args, named = tree_map(partial(self.share, part), (inputs, options))
            for name, loss in self.each(losses_of(*args, **named)):
                weighted = (factors or {}).get(name, 1.0) * loss / self.parts
                self.scaler.scale(weighted).backward()
                totals[name] = totals.get(name, 0) + weighted.detach()
        return totals

    @torch.no_grad()
    def predict(self, predict: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Outputs (B, ...) of images (B, 3, H, W), without gradients."""
        with self.autocast():
            return torch.cat([predict(self.share(part, images)) for part in range(self.parts)])

    def step(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """Updates all that have gradients."""
        for optimizer in optimizers:
            if any(p.grad is not None for group in optimizer.param_groups for p in group["params"]):
                self.scaler.step(optimizer)
        self.scaler.update()

    def share(self, part: int, x: Any) -> Any:
        """A part of the batch that a tensor holds; anything else as it is."""
        return x.chunk(self.parts)[part] if isinstance(x, Tensor) else x

    def each(self, losses: Losses) -> Losses:
        """The losses, with autocast on while they are computed and off for what is done with them."""
        while True:
            with self.autocast():
                loss = next(losses, None)
            if loss is None:
                return
            yield loss


def allow_fast_kernels(device: torch.device, tf32: bool) -> None:
    """On NVIDIA's GPUs: the fastest convolution for each size, and TensorFloat-32 for float32 or not."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # as DAFormer's, HRDA's and MIC's configurations: crops have one size
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
