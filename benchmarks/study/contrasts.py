"""What is compared with what, and what an interval says (PLAN.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from paired import Paired, paired

Line = dict[str, Any]
DEVELOPMENT = [0, 100, 101, 102]
MASKS_DEVELOPMENT = [103, 104]  # of the masks that the paper leaves open
# regimes of question 3 that are confirmed as the methods are: of those that arms.UPPER sent on the two with the highest
# mean of MRM - mask only over the development seeds, whatever its sign
CONFIRMED = ["long self-training", "context-free decoder"]
# arms that differ from dacs+mrm in one setting whose default was to follow the results
LEFT_OPEN = [
    "dacs+mrm, frozen statistics",
    "dacs+mrm, no augmentation",
    "rebuilder rate 5e-4",
    "rebuilder rate 4e-3",
]
PLAIN = "plain mask"  # dacs+mrm on the seeds of the masks that the paper leaves open
MASKS = [
    "rare cells",
    "rare cells, strongly",
    "uncertain cells",
    "uncertain cells, strongly",
    "rising ratio",
    "rising ratio, strongly",
]
MASKS_CONFIRMED = ["rising ratio, strongly", "uncertain cells"]  # by the development seeds, the higher first
SMALL = 0.5  # what an interval must lie within for a difference to count as settled

ARMS = {
    "dacs": [
        "dacs",
        "dacs, MRM's time",
        "dacs, mixed twice",
        "dacs+nothing-masked",
        "dacs+mask-only",
        "dacs+mask-only, MRM's time",
        "dacs+vector",
        "dacs+option",
        "dacs+local",
        "dacs+mrm",
    ],
}
ARMS["mic"] = [arm.replace("dacs", "mic") for arm in ARMS["dacs"]]
ARMS |= {name: [name, f"{name}+mask-only", f"{name}+mrm"] for name in CONFIRMED}
ARMS["masks left open"] = [PLAIN, *MASKS_CONFIRMED]


def main_contrasts(method: str) -> list[tuple[str, str]]:
    """MRM, mask only and baseline of a method or regime, each against the others; (arm, arm that is taken off)."""
    mrm, mask_only = f"{method}+mrm", f"{method}+mask-only"
    return [(mrm, mask_only), (mrm, method), (mask_only, method)]


# (arm, arm that is taken off); nothing-masked stands for the setting of it that was confirmed
CONTRASTS = {
    "dacs": [
        *main_contrasts("dacs"),
        ("dacs+mrm", "dacs+local"),
        ("dacs+local", "dacs+mask-only"),
        ("dacs+mrm", "dacs+nothing-masked"),
        ("dacs+nothing-masked", "dacs"),
        ("dacs+mrm", "dacs, MRM's time"),
        ("dacs+mrm", "dacs+mask-only, MRM's time"),
        ("dacs+mrm", "dacs, mixed twice"),
        ("dacs+mrm", "dacs+vector"),
        ("dacs+vector", "dacs"),
        ("dacs+vector", "dacs+mask-only"),
        ("dacs+mrm", "dacs+option"),
        ("dacs+option", "dacs"),
        ("dacs+option", "dacs+mask-only"),
    ],
}
CONTRASTS["mic"] = [(a.replace("dacs", "mic"), b.replace("dacs", "mic")) for a, b in CONTRASTS["dacs"]]
CONTRASTS |= {name: main_contrasts(name) for name in CONFIRMED}
CONTRASTS["masks left open"] = [(arm, PLAIN) for arm in MASKS_CONFIRMED]


def student(line: Line) -> float:
    return float(line["student"])


def filled(line: Line) -> float:
    """Pixel accuracy at masked cells of what the arm's filler gives."""
    return float(line["masked"]["filled"]["accuracy"])


def own(line: Line) -> float:
    """The same of the student's own features."""
    return float(line["masked"]["own"]["accuracy"])


