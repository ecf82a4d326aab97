"""Every arm, the pairs' settings, and the order in which runs are made (PLAN.md says why)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import changes
from trainers import Run

DEVELOPMENT = [0, 100, 101]  # seeds; all others confirm, see PLAN.md

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
    change: what it changes of the run before training.
    longer: factor on the steps of self-training.
    oracle: trains on the target's own labels.
    """

    method: str = "dacs"
    settings: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Run], None] | None = None
    longer: float = 1.0
    oracle: bool = False

    def but(self, settings: dict[str, Any]) -> Arm:
        """The same with other settings."""
        return replace(self, settings=self.settings | settings)


OFF = {"mrm_weight": 0.0}
AUGMENT = {"mrm_augment": True}
MASK_ONLY = {"mrm_mask_only": True}
BALANCE = {"balance_labels": True}

# beside DACS: nothing, MRM as published, the controls that differ from it in one thing, and what might make it help
BESIDE = {
    "": Arm(settings=OFF),
    ", MRM's time": Arm(settings=OFF, longer=MRM_TIME),
    "+mrm": Arm(),
    "+mask only": Arm(settings=MASK_ONLY),
    "+nothing masked": Arm(settings=MASK_ONLY, change=changes.nothing),
    "+zero": Arm(settings=MASK_ONLY, change=changes.zero),
    "+no transformer": Arm(change=changes.no_transformer),
    "+mrm, augmented": Arm(settings=AUGMENT),
    "+mrm, visible alone": Arm(change=changes.visible_alone),
    "+mrm, visible alone, augmented": Arm(settings=AUGMENT, change=changes.visible_alone),
}
# the second baseline: target pixels of rare pseudo-labels weigh more
PLAIN, BASE = "dacs", "dacs, balanced"
ARMS: dict[str, Arm] = {f"{PLAIN}{name}": arm for name, arm in BESIDE.items()}
ARMS |= {f"{BASE}{name}": arm.but(BALANCE) for name, arm in BESIDE.items()}
MRM_ON_IT, LONGER = f"{BASE}+mrm", f"{BASE}, MRM's time"
VISIBLE = f"{MRM_ON_IT}, visible alone"
AUGMENTED, VISIBLE_AUGMENTED = f"{MRM_ON_IT}, augmented", f"{VISIBLE}, augmented"
HELP = [f"{MRM_ON_IT}, each pixel", VISIBLE, AUGMENTED, VISIBLE_AUGMENTED]  # the first has its runs, and has left
CONTROLS = [f"{BASE}+{name}" for name in ("mask only", "nothing masked", "zero", "no transformer")]
MIC = {
    "mic, balanced": Arm("mic", OFF | BALANCE),
    "mic, balanced, MRM's time": Arm("mic", OFF | BALANCE, longer=MRM_TIME),
    "mic, balanced+mrm": Arm("mic", BALANCE),
}
ENDS = {"source only": Arm("source-only", OFF), "oracle": Arm("source-only", OFF, oracle=True)}
ARMS |= MIC | ENDS

BOTH = ["drawn-camvid", "camvid-idd"]


def blocks(pairs: list[str], arms: list[str], seeds: list[int]) -> list[tuple[str, list[str], list[int]]]:
    """All pairs' arms of a seed before the next seed's."""
    return [(pair, arms, [seed]) for seed in seeds for pair in pairs]


# (pair, arms, seeds), in the order in which they are made; PLAN.md says what each is for. A seed's arms follow each
# other, so that they are made on one machine: on another kind of processor a seed gives another start
QUEUE: list[tuple[str, list[str], list[int]]] = [
    *blocks(BOTH, [BASE, MRM_ON_IT, VISIBLE, LONGER, *ENDS, *CONTROLS, AUGMENTED], [211]),
    *blocks(BOTH, [BASE, MRM_ON_IT, LONGER, VISIBLE, AUGMENTED, VISIBLE_AUGMENTED], [210]),
    *blocks(["drawn-camvid"], [BASE, AUGMENTED, LONGER], [212, 213]),
    *blocks(["drawn-camvid"], [BASE, *MIC], [214]),
    *blocks(["scenes-far", "scenes-near", "scenes"], [BASE, MRM_ON_IT], [100, 101]),
    *blocks(["scenes-far"], [LONGER, f"{BASE}+nothing masked", f"{BASE}+mask only"], [101]),
    *blocks(["eighth-camvid"], ["source only", BASE, MRM_ON_IT, LONGER], [202, 203]),
    *blocks(["scenes-far"], [BASE, MRM_ON_IT, LONGER], [201, 202]),
    *blocks(["scenes-far"], [f"{BASE}+nothing masked"], [201]),
]

# (a, b): a - b is reported where both have runs; besides, all that is on top of the baseline minus the baseline
ALSO = ("slow teacher", "noise 0.3", "long")  # what the baseline is then given too; they have their runs
CONTRASTS = [("source only", PLAIN), ("source only", BASE), (BASE, PLAIN)]
CONTRASTS += [(arm, PLAIN) for arm in ARMS if arm.startswith(f"{PLAIN}+")]
CONTRASTS += [(arm, LONGER) for arm in (MRM_ON_IT, *HELP)]
CONTRASTS += [*((arm, MRM_ON_IT) for arm in HELP), *((MRM_ON_IT, arm) for arm in CONTROLS)]
CONTRASTS += [(f"{MRM_ON_IT}, {also}", f"{BASE}, {also}") for also in ALSO]
CONTRASTS += [("mic, balanced", BASE), *((arm, "mic, balanced") for arm in MIC if arm != "mic, balanced")]
