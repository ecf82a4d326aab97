"""Every arm of the study, and the order in which its runs are made (PLAN.md says why)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from changes import decoder_alone, encoder_alone, local, mask_only, masked_cells_alone, vectors
from contrasts import CONFIRMED, DEVELOPMENT, LEFT_OPEN, MASKS_CONFIRMED, MASKS_DEVELOPMENT, PLAIN
from masks import doubt, preferring, rarity, rising
from networks import context_free_decoder, global_encoder, small_mit
from objectives import pixel_head, pixels, regression, student_features, teacher_features
from steps import (
    Wrap,
    every,
    frozen_rebuilder,
    half_batch,
    mixed_twice,
    on_part,
    pretrained_rebuilder,
    quarter_crop,
    without_mixing,
)
from trainers import Run, Segmentor

from mrm_loss import MRM

CONFIRMING, REGIMES_CONFIRMING, MASKS_CONFIRMING = list(range(21, 33)), list(range(41, 53)), list(range(61, 69))
OFF = {"mrm_weight": 0.0}
# MRM added 64 % to a DACS step on this network, an extra pass alone 40 %, 45 % and 29 % in MIC, when these were set;
# what the runs took since is in results/tables.md. Mask only is counted at the price of the pass alone.
DACS_TIME, MIC_TIME = {"iterations": 2460}, {"iterations": 2175}
DACS_MASK_TIME, MIC_MASK_TIME = {"iterations": 1757}, {"iterations": 1686}


@dataclass(frozen=True)
class Arm:
    """What a run changes of a trainer with its default settings.

    method: "dacs" or "mic".
    settings: changed settings.
    changes: functions that change the Rebuilder before training.
    network: changes the network before training; None: the trainers' small network.
    before: what is trained between the pre-training on the source and the first step of the method.
    step: wraps the trainer's step function.
    scenes: the world, see worlds.py.
    trainer: a key of trainers.TRAINERS; "": the method's own.
    """

    method: str = "dacs"
    settings: dict[str, Any] = field(default_factory=dict)
    changes: tuple[Callable[[MRM], None], ...] = ()
    network: Callable[[Segmentor], None] | None = None
    before: Callable[[Run], None] | None = None
    step: Wrap | None = None
    scenes: str = "street"
    trainer: str = ""


def trio(name: str, **common: Any) -> dict[str, Arm]:
    """Baseline, MRM and mask only of one regime, which differ in nothing else."""
    settings = common.pop("settings", {})
    return {
        name: Arm(settings=settings | OFF, **common),
        f"{name}+mrm": Arm(settings=settings, **common),
        f"{name}+mask-only": Arm(settings=settings, changes=(mask_only,), **common),
    }


def pair(name: str, before: Callable[[Run], None] | None = None, **settings: Any) -> dict[str, Arm]:
    """MRM and mask only with other settings of MRM; the baseline is DACS."""
    both = trio(name, settings=settings, before=before)
    return {arm: both[arm] for arm in list(both)[1:]}


def nothing_masked(weight: float, augment: bool) -> Arm:
    """MRM's pass with every feature left as it is."""
    return Arm(settings={"mrm_mask_ratio": 1e-9, "mrm_weight": weight, "mrm_augment": augment})


# item 1: the present world
ARMS: dict[str, Arm] = trio("dacs") | {"dacs+local": Arm(changes=(local,))}
ARMS |= {
    "dacs, MRM's time": Arm(settings=OFF | DACS_TIME),
    "dacs+mask-only, MRM's time": Arm(settings=DACS_MASK_TIME, changes=(mask_only,)),
    "dacs, mixed twice": Arm(settings=OFF, step=mixed_twice),
    "dacs+option": Arm(settings={"mrm_rebuild": False}),
    "dacs+vector": Arm(settings={"mrm_rebuild": False}, changes=(vectors,)),
}
NOTHING = {
    f"dacs+nothing-masked x{weight:g}{'' if augment else ' plain'}": nothing_masked(weight, augment)
    for weight in (0.5, 1.0, 2.0)
    for augment in (True, False)
}
ARMS |= NOTHING
NOTHING_CONFIRMED = "dacs+nothing-masked x0.5"  # the best of them on the development seeds
ARMS |= trio("mic", method="mic") | {"mic+local": Arm("mic", changes=(local,))}
ARMS |= {
    "mic, MRM's time": Arm("mic", OFF | MIC_TIME),
    "mic+mask-only, MRM's time": Arm("mic", MIC_MASK_TIME, changes=(mask_only,)),
    "mic, mixed twice": Arm("mic", OFF, step=mixed_twice),
    "mic+nothing-masked": replace(NOTHING[NOTHING_CONFIRMED], method="mic"),
    "mic+option": Arm("mic", {"mrm_rebuild": False}),
    "mic+vector": Arm("mic", {"mrm_rebuild": False}, changes=(vectors,)),
}

