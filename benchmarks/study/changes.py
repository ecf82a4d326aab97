"""What arms change of MRM that no setting does: what fills the masked cells, what the loss counts and trains."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrm_loss import MRM
from mrm_loss.rebuilder import Rebuilder

# --- what fills the masked cells


def blank_tokens(rebuilder: Rebuilder, last: Tensor, mask: Tensor) -> Tensor:
    """In place of `make_tokens`: the normalised mask token in every cell, whatever is visible."""
    token = rebuilder.norm(rebuilder.mask_token)
    return token[:, None, None].expand(len(last), -1, *rebuilder.grid_size)


def mask_only(mrm: MRM) -> None:
    """Each projector puts what it learned to put, the same in every masked cell; masks and projectors are MRM's."""
    mrm.rebuilder.make_tokens = partial(blank_tokens, mrm.rebuilder)  # type: ignore[method-assign]


class Vector(nn.Module):
    """In a projector's place: one learned vector for the whole level, with no norm to give it the scale of features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.token = nn.Parameter(nn.init.normal_(torch.empty(channels), std=0.02))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.token[None, :, None, None].expand(-1, -1, *tokens.shape[-2:])


def vectors(mrm: MRM) -> None:
    """What the library's option, `rebuild=False`, was before it became mask only."""
    mrm.rebuilder.projectors = nn.ModuleList(Vector(int(channels)) for channels in mrm.rebuilder.encoder_channels)


def local(mrm: MRM) -> None:
    """No transformer: a masked cell knows its position and, through the projector's transposed convolutions, its
    direct neighbours."""
    mrm.rebuilder.blocks = nn.ModuleList()


# --- what the loss counts and trains


def masked_cells_alone(mrm: MRM) -> None:
    """The loss counts masked pixels only, still divided by the number of all."""
    whole = mrm.forward

    def forward(feats: list[Tensor], decoder_fn: object, labels: Tensor, weights: Tensor, *, mask: Tensor) -> Tensor:
        masked = F.interpolate(mask.float(), labels.shape[-2:], mode="nearest")[:, 0]
        return whole(feats, decoder_fn, labels, weights * masked, mask=mask)

    mrm.forward = forward  # type: ignore[method-assign, assignment]


def decoder_alone(mrm: MRM) -> None:
    """MRM's loss trains Rebuilder and decoder, not the encoder."""
    whole = mrm.forward

    def forward(feats: list[Tensor], *args: Any, **kwargs: Any) -> Tensor:
        mrm._warned_detached = True  # it is meant
        return whole([level.detach() for level in feats], *args, **kwargs)

    mrm.forward = forward  # type: ignore[method-assign]


def encoder_alone(mrm: MRM) -> None:
    """MRM's loss trains Rebuilder and encoder, not the decoder."""
    whole = mrm.forward

    def forward(feats: list[Tensor], decoder_fn: Any, *args: Any, **kwargs: Any) -> Tensor:
        decoder = decoder_fn.__self__.decoder
        decoder.requires_grad_(False)
        try:
            return whole(feats, decoder_fn, *args, **kwargs)
        finally:
            decoder.requires_grad_(True)

    mrm.forward = forward  # type: ignore[method-assign]
