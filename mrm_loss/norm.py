"""BatchNorm statistics that an extra pass leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def frozen_norm_stats(*modules: nn.Module) -> Iterator[None]:
    """Inside it, BatchNorm layers in train mode normalise with the batch's statistics and do not record them.

    `running_mean`, `running_var` and `num_batches_tracked` stay as they were; layers in eval mode, other layers,
    training flags and gradients are not concerned. For passes over data that should not move the statistics, such
    as decoding rebuilt features:

        with frozen_norm_stats(decoder):
            loss = loss + mrm(feats, decoder, pseudo_labels)

    Use it around compiled code, not within. With activation checkpointing, which runs layers again in `backward`, call
    `backward` inside it too.

    Args:
        modules: the networks whose BatchNorm layers (also synchronised ones) are meant.

    Raises:
        TypeError: an argument is not a module.
    """
    for module in modules:
        if not isinstance(module, nn.Module):
            raise TypeError(f"frozen_norm_stats: expected modules, got an object of type {type(module).__name__}")
    layers = {layer for module in modules for layer in module.modules() if isinstance(layer, _BatchNorm)}
    tracking = [layer for layer in layers if layer.track_running_stats]
    # A layer that does not track still has its buffers, and uses them in eval mode: torch reads the flag in train
    # mode alone. Saving and restoring the buffers instead would write to tensors that autograd has saved.
    for layer in tracking:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in tracking:
            layer.track_running_stats = True
