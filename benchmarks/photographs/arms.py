"""Every arm, the pairs' settings, and the order in which runs are made (PLAN.md says why)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import steps
from steps import Change
from torch import nn

from mrm_loss import MRM

DEVELOPMENT, CONFIRMING = [0, 100, 101], list(range(201, 213))

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

    def but(self, settings: dict[str, Any]) -> Arm:
        """The same with other settings."""
        return replace(self, settings=self.settings | settings)


def no_transformer(mrm: MRM) -> None:
    """A cell is rebuilt from its own token, its position and, through the projectors, its direct neighbours."""
    mrm.rebuilder.blocks = nn.ModuleList()


OFF = {"mrm_weight": 0.0}
AUGMENT = {"mrm_augment": True}
MASK_ONLY = {"mrm_mask_only": True}
BALANCE = {"balance_labels": True}

# without any pass beside DACS's own
ARMS: dict[str, Arm] = {
    "source only": Arm("source-only", OFF),
    "oracle": Arm("source-only", OFF, oracle=True),
    "dacs": Arm(settings=OFF),
    "dacs, MRM's time": Arm(settings=OFF, longer=MRM_TIME),
}
# the pass beside DACS: as published, and the controls that differ from it in one thing
PASSES = {
    "mrm": Arm(change=Change()),
    "mask only": Arm(settings=MASK_ONLY, change=Change()),
    "nothing masked": Arm(settings=MASK_ONLY, change=Change(fill=steps.nothing)),
    "zero": Arm(settings=MASK_ONLY, change=Change(fill=steps.zero)),
    "no transformer": Arm(change=Change(), before=no_transformer),
}
PASSES["mrm, augmented"] = PASSES["mrm"].but(AUGMENT)
# what might make it help
HELP = {
    "each pixel": Arm(change=Change(inputs=steps.each_pixel)),
    "ramp": Arm(change=Change(factor=steps.ramp)),
    "delayed": Arm(change=Change(factor=steps.delayed)),
    "by trust": Arm(change=Change(factor=steps.by_trust)),
    "weight 0.25": Arm(settings={"mrm_weight": 0.25}, change=Change()),
    "frozen statistics": Arm(change=Change(frozen=True)),
    "on mixed": Arm(change=Change(inputs=steps.mixed)),
    "two masks": Arm(settings={"mrm_mask_ratio": 0.5}, change=Change(twice=True)),
    "channels": Arm(settings=MASK_ONLY, change=Change(fill=steps.channels)),
    "other image": Arm(settings=MASK_ONLY, change=Change(fill=steps.other_image)),
    "blocks of 2": Arm(settings={"mrm_block_size": 2}, change=Change()),
    "visible alone": Arm(change=Change(visible_alone=True)),
}
CONTROLS = [f"dacs, balanced+{name}" for name in PASSES if name != "mrm"]
PASSES |= {f"mrm, {name}": arm for name, arm in HELP.items()}
ARMS |= {f"dacs+{name}": PASSES[name] for name in ("mrm", "mask only", "mrm, augmented")}
# the same on the baseline whose target pixels of rare pseudo-labels weigh more
ARMS |= {f"dacs, balanced{rest}": ARMS[f"dacs{rest}"].but(BALANCE) for rest in ("", ", MRM's time")}
ARMS |= {f"dacs, balanced+{name}": arm.but(BALANCE) for name, arm in PASSES.items()}
BALANCED = ["dacs, balanced", "dacs, balanced+mrm"]
SLOW = {f"{name}, slow teacher": ARMS[name].but({"alpha": 0.999}) for name in BALANCED}
# noise put into the pseudo-labels on purpose
NOISY = {f"{name}, noise 0.3": replace(ARMS[name], noise=0.3) for name in BALANCED}
# four times the steps: more of them give the baseline nothing
LONG = {f"{name}, long": replace(ARMS[name], longer=4) for name in BALANCED}
ARMS |= SLOW | NOISY | LONG
# MIC is the trainer's own page
MIC = {
    "mic, balanced": Arm("mic", OFF | BALANCE),
    "mic, balanced, MRM's time": Arm("mic", OFF | BALANCE, longer=MRM_TIME),
    "mic, balanced+mrm": Arm("mic", BALANCE),
    "mic, balanced+mask only": Arm("mic", BALANCE | MASK_ONLY),
}
ARMS |= MIC

BOTH = ["drawn-camvid", "camvid-idd"]
SCENES = ["scenes", "scenes-near", "scenes-far"]
EACH_PIXEL, LONGER = "dacs, balanced+mrm, each pixel", "dacs, balanced, MRM's time"
TO_TRY = [f"dacs, balanced+mrm, {name}" for name in HELP if name != "each pixel"]


def blocks(pairs: list[str], arms: list[str], seeds: list[int]) -> list[tuple[str, list[str], list[int]]]:
    """All pairs' arms of a seed before the next seed's."""
    return [(pair, arms, [seed]) for seed in seeds for pair in pairs]


# (pair, arms, seeds), in the order in which they are made; PLAN.md says what each is for. A seed's arms follow each
# other, so that they are made on one machine: on another kind of processor a seed gives another start
QUEUE: list[tuple[str, list[str], list[int]]] = [
    *blocks(SCENES, BALANCED, [0]),
    *blocks(["scenes"], ["dacs", "dacs+mrm", "dacs+mrm, augmented", "dacs, balanced+mrm, augmented"], [0]),
    *blocks(["camvid-idd"], [*BALANCED, *TO_TRY, *SLOW], [100]),
    *blocks(BOTH, [*BALANCED, *LONG], [210]),
    *blocks(BOTH, [*BALANCED, LONGER, EACH_PIXEL, *CONTROLS, "source only"], [211]),
    *blocks(["eighth-camvid"], ["source only", *BALANCED, LONGER, EACH_PIXEL], [202, 203]),
    *blocks(["drawn-camvid"], list(MIC), [201]),
    *blocks(["camvid-idd"], [*BALANCED, *NOISY], [101]),
    *blocks(BOTH, ["oracle"], [211]),
]

# (a, b): a - b is reported where both have runs; besides, all that is on top of the baseline minus the baseline
BASE, MRM_ON_IT = BALANCED
ALSO = ("slow teacher", "noise 0.3", "long")  # what the baseline is then given too
CONTRASTS = [("dacs", "source only"), *((arm, "dacs") for arm in ARMS if arm.startswith("dacs+")), (BASE, "dacs")]
CONTRASTS += [(arm, LONGER) for arm in (MRM_ON_IT, EACH_PIXEL)]
CONTRASTS += [(EACH_PIXEL, MRM_ON_IT), *((MRM_ON_IT, arm) for arm in CONTROLS)]
CONTRASTS += [(f"{MRM_ON_IT}, {also}", f"{BASE}, {also}") for also in ALSO]
CONTRASTS += [(arm, "mic, balanced") for arm in MIC if arm != "mic, balanced"]
