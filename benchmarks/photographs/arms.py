"""Every arm, the pairs' settings, and the order in which runs are made (PLAN.md says why)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import steps
from steps import Change
from torch import nn

from mrm_loss import MRM

DEVELOPMENT, CONFIRMING = [0, 100, 101], list(range(201, 209))

# one network and one size for all pairs: ImageNet weights, DAFormer's head, images of 120 x 160
COMMON: dict[str, Any] = {
    "encoder": "timm-tf_efficientnet_lite0",
    "decoder": "daformer",
    "decoder_width": 64,
    "source_size": (120, 160),
    "target_size": (120, 160),
    "crop": (96, 128),
    "batch_size": 4,
    "pretrain_iterations": 600,
    "pretrain_lr": 2e-4,
    "iterations": 800,
    "lr": 1e-3,
    "head_lr_factor": 5.0,
    "rare_classes": True,
    "rare_temperature": 0.05,
    "rare_min_pixels": 100,
    "eval_every": 200,
    # as published, but for the Rebuilder's size and rate, which are those of the embedded scenes
    "mrm_weight": 1.0,
    "mrm_grid": (6, 8),
    "mrm_block_size": 1,
    "mrm_width": 128,
    "mrm_augment": False,
}
# of a pair, where they differ from the common ones
SETTINGS: dict[str, dict[str, Any]] = {"drawn-camvid": {"pretrain_iterations": 1000, "lr": 5e-4}}

MRM_TIME = 1.45  # steps of DACS that take the time of a step with MRM; measured, see PLAN.md


@dataclass(frozen=True)
class Arm:
    """What a run does.

    method: "dacs", "mic" or "source-only".
    settings: changed settings.
    change: the pass beside DACS's own; None: none, or in MIC the trainer's.
    before: changes MRM before training.
    longer: factor on the steps of self-training.
    noise: see `steps.dacs_step`.
    oracle: trains on the target's own labels.
    """

    method: str = "dacs"
    settings: dict[str, Any] = field(default_factory=dict)
    change: Change | None = None
    before: Callable[[MRM], None] | None = None
    longer: float = 1.0
    noise: float = 0.0
    oracle: bool = False


def no_transformer(mrm: MRM) -> None:
    """A cell is rebuilt from its own token, its position and, through the projectors, its direct neighbours."""
    mrm.rebuilder.blocks = nn.ModuleList()


OFF = {"mrm_weight": 0.0}
AUGMENT = {"mrm_augment": True}
BALANCE = {"balance_labels": True}
MASK_ONLY = {"mrm_mask_only": True}

ARMS: dict[str, Arm] = {
    "source only": Arm("source-only", OFF),
    "oracle": Arm("source-only", OFF, oracle=True),
    "dacs": Arm(settings=OFF),
    "dacs, MRM's time": Arm(settings=OFF, longer=MRM_TIME),
    "dacs, balanced": Arm(settings=OFF | BALANCE),
    "dacs, balanced, MRM's time": Arm(settings=OFF | BALANCE, longer=MRM_TIME),
}
# the pass beside DACS: as published, and the controls that differ from it in one thing
PASSES = {
    "mrm": Arm(change=Change()),
    "mask only": Arm(settings=MASK_ONLY, change=Change()),
    "nothing masked": Arm(settings=MASK_ONLY, change=Change(fill=steps.nothing)),
    "zero": Arm(settings=MASK_ONLY, change=Change(fill=steps.zero)),
    "no transformer": Arm(change=Change(), before=no_transformer),
}
ARMS |= {f"dacs+{name}": arm for name, arm in PASSES.items()}
ARMS |= {
    f"dacs+{name}, augmented": replace(PASSES[name], settings=PASSES[name].settings | AUGMENT)
    for name in ("mrm", "mask only", "nothing masked")
}
# what might make it help: each is tried with masked cells rebuilt, or filled as its name says
HELP = {
    "each pixel": Arm(change=Change(inputs=steps.each_pixel)),
    "ramp": Arm(change=Change(factor=steps.ramp)),
    "delayed": Arm(change=Change(factor=steps.delayed)),
    "by trust": Arm(change=Change(factor=steps.by_trust)),
    "weight 0.25": Arm(settings={"mrm_weight": 0.25}, change=Change()),
    "weight 0.5": Arm(settings={"mrm_weight": 0.5}, change=Change()),
    "frozen statistics": Arm(change=Change(frozen=True)),
    "on mixed": Arm(change=Change(inputs=steps.mixed)),
    "on source": Arm(change=Change(inputs=steps.source)),
    "joined with mixed": Arm(change=Change(inputs=steps.mixed, joined=True)),
    "two masks": Arm(settings={"mrm_mask_ratio": 0.5}, change=Change(twice=True)),
    "two masks, joined with mixed": Arm(
        settings={"mrm_mask_ratio": 0.5}, change=Change(inputs=steps.mixed, joined=True, twice=True)
    ),
    "channels": Arm(settings=MASK_ONLY, change=Change(fill=steps.channels)),
    "channels, joined with mixed": Arm(
        settings=MASK_ONLY, change=Change(inputs=steps.mixed, fill=steps.channels, joined=True)
    ),
    "other image": Arm(settings=MASK_ONLY, change=Change(fill=steps.other_image)),
    "blocks of 2": Arm(settings={"mrm_block_size": 2}, change=Change()),
    "soft": Arm(change=Change(loss=steps.soft)),
    "soft, augmented": Arm(settings=AUGMENT, change=Change(loss=steps.soft)),
    "masked alone": Arm(change=Change(counted="masked")),
    "visible alone": Arm(change=Change(counted="visible")),
    "balanced": Arm(change=Change(inputs=steps.balanced)),
    "balanced, augmented": Arm(settings=AUGMENT, change=Change(inputs=steps.balanced)),
    "balanced, mask only": Arm(settings=MASK_ONLY, change=Change(inputs=steps.balanced)),
    "balanced, nothing masked": Arm(settings=MASK_ONLY, change=Change(inputs=steps.balanced, fill=steps.nothing)),
    "grid 12 x 16": Arm(settings={"mrm_grid": (12, 16)}, change=Change()),
    "ratio 0.2": Arm(settings={"mrm_mask_ratio": 0.2}, change=Change()),
    "each pixel, augmented": Arm(settings=AUGMENT, change=Change(inputs=steps.each_pixel)),
    "mask only, joined with mixed": Arm(settings=MASK_ONLY, change=Change(inputs=steps.mixed, joined=True)),
}
ARMS |= {f"dacs+mrm, {name}": arm for name, arm in HELP.items()}
ARMS["dacs, balanced+mrm"] = Arm(settings=BALANCE, change=Change())
SLOW_TEACHER = {"alpha": 0.999}
ARMS |= {
    "dacs, slow teacher": Arm(settings=OFF | SLOW_TEACHER),
    "dacs+mrm, slow teacher": Arm(settings=SLOW_TEACHER, change=Change()),
}
# noise put into the pseudo-labels on purpose
ARMS |= {
    f"{name}, noise {share:g}": replace(ARMS[name], noise=share)
    for name in ("dacs", "dacs+mrm")
    for share in (0.1, 0.3)
}
# MIC is the trainer's own page
ARMS |= {
    "mic": Arm("mic", OFF),
    "mic, MRM's time": Arm("mic", OFF, longer=MRM_TIME),
    "mic+mrm": Arm("mic"),
    "mic+mask only": Arm("mic", MASK_ONLY),
    "mic+mrm, augmented": Arm("mic", AUGMENT),
    "mic+mask only, augmented": Arm("mic", MASK_ONLY | AUGMENT),
}
MAIN = ["dacs", "dacs+mrm", "dacs+mask only", "dacs+nothing masked", "dacs+mrm, augmented"]
CONTROLS = [
    "source only",
    "dacs, MRM's time",
    "dacs+zero",
    "dacs+no transformer",
    "dacs+mask only, augmented",
    "dacs+nothing masked, augmented",
]
# the arm that rose above the baseline on seed 0, and whether it is the balancing or the masking that does it
BALANCED_CONTROLS = ["dacs+mrm, balanced, mask only", "dacs+mrm, balanced, nothing masked"]
BALANCED = ["dacs+mrm, balanced", "dacs, balanced", "dacs, balanced+mrm", "dacs, balanced, MRM's time"]
BALANCED += BALANCED_CONTROLS
NOISY = [name for name in ARMS if "noise" in name]
MIC = [name for name in ARMS if name.startswith("mic")]
BOTH = ["drawn-camvid", "camvid-idd"]
SCENES = ["scenes", "scenes-near", "scenes-far"]


def blocks(pairs: list[str], arms: list[str], seeds: list[int]) -> list[tuple[str, list[str], list[int]]]:
    """All pairs' arms of a seed before the next seed's."""
    return [(pair, arms, [seed]) for seed in seeds for pair in pairs]


# (pair, arms, seeds), in the order in which they are made; PLAN.md says what each is for
QUEUE: list[tuple[str, list[str], list[int]]] = [
    *blocks(BOTH, ["dacs", "dacs+mrm", "dacs+mrm, augmented", *BALANCED], CONFIRMING[:6]),
    *blocks(BOTH, MAIN, CONFIRMING[:4]),
    *blocks(BOTH, ["dacs", "dacs+mrm", *(f"dacs+mrm, {name}" for name in HELP)], DEVELOPMENT[:1]),
    *blocks(BOTH, ["oracle", "dacs, slow teacher", "dacs+mrm, slow teacher"], DEVELOPMENT[:1]),
    *blocks(SCENES, ["source only", "dacs", "dacs+mrm", "dacs+mask only"], DEVELOPMENT),
    *blocks(BOTH, MAIN, CONFIRMING[4:]),
    *blocks(BOTH, CONTROLS, CONFIRMING),
    *blocks(BOTH, ["dacs", "dacs+mrm", *NOISY], DEVELOPMENT),
    *blocks(["day-dusk", "idd-camvid"], MAIN, DEVELOPMENT[:1]),
    *blocks(["drawn-camvid"], MIC, CONFIRMING[:6]),
    *blocks(["eighth-camvid"], ["source only", "dacs", "dacs+mrm"], CONFIRMING[:6]),
]

# (a, b): a - b is reported where both have runs
CONTRASTS = [(arm, "dacs") for arm in ARMS if arm.startswith("dacs") and arm != "dacs"]
CONTRASTS += [(arm, "dacs, MRM's time") for arm in ARMS if arm.startswith("dacs+")]
CONTRASTS += [(arm, "dacs+mrm") for arm in ARMS if arm.startswith("dacs+") and arm != "dacs+mrm"]
CONTRASTS += [(f"dacs+mrm, noise {share}", f"dacs, noise {share}") for share in ("0.1", "0.3")]
CONTRASTS += [(arm, "dacs, balanced") for arm in BALANCED if "mrm" in arm]
CONTRASTS += [("dacs, balanced+mrm", "dacs, balanced, MRM's time")]
CONTRASTS += [(arm, "dacs+mrm, balanced") for arm in BALANCED_CONTROLS]
CONTRASTS += [("dacs+mrm, slow teacher", "dacs, slow teacher"), ("dacs", "source only")]
CONTRASTS += [(arm, "mic") for arm in ARMS if arm.startswith("mic") and arm != "mic"]