# item 2: where might rebuilding matter? regime -> its arms
REGIMES: dict[str, dict[str, Arm]] = {
    "context-free decoder": trio("context-free decoder", network=context_free_decoder),
    "one grey": trio("one grey", scenes="one grey"),
    "self-training": trio("self-training", step=without_mixing)
    | {
        "self-training+mrm, masked alone": Arm(step=without_mixing, changes=(masked_cells_alone,)),
        "self-training+mask-only, masked alone": Arm(step=without_mixing, changes=(mask_only, masked_cells_alone)),
    },
    "global encoder": trio("global encoder", network=global_encoder),
    "masked alone": {
        "dacs+mrm, masked alone": Arm(changes=(masked_cells_alone,)),
        "dacs+mask-only, masked alone": Arm(changes=(mask_only, masked_cells_alone)),
    },
    "masks": {
        **pair("block 6, half masked", mrm_block_size=6, mrm_mask_ratio=0.5),
        **pair("block 4", mrm_block_size=4),
        **pair("block 1", mrm_block_size=1),
        **pair("ratio 0.2", mrm_mask_ratio=0.2),
        **pair("ratio 0.6", mrm_mask_ratio=0.6),
        **pair("ratio 0.8", mrm_mask_ratio=0.8),
    },
    "rebuilder": {
        "rebuilder rate 5e-4": Arm(settings={"mrm_lr": 5e-4}),
        "rebuilder rate 4e-3": Arm(settings={"mrm_lr": 4e-3}),
        "rebuilder width 128": Arm(settings={"mrm_width": 128}),
        "rebuilder depth 1": Arm(settings={"mrm_depth": 1}),
        "rebuilder depth 4": Arm(settings={"mrm_depth": 4}),
    },
    "long start": trio("long start", settings={"pretrain_iterations": 3200}),
    "large": trio("large", scenes="large", settings={"crop": (192, 384), "mrm_grid": (24, 48), "batch_size": 2}),
    "long self-training": trio("long self-training", settings={"iterations": 4500}),
    "night": trio("night", scenes="night"),
    "pre-trained rebuilder": {
        **pair("pretrained rebuilder", before=pretrained_rebuilder),
        **pair("frozen rebuilder", before=frozen_rebuilder),
    },
    "small MiT": trio("small MiT", network=small_mit),
    "more scenes": trio("more scenes", scenes="more scenes", settings={"pretrain_iterations": 3200}),
}
ARMS |= {name: arm for regime in REGIMES.values() for name, arm in regime.items()}

# item 4: parts of the cost; a pass in one of K steps weighs K times as much
CHEAP = {
    f"dacs+{name}, every {k}": Arm(settings={"mrm_weight": 2.0 * k}, changes=changes, step=every(k))
    for name, changes in (("mrm", ()), ("mask-only", (mask_only,)))
    for k in (2, 4)
}
CHEAP |= {
    "dacs+mrm, half batch": Arm(step=on_part(half_batch)),
    # blocks of as many pixels as in the whole image
    "dacs+mrm, quarter crop": Arm(settings={"mrm_block_size": 4}, step=on_part(quarter_crop)),
    # DACS's own page has no such option; MIC's trains DACS to the same numbers
    "dacs+mrm, on mixed": Arm(settings={"mrm_on": "mixed"}, trainer="mic"),
    "mic+mrm, on masked": Arm("mic", {"mrm_on": "masked"}),
    "mic+mrm, on mixed": Arm("mic", {"mrm_on": "mixed"}),
    "mic+mrm, every 2": Arm("mic", {"mrm_every": 2}),  # the trainers' option, which came after `every`
}

# what stood open of MRM's settings beside its rate, which is a regime above
SETTINGS = {
    "dacs+mrm, frozen statistics": Arm(settings={"mrm_freeze_norm": True}),
    "dacs+mrm, no augmentation": Arm(settings={"mrm_augment": False}),
}

