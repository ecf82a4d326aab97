"""What autograd knows of features and logits: whether the loss's gradients will arrive."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def nodes_of(levels: list[Any]) -> list[Any]:
    """The autograd node of each level; None where it needs no gradient."""
    return [level.grad_fn if isinstance(level, Tensor) else None for level in levels]


def not_reached(logits: Tensor, nodes: list[Any]) -> list[int]:
    """Indices of the nodes that the backward of `logits` does not come to; takes one walk through the decoder."""
    wanted = {node for node in nodes if node is not None}
    seen: set[Any] = set()
    to_visit: list[Any] = [logits.grad_fn]
    while to_visit:
        node = to_visit.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node not in wanted:  # what lies behind the features is the encoder's
            to_visit += [following for following, _ in node.next_functions]
    return [i for i, node in enumerate(nodes) if node is not None and node not in seen]
