"""What part of MRM's gain comes at what part of its cost: gains of the study beside overhead at the papers' sizes."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contrasts import Line, of
from paired import Paired, paired

OVERHEAD = Path(__file__).parents[1] / "results" / "overhead-paper-cpu.json"
# arm: (the arm of overhead.py that it costs, which part of that). A pass in one of K steps costs a K-th on average;
# half a batch and a quarter of the image are counted by their pixels. Without rebuilding only the pass counts: what the
# projectors take besides is less than the whole Rebuilder's 0.5 to 1.9 % of the floor's step.
DACS = {
    "dacs+mrm": ("mrm", 1.0),
    "dacs+mask-only": ("floor", 1.0),
    "dacs+option": ("floor", 1.0),
    "dacs+vector": ("floor", 1.0),
    "dacs+mrm, every 2": ("mrm", 1 / 2),
    "dacs+mrm, every 4": ("mrm", 1 / 4),
    "dacs+mask-only, every 2": ("floor", 1 / 2),
    "dacs+mask-only, every 4": ("floor", 1 / 4),
    "dacs+mrm, on mixed": ("mixed", 1.0),
    "dacs+mrm, half batch": ("mrm", 1 / 2),
    "dacs+mrm, quarter crop": ("mrm", 1 / 4),
}
MIC = {
    "mic+mrm": ("mrm", 1.0),
    "mic+mask-only": ("floor", 1.0),
    "mic+option": ("floor", 1.0),
    "mic+vector": ("floor", 1.0),
    "mic+mrm, on masked": ("masked", 1.0),
    "mic+mrm, on mixed": ("mixed", 1.0),
    "mic+mrm, every 2": ("mrm", 1 / 2),
}
ARMS = {"dacs": DACS, "mic": MIC}
SEEDS = range(21, 27)  # which all of these arms get; some have more
ENOUGH, CHEAP = 0.8, 0.5  # parts of MRM's gain and cost (the study's aim)


@dataclass(frozen=True)
class Bargain:
    """An arm's gain on the baseline, what it costs in percent of a step, and either as part of MRM's.

    efficient: no other arm of the method gains more for as little, or as much for less, by its part of MRM's gain.
    """

    arm: str
    gain: Paired
    cost: float
    part_of_gain: float
    part_of_cost: float
    efficient: bool = False


def bargains(confirming: list[Line], method: str) -> list[Bargain]:
    """All arms of a method that have run, the cheapest first; MRM's gain is that on the arm's own seeds."""
    confirming = [line for line in confirming if line["seed"] in SEEDS]
    arms, rows = ARMS[method], json.loads(OVERHEAD.read_text())["rows"]
    seconds: dict[str, Any] = next(row["seconds"] for row in rows if row["method"] == method)
    base, whole = of(confirming, method), paired(of(confirming, f"{method}+mrm"), of(confirming, method))
    found = []
    for arm, (measured, part) in arms.items():
        gain = paired(of(confirming, arm), base)
        theirs = [d for seed, d in zip(whole.seeds, whole.differences) if seed in gain.seeds]
        if theirs:
            cost, full = part * percent(seconds, measured), percent(seconds, "mrm")
            found.append(Bargain(arm, gain, cost, gain.mean / statistics.mean(theirs), cost / full))
    return sorted((marked(bargain, found) for bargain in found), key=lambda bargain: bargain.cost)


def percent(seconds: dict[str, list[float]], arm: str) -> float:
    """Median overhead of an arm over the rounds."""
    return 100 * statistics.median(a / b - 1 for a, b in zip(seconds[arm], seconds["baseline"]))


def marked(one: Bargain, all_of_them: list[Bargain]) -> Bargain:
    def better(other: Bargain) -> bool:
        as_good = other.part_of_gain >= one.part_of_gain and other.cost <= one.cost
        return as_good and (other.part_of_gain, -other.cost) != (one.part_of_gain, -one.cost)

    return replace(one, efficient=not any(better(other) for other in all_of_them))