def unplanned(confirming: list[Line], method: str) -> dict[str, list[tuple[str, Paired]]]:
    """What PLAN.md does not ask for: contrasts under what they measure."""
    of_mrm = main_contrasts(method)[:2]  # mask only and baseline taken off
    one = next(line for line in confirming if line["arm"] == f"{method}+mrm")
    filled_then = [
        (f"{title}, step {entry['step']}", result)
        for i, entry in enumerate(one["curve"])
        for title, result in contrast_rows(confirming, of_mrm[:1], lambda line, i=i: filled(line["curve"][i]))
    ]
    classes = [
        (f"{title}, {name}", result)
        for pair in of_mrm
        for name in one["iou"]
        for title, result in contrast_rows(confirming, [pair], lambda line, name=name: line["iou"][name])
    ]
    return {
        "Pixel accuracy at masked cells from the student's own features": contrast_rows(confirming, of_mrm, own),
        "Pixel accuracy at masked cells from what the filler puts there, in the course of the training": filled_then,
        "IoU by class": classes,
    }


def of(lines: Iterable[Line], arm: str, value: Callable[[Line], float] = student) -> dict[int, float]:
    """Seed -> value of an arm."""
    return {line["seed"]: value(line) for line in lines if line["arm"] == arm}


def verdict(result: Paired) -> str:
    """What PLAN.md says of an interval."""
    if len(result.seeds) < 2:
        return ""
    sign = "above 0" if result.low > 0 else "below 0" if result.high < 0 else "not shown"
    return sign + (f", within ±{SMALL}" if result.low > -SMALL and result.high < SMALL else "")


def split(lines: list[Line]) -> tuple[list[Line], list[Line]]:
    """Runs on development and on confirming seeds; of the pass with nothing masked one setting is confirmed."""
    seeds = {*DEVELOPMENT, *MASKS_DEVELOPMENT}
    development = [line for line in lines if line["seed"] in seeds]
    rest = [line for line in lines if line["seed"] not in seeds]
    nothing = "dacs+nothing-masked"
    return development, [line | {"arm": nothing} if line["arm"].startswith(nothing) else line for line in rest]


def contrast_rows(
    lines: list[Line], contrasts: Iterable[tuple[str, str]], value: Callable[[Line], float] = student
) -> list[tuple[str, Paired]]:
    """Title and paired difference of those contrasts that have a seed."""
    rows = [(f"{a} - {b}", paired(of(lines, a, value), of(lines, b, value))) for a, b in contrasts]
    return [(title, result) for title, result in rows if result.seeds]


def at_equal_time(confirming: list[Line], method: str) -> list[tuple[str, list[float]]]:
    """The arms that were given MRM's time: their runs' processor seconds as parts of those of MRM's, by seed."""
    timed, took = [line for line in confirming if "cpu seconds" in line], itemgetter("cpu seconds")
    mrm, parts = of(timed, f"{method}+mrm", took), []
    for arm in ARMS[method]:
        own = of(timed, arm, took) if arm.endswith(", MRM's time") else {}
        if seeds := sorted(own.keys() & mrm.keys()):
            parts.append((arm, [own[seed] / mrm[seed] for seed in seeds]))
    return parts


def at_masked_cells(method: str) -> list[tuple[str, str]]:
    return [(f"{method}+mrm", f"{method}+{other}") for other in ("mask-only", "local", "vector", "option")]


def screened(lines: list[Line]) -> list[tuple[str, str]]:
    """The arms with a Rebuilder on development seeds, each with the mask only of its regime."""
    arms = dict.fromkeys(line["arm"] for line in lines if "filled" in line["masked"])
    with_tokens = [
        arm for arm in arms if not any(other in arm for other in ("mask-only", "vector", "option", "local", "nothing"))
    ]
    pairs = [(arm, arm.replace("+mrm", "+mask-only") if "+mrm" in arm else "dacs+mask-only") for arm in with_tokens]
    return [(a, b) for a, b in pairs if of(lines, a).keys() & of(lines, b).keys()]