# item 5: the paper's ablations; those of ratio, blocks and depth 1 and 4 are regimes above
ABLATIONS = {
    "weight 0.2": Arm(settings={"mrm_weight": 0.2}),
    "weight 1": Arm(settings={"mrm_weight": 1.0}),
    "weight 4": Arm(settings={"mrm_weight": 4.0}),
    "weight 20": Arm(settings={"mrm_weight": 20.0}),
    "depth 8": Arm(settings={"mrm_depth": 8}),
    "width 16": Arm(settings={"mrm_width": 16}),
    "width 32": Arm(settings={"mrm_width": 32}),
    "width 96": Arm(settings={"mrm_width": 96}),
    "grid 6 x 12": Arm(settings={"mrm_grid": (6, 12), "mrm_block_size": 1}),
    "grid 24 x 48": Arm(settings={"mrm_grid": (24, 48), "mrm_block_size": 4}),
    "source": Arm(settings={"mrm_on": "source"}),
    "source and target": Arm(settings={"mrm_on": "both"}),
    "encoder alone": Arm(changes=(encoder_alone,)),
    "decoder alone": Arm(changes=(decoder_alone,)),
    "student features": Arm(step=regression(student_features)),
    "teacher features": Arm(step=regression(teacher_features)),
    "pixels": Arm(changes=(pixel_head,), step=regression(pixels)),
}
ABLATED = [*ABLATIONS, "ratio 0.2+mrm", "ratio 0.6+mrm", "ratio 0.8+mrm", "rebuilder depth 1", "rebuilder depth 4"]

# item 6: masks that the paper leaves open; the plain one again, since their seeds have no other arm
MASKS = {
    PLAIN: Arm(),
    "rare cells": Arm(step=preferring(rarity, 0.5)),
    "rare cells, strongly": Arm(step=preferring(rarity, 1.0)),
    "uncertain cells": Arm(step=preferring(doubt, 0.5)),
    "uncertain cells, strongly": Arm(step=preferring(doubt, 1.0)),
    "rising ratio": Arm(step=rising(0.2, 0.6)),
    "rising ratio, strongly": Arm(step=rising(0.1, 0.7)),
}
ARMS |= CHEAP | SETTINGS | ABLATIONS | MASKS

MAIN = ["dacs", "dacs+mrm", "dacs+mask-only", "dacs+local"]
MIC = ["mic", "mic+mrm", "mic+mask-only"]
# whose Rebuilder wins at least 1 point of accuracy at masked cells on the screen's seed: PLAN.md's rule
UPPER = ["context-free decoder", "large", "long self-training"]


def of_regimes(names: Iterable[str]) -> list[str]:
    """All arms of these regimes."""
    return [arm for name in names for arm in REGIMES[name]]


# (what it is, arms, seeds): made in this order, a seed's arms before the next seed's
QUEUE: list[tuple[str, list[str], list[int]]] = [
    ("confirming, DACS, first half", MAIN, CONFIRMING[:6]),
    ("the library's option of then", ["dacs+vector"], CONFIRMING[:6]),
    ("confirming, MIC", MIC, CONFIRMING[:6]),
    ("screen of item 2", MAIN + of_regimes(REGIMES), DEVELOPMENT[:1]),
    ("the screen's upper regimes", of_regimes(UPPER), DEVELOPMENT[1:]),
    ("development, nothing masked", list(NOTHING), DEVELOPMENT),
    ("confirming, DACS, second half", MAIN, CONFIRMING[6:]),
    ("confirming, nothing masked", [NOTHING_CONFIRMED], CONFIRMING),
    ("confirming, controls", ["dacs, MRM's time", "dacs+mask-only, MRM's time", "dacs, mixed twice"], CONFIRMING),
    ("confirming, MIC controls", ["mic+local", "mic, MRM's time", "mic+mask-only, MRM's time"], CONFIRMING[:6]),
    ("confirming, the shorter regime", of_regimes(CONFIRMED[1:]), REGIMES_CONFIRMING),
    ("cost against gain", list(CHEAP), CONFIRMING[:6]),
    ("settings left open", ["dacs+mrm", *LEFT_OPEN], DEVELOPMENT),
    ("ablations", ABLATED, CONFIRMING[:3]),
    ("confirming, the longer regime", of_regimes(CONFIRMED[:1]), REGIMES_CONFIRMING),
    ("masks left open, development", list(MASKS), MASKS_DEVELOPMENT),
    *(("masks left open, confirming", [PLAIN, arm], MASKS_CONFIRMING) for arm in MASKS_CONFIRMED),
    ("MIC's last controls, its option", ["mic+nothing-masked", "mic, mixed twice", "mic+vector"], CONFIRMING[:6]),
    ("that option, second half", ["dacs+vector"], CONFIRMING[6:]),
    ("the option that is mask only", ["dacs+option"], CONFIRMING),
    ("the option that is mask only, MIC", ["mic+option"], CONFIRMING[:6]),
]
