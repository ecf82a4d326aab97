"""Masks an encoder's features and rebuilds nothing: the Rebuilder's control."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mrm_loss.masking import Masking


class MaskTokens(Masking):
    """Masks 40 % of the features and fills them with the projected mask token; keeps the rest as it was.

    The Rebuilder without what looks at the features (embedding, positions, blocks): all tokens are its normalised mask
    token, so that each projector fills all masked cells alike, but at the grid's edge, where they lack a neighbour. Its
    parameters have the Rebuilder's names.

    Args: as `mrm_loss.MRM`, which owns one where `rebuild` is False. Call, returns and errors: as the Rebuilder's.
    """

    def __init__(
        self,
        encoder_channels: int | Sequence[int | None],
        *,
        scale_factors: int | Sequence[int | None] | None = None,
        mask_ratio: float = 0.4,
        block_size: int = 1,
        grid_size: int | tuple[int, int] = 16,
        embed_dim: int = 512,
    ) -> None:
        super().__init__(encoder_channels, scale_factors, mask_ratio, block_size, grid_size, embed_dim)
        self.mask_token = nn.Parameter(torch.empty(embed_dim))
        self.norm = nn.LayerNorm(embed_dim)
        self.projectors = self.new_projectors()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The mask token N(0, 0.02), as the Rebuilder's."""
        nn.init.normal_(self.mask_token, std=0.02)

    def make_tokens(self, last: Tensor, mask: Tensor) -> Tensor:
        """The normalised mask token in every cell (1, embed_dim, rows, cols): projected once for all images."""
        token: Tensor = self.norm(self.mask_token)
        return token[None, :, None, None].expand(-1, -1, *self.grid_size)
