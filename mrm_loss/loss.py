"""Masked Representation Modeling as one loss term (CVPR 2026, arXiv 2509.13801)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mrm_loss.checks import check_bool, check_int, check_number, check_reduction, describe, warn
from mrm_loss.cross_entropy import reduced_cross_entropy
from mrm_loss.graph import nodes_of, not_reached
from mrm_loss.inputs import check_device, check_labels, check_logits, check_values, check_weights
from mrm_loss.mask_tokens import MaskTokens
from mrm_loss.masking import resize
from mrm_loss.rebuilder import Rebuilder

USAGE = """call it as
    mrm(feats, decoder, pseudo_labels)
or, with a decoder given at construction, MRM(encoder_channels, decoder), as
    mrm(feats, pseudo_labels=pseudo_labels)"""


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
        decoder_fn: takes features as the encoder returns them, returns logits (B, K, h, w). Called, never registered:
            parameters(), state_dict() and to() concern the Rebuilder alone. Pickling drops it.
        scale_factors: rows of each level / rows of the grid at the training crop; fixes how often each level's
            projector doubles the grid. Default 2^(L-1-l) for level l of L, 4 for a single level.
        mask_ratio: share of the grid's blocks that is masked, in (0, 1).
        block_size: side in cells of the blocks that are masked together.
        grid_size: rows and columns of the token grid; an int for a square one.
        embed_dim: width of the tokens; a multiple of 4 and of num_heads.
        depth: number of transformer blocks.
        num_heads: attention heads per block.
        mlp_ratio: hidden width of a block's MLP / embed_dim.
        rebuild: False masks without rebuilding: the projectors see the mask token alone, so that masked cells hold
            what was learned of a level, whatever is visible (`MaskTokens`). It costs little more than the pass through
            encoder and decoder. Not the paper's method. depth, num_heads and mlp_ratio are then not looked at.
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
        rebuild: bool = True,
        loss_weight: float = 1.0,
        ignore_index: int = 255,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if decoder_fn is not None and not callable(decoder_fn):
            raise TypeError(f"decoder_fn: expected a callable features -> logits, got {describe(decoder_fn)}")
        self.decoder_fn: Callable[[Any], Tensor] | None = decoder_fn
        self.loss_weight = check_number("loss_weight", loss_weight, 0)
        self.ignore_index = check_int("ignore_index", ignore_index, -(2**63))
        self.reduction = check_reduction(reduction)
        common: Any = {
            "scale_factors": scale_factors,
            "mask_ratio": mask_ratio,
            "block_size": block_size,
            "grid_size": grid_size,
            "embed_dim": embed_dim,
        }
        self.rebuilder: Rebuilder | MaskTokens
        if check_bool("rebuild", rebuild):
            blocks: Any = {"depth": depth, "num_heads": num_heads, "mlp_ratio": mlp_ratio}
            self.rebuilder = Rebuilder(encoder_channels, **common, **blocks)
        else:
            self.rebuilder = MaskTokens(encoder_channels, **common)
        self._decoder_was_pickled = False
        self._read_values_once = False
        self._warned_detached = False
        self._looked_at_decoder = False

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
        decode = self._decoder(decoder_fn)
        if pseudo_labels is None:
            raise TypeError(f"pseudo_labels: expected class ids (B, H, W), got None; {USAGE}")
        labels = check_labels(pseudo_labels)
        weights = 1.0 if pixel_weights is None else check_weights(pixel_weights, labels)

        rebuilt, mask = self.rebuild(feats, mask, generator)
        check_device("pseudo_labels", labels, mask.device)
        check_device("pixel_weights", weights, mask.device)
        if labels.shape[0] != mask.shape[0]:
            raise ValueError(f"pseudo_labels: expected {mask.shape[0]} image(s), as feats has, got {labels.shape[0]}")
        self._warn_if_detached(feats)
        nodes = self._nodes_to_reach(rebuilt)  # before a decoder that writes in place moves them
        logits = check_logits(decode(rebuilt), labels.shape[0])
        self._warn_if_not_reached(logits, nodes)
        if self._should_validate(labels, validate):
            check_values(labels, weights, logits.shape[1], self.ignore_index)
        # float32 before resizing: half as many roundings, and no half-precision copy at full size
        logits = resize(logits.float() if logits.itemsize < 4 else logits, labels.shape[-2:])
        loss = reduced_cross_entropy(logits, labels, weights, self.ignore_index, self.reduction)
        return self.loss_weight * loss

    def rebuild(
        self, feats: Any, mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Any, Tensor]:
        """As the Rebuilder is called: (rebuilt features, the mask that was used)."""
        rebuilt, mask = self.rebuilder(feats, mask, generator)
        return rebuilt, mask

    def _decoder(self, decoder_fn: Any) -> Callable[[Any], Tensor]:
        if isinstance(decoder_fn, Tensor):
            raise TypeError(f"decoder_fn: expected a callable features -> logits, got {describe(decoder_fn)}; {USAGE}")
        decode = self.decoder_fn if decoder_fn is None else decoder_fn
        if decode is None:
            dropped = " (copying or pickling dropped the one given before)" if self._decoder_was_pickled else ""
            raise TypeError(f"decoder_fn: expected a callable features -> logits, got None{dropped}; {USAGE}")
        if not callable(decode):
            raise TypeError(f"decoder_fn: expected a callable features -> logits, got {describe(decode)}; {USAGE}")
        return decode

    def _should_validate(self, labels: Tensor, validate: bool | None) -> bool:
        if torch.compiler.is_compiling():
            return False
        if validate is not None:
            return validate
        if labels.is_meta or hasattr(labels, "fake_mode"):  # meta and fake tensors have no values
            return False
        first, self._read_values_once = not self._read_values_once, True
        return first or labels.device.type == "cpu"

    def _warn_if_detached(self, feats: Any) -> None:
        if torch.compiler.is_compiling() or self._warned_detached or not torch.is_grad_enabled():
            return
        levels = [feats] if isinstance(feats, Tensor) else feats
        used = [f for f, channels in zip(levels, self.rebuilder.encoder_channels) if channels is not None]
        if not any(level.requires_grad for level in used):
            self._warned_detached = True
            warn(
                "feats: none of the features requires a gradient (the teacher's, or detached?), so the loss does not "
                "reach the encoder; give the student's features"
            )

    def _nodes_to_reach(self, rebuilt: Any) -> list[Any]:
        """What the first call's gradients should arrive at; nothing afterwards."""
        if torch.compiler.is_compiling() or self._looked_at_decoder or not torch.is_grad_enabled():
            return []
        nodes = nodes_of([rebuilt] if isinstance(rebuilt, Tensor) else list(rebuilt))
        return [None if channels is None else node for node, channels in zip(nodes, self.rebuilder.encoder_channels)]

    def _warn_if_not_reached(self, logits: Tensor, nodes: list[Any]) -> None:
        if not nodes:
            return
        self._looked_at_decoder = True
        missed = not_reached(logits, nodes)
        if missed and len(missed) == len([node for node in nodes if node is not None]):
            warn(
                "decoder_fn: no gradient gets from its logits to the rebuilt features (no_grad, or detached?), so the "
                "loss trains neither encoder nor Rebuilder; to freeze a decoder use decoder.requires_grad_(False)"
            )
        elif missed:
            warn(
                f"decoder_fn: its logits do not depend on level(s) {', '.join(map(str, missed))} of feats, rebuilt in "
                "vain; give None for them in encoder_channels (it saves computing, and DistributedDataParallel stops "
                "at parameters that get no gradient)"
            )

    def __getstate__(self) -> dict[str, Any]:
        pickled = self.__dict__ | {"decoder_fn": None}
        pickled["_decoder_was_pickled"] = self._decoder_was_pickled or self.decoder_fn is not None
        return pickled

    def __deepcopy__(self, memo: dict[int, Any]) -> MRM:
        clone = type(self).__new__(type(self))
        memo[id(self)] = clone
        clone.__dict__.update(deepcopy(self.__dict__ | {"decoder_fn": None}, memo))
        clone.decoder_fn = self.decoder_fn
        return clone

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "decoder_fn":  # nn.Module would register it
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def extra_repr(self) -> str:
        return f"loss_weight={self.loss_weight}, ignore_index={self.ignore_index}, reduction={self.reduction!r}"
