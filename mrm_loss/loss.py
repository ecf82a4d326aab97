"""Masked Representation Modeling as one loss term (CVPR 2026, arXiv 2509.13801)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mrm_loss.checks import (
    check,
    check_int,
    check_labels,
    check_logits,
    check_values,
    check_weights,
    describe,
    warn_if_cut,
)
from mrm_loss.cross_entropy import weighted_cross_entropy
from mrm_loss.rebuilder import Rebuilder, resize

USAGE = "mrm(feats, decoder, labels), or mrm(feats, pseudo_labels=labels) of an MRM(encoder_channels, decoder)"


class MRM(nn.Module):
    """Masks encoder features, rebuilds them, decodes them and asks for the pseudo-labels (paper, section 3).

        mrm = MRM(encoder_channels=[64, 128, 320, 512])
        optimizer.add_param_group({"params": mrm.parameters(), "lr": 2e-4})
        loss = loss + mrm(encoder(target_images), decoder, pseudo_labels, pixel_weights)

    Trains encoder, decoder and its own Rebuilder; is thrown away after training.

    Args:
        encoder_channels: channels per feature level, fine to coarse; an int for a single level. None (or 0) for a
            level that passes through untouched, such as those the decoder ignores. The last level, which the tokens
            are made of, is always rebuilt.
        decoder_fn: takes features as the encoder returns them, returns logits (B, K, h, w). It is called and never
            registered: parameters(), state_dict() and to() concern the Rebuilder alone. It is copied and pickled as
            Python does it. So the copy of a model that holds decoder and MRM trains its own decoder, where decoder_fn
            is a module or a method. A function or lambda is not copied: it goes on with the decoder that it names.
        scale_factors: rows of each level / rows of the grid at the training crop; fixes how often each level's
            projector doubles the grid. Default 2^(L-1-l) for level l of L, 4 for a single level.
        mask_ratio: share of the grid's blocks that is masked, in (0, 1).
        block_size: side in cells of the blocks that are masked together.
        grid_size: rows and columns of the token grid; an int for a square one.
        embed_dim: width of the tokens; a multiple of 4 and of num_heads.
        depth: number of transformer blocks.
        num_heads: attention heads per block.
        mlp_ratio: hidden width of a block's MLP / embed_dim.
        mask_only: True masks and rebuilds nothing: all tokens are the mask token, so that masked cells hold what was
            learned of a level, whatever is visible. This costs little more than the pass through encoder and decoder.
            It is not the paper's method. depth, num_heads and mlp_ratio are then not used.
        loss_weight: factor on the loss (lambda in the paper).
        ignore_index: label id that does not count.
        reduction: "mean" divides by the number of all pixels, ignored ones included, as self-training code does;
            "valid" by the sum of the weights of the pixels that are not ignored, so that a weight common to all pixels
            cancels.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range; the message names it.
    """

    def __init__(
        self,
        encoder_channels: int | Sequence[int | None],
        decoder_fn: Callable[[Any], Tensor] | None = None,
        *,
        scale_factors: int | Sequence[int | None] | None = None,
        mask_ratio: float = 0.4,
        block_size: int = 1,
        grid_size: int | tuple[int, int] = 16,
        embed_dim: int = 512,
        depth: int = 2,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        mask_only: bool = False,
        loss_weight: float = 1.0,
        ignore_index: int = 255,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if decoder_fn is not None and not callable(decoder_fn):
            raise TypeError(f"decoder_fn: expected a callable features -> logits, got {describe(decoder_fn)}")
        self.decoder_fn: Callable[[Any], Tensor] | None = decoder_fn
        check(loss_weight >= 0, "loss_weight", "a number of at least 0", loss_weight)
        check(reduction in ("mean", "valid"), "reduction", '"mean" or "valid"', reduction)
        self.loss_weight = loss_weight
        self.ignore_index = check_int("ignore_index", ignore_index, -(2**63))
        self.reduction = reduction
        self.rebuilder = Rebuilder(
            encoder_channels,
            scale_factors=scale_factors,
            mask_ratio=mask_ratio,
            block_size=block_size,
            grid_size=grid_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            mask_only=mask_only,
        )
        self._first_call = True

    def forward(
        self,
        feats: Any,
        decoder_fn: Callable[[Any], Tensor] | None = None,
        pseudo_labels: Tensor | None = None,
        pixel_weights: Tensor | float | None = None,
        *,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        validate: bool | None = None,
    ) -> Tensor:
        """The loss: weighted cross-entropy of the decoded rebuilt features against the pseudo-labels.

        Args:
            feats: (B, C, H, W), or list or tuple of them, fine to coarse: the student's features of target images.
            decoder_fn: as at construction, and instead of it.
            pseudo_labels: integer class ids (B, H, W) or (B, 1, H, W); logits are resized to them.
            pixel_weights: a number >= 0 or a float tensor (B, H, W), (B, 1, H, W) or (B, 1, 1); 1 where None.
                What stands at ignored pixels does not matter.
            mask: bool (B, 1, rows, cols), True = masked; drawn where None.
            generator: draws the mask; a CPU generator also serves features on another device.
            validate: whether to read label ids and weights and name wrong ones. None: always on CPU, at the first
                call on an accelerator, where reading them waits for it. Never while compiling.

        Returns:
            Scalar loss of at least float32, attached to the graph also when no pixel counts.

        Raises:
            TypeError, ValueError: an argument does not fit; the message names it and says what was expected.
        """
        decode = self.decoder_fn if decoder_fn is None else decoder_fn
        if not callable(decode):
            raise TypeError(f"decoder_fn: expected a callable features -> logits, got {describe(decode)}: {USAGE}")

        # features -> mask (B, 1, rows, cols), True = masked -> tokens -> rebuilt features: Rebuilder.forward
        rebuilt, mask = self.rebuild(feats, mask, generator)
        levels = [rebuilt] if isinstance(rebuilt, Tensor) else list(rebuilt)  # the decoder may write into its list
        logits = check_logits(decode(rebuilt), len(mask))  # (B, K, h, w)

        labels = check_labels("pseudo_labels", pseudo_labels, logits)  # (B, H, W)
        weights = check_weights("pixel_weights", 1.0 if pixel_weights is None else pixel_weights, labels)
        if not torch.compiler.is_compiling():  # compiled code reads no values and no state
            if validate or (validate is None and (self._first_call or labels.device.type == "cpu")):
                check_values(labels, weights, logits.shape[1], self.ignore_index)
            if self._first_call and torch.is_grad_enabled():
                self._first_call = False
                warn_if_cut(feats, levels, logits)

        # float32 before resizing: half as many roundings, and no half-precision copy at full size
        logits = resize(logits.float() if logits.itemsize < 4 else logits, labels.shape[-2:])  # (B, K, H, W)
        loss = weighted_cross_entropy(logits, labels, weights, ignore_index=self.ignore_index, reduction=self.reduction)
        return self.loss_weight * loss

    def rebuild(
        self, feats: Any, mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Any, Tensor]:
        """As the Rebuilder is called: (rebuilt features, the mask that was used)."""
        rebuilt, mask = self.rebuilder(feats, mask, generator)
        return rebuilt, mask

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "decoder_fn":  # nn.Module would register it
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def extra_repr(self) -> str:
        return f"loss_weight={self.loss_weight}, ignore_index={self.ignore_index}, reduction={self.reduction!r}"
