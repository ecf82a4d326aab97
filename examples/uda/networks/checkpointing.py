"""Activation checkpointing: a block keeps its input alone and is run again when its backward comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(encoder: nn.Module) -> int:
    """Checkpoints each block of the encoder's stages, in place; state_dict, copies and random numbers are as before.

    Stages are the nn.Sequential and nn.ModuleList of the encoder, or of its `body`, or their `blocks`. A single layer
    in one is no block: to run it again saves nothing, and cannot be done where the next one works in place.

    Returns:
        The number of blocks.
    """
    stages = [getattr(child, "blocks", child) for child in getattr(encoder, "body", encoder).children()]
    blocks = [block for stage in stages if isinstance(stage, (nn.Sequential, nn.ModuleList)) for block in stage]
    blocks = [block for block in blocks if any(block.children())]
    for block in blocks:
        block.forward = MethodType(_forward, block)  # a method and no closure: deepcopy binds it to the copy
    return len(blocks)


def _forward(block: nn.Module, *args: Any, **options: Any) -> Any:
    once = partial(type(block).forward, block)
    # while compiling, statistics are recorded at the end of the forward, not where it is run again
    contexts: Any = {} if torch.compiler.is_compiling() else {"context_fn": lambda: (nullcontext(), _recorded(block))}
    return checkpoint(once, *args, use_reentrant=False, **contexts, **options)


@contextmanager
def _recorded(block: nn.Module) -> Iterator[None]:
    """Inside it BatchNorm statistics, which the first run has moved, stay.

    Not by `mrm_loss.frozen_norm_stats`: a layer that does not track saves fewer tensors than the first run did.
    """
    layers = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, count) in zip(layers, before):
            layer.momentum, layer.num_batches_tracked = momentum, count
