"""The paper's ablations on DACS (its GTA5 -> Cityscapes tables) beside ours: what is changed, and the gain on DACS."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

from contrasts import Line, of
from paired import Paired, paired

# arm: (what it changes, the paper's nearest change, its gain on DACS in mIoU); the paper's widths and grids are other
# ones, so that a change stands beside the one by the same factor
PAPER: dict[str, tuple[str, str, float]] = {
    "dacs+mrm": ("as it is", "as it is", 3.8),
    "dacs+option": ("no rebuilding", "no rebuilding", -0.2),
    "ratio 0.2+mrm": ("ratio 0.2", "0.2", 2.2),
    "ratio 0.6+mrm": ("ratio 0.6", "0.6", 3.1),
    "ratio 0.8+mrm": ("ratio 0.8", "0.8", 2.0),
    "rebuilder depth 1": ("1 block", "1", 3.3),
    "rebuilder depth 4": ("4 blocks", "4", 2.3),
    "depth 8": ("8 blocks", "8", 0.8),
    "width 16": ("a quarter of the width", "128 of 512", 2.6),
    "width 32": ("half the width", "256 of 512", 3.0),
    "width 96": ("1.5 times the width", "768 of 512", 1.5),
    "grid 6 x 12": ("half the grid", "8 of 16", 3.5),
    "grid 24 x 48": ("twice the grid", "32 of 16", 2.0),
    "weight 0.2": ("a tenth of the weight", "0.1", 2.6),
    "weight 1": ("half the weight", "0.5", 3.7),
    "weight 4": ("twice the weight", "2", 3.3),
    "weight 20": ("ten times the weight", "10", 0.0),
    "source": ("source images", "source", 0.8),
    "source and target": ("source and target images", "both", 3.1),
    "encoder alone": ("trains the encoder, not the decoder", "encoder alone", 2.8),
    "decoder alone": ("trains the decoder, not the encoder", "decoder alone", 2.1),
    "student features": ("regression of the student's features", "the same", 1.6),
    "teacher features": ("regression of the teacher's features", "the same", 1.4),
    "pixels": ("regression of pixels", "the same", -0.3),
}
MAIN = {"dacs+mrm", "dacs+option"}  # which have more seeds than the others
# what one table of the paper compares: its arms beside "dacs+mrm"
TABLES = {
    "ratio": ["ratio 0.2+mrm", "ratio 0.6+mrm", "ratio 0.8+mrm"],
    "blocks": ["rebuilder depth 1", "rebuilder depth 4", "depth 8"],
    "width": ["width 16", "width 32", "width 96"],
    "grid": ["grid 6 x 12", "grid 24 x 48"],
    "weight": ["weight 0.2", "weight 1", "weight 4", "weight 20"],
    "images": ["source", "source and target"],
    "what it trains": ["encoder alone", "decoder alone"],
    "objective": ["dacs+option", "student features", "teacher features", "pixels"],
}


def on_their_seeds(confirming: list[Line]) -> dict[str, dict[int, float]]:
    """Arm -> seed -> the student's mIoU, on those seeds alone on which an ablation and the baseline have run."""
    seeds = {line["seed"] for line in confirming if line["arm"] in set(PAPER) - MAIN} & of(confirming, "dacs").keys()
    kept = [line for line in confirming if line["seed"] in seeds]
    return {arm: values for arm in PAPER if (values := of(kept, arm))}


def ablation_rows(confirming: list[Line]) -> list[tuple[str, str, float, Paired]]:
    """Change, the paper's, its gain, and the gain here, of the arms that have run on the ablations' seeds."""
    found, base = on_their_seeds(confirming), of(confirming, "dacs")
    return [(*PAPER[arm], paired(ours, base)) for arm, ours in found.items()]


@dataclass
class Order:
    """One table of the paper beside the same changes here.

    theirs, ours: its changes, that of the highest gain first.
    holds, reversed, open: pairs of changes of which the paper has the first above the second; the interval of their
    difference here, paired by seed, lies above 0, below 0, or neither.
    """

    table: str
    theirs: list[str]
    ours: list[str]
    holds: list[tuple[str, str]] = field(default_factory=list)
    reversed: list[tuple[str, str]] = field(default_factory=list)
    open: list[tuple[str, str]] = field(default_factory=list)


def orders(confirming: list[Line]) -> list[Order]:
    """Which of the paper's orderings appear, of the arms that have run."""
    found, base, tables = on_their_seeds(confirming), of(confirming, "dacs"), []
    for table, compared in TABLES.items():
        arms = [arm for arm in ["dacs+mrm", *compared] if arm in found]
        if len(arms) < 2:
            continue
        theirs = sorted(arms, key=lambda arm: -PAPER[arm][2])
        ours = sorted(arms, key=lambda arm: -paired(found[arm], base).mean)
        order = Order(table, [PAPER[arm][0] for arm in theirs], [PAPER[arm][0] for arm in ours])
        for first, second in combinations(theirs, 2):
            result = paired(found[first], found[second])
            kind = order.holds if result.low > 0 else order.reversed if result.high < 0 else order.open
            kind.append((PAPER[first][0], PAPER[second][0]))
        tables.append(order)
    return tables
