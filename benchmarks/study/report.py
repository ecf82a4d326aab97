"""Makes every table and plot of the study from results/runs.jsonl.

    python benchmarks/study/report.py

Writes results/tables.md and the plots beside it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path

import cost
from ablations import ablation_rows, orders
from contrasts import (
    ARMS,
    CONTRASTS,
    LEFT_OPEN,
    MASKS,
    PLAIN,
    SMALL,
    Line,
    at_equal_time,
    at_masked_cells,
    contrast_rows,
    filled,
    of,
    screened,
    split,
    unplanned,
)
from paired import Paired
from plots import plot_contrasts, plot_costs, plot_screen
from table import (
    MEASURES,
    ablation_table,
    arm_table,
    contrast_table,
    cost_table,
    order_table,
    screen_table,
    time_table,
)

RESULTS = Path(__file__).parent / "results"
MADE = (
    "Made by `python benchmarks/study/report.py` from runs.jsonl, whose lines hold commit, settings, versions and "
    "machine; PLAN.md says what is asked."
)

COST = (
    "Gain here, seeds 21 to 26; cost at the papers' sizes on a CPU (benchmarks/README.md, DACS and MIC), in which a "
    "pass in one of K steps counts as a K-th, half a batch and a quarter of an image by their pixels. The aim: four "
    "fifths of the gain for half of the cost. Efficient: no other arm gains as much for less."
)

UNPLANNED = "Not planned, and so much that some intervals leave out 0 by chance, one in twenty if nothing differed:"

ORDERS = (
    "Every table of the paper, the highest gain first, beside the same changes here by their means. A pair of changes "
    "counts as in the paper, or as reversed, where the 95 % interval of its difference leaves out 0; else it is open."
)


def by_measure(lines: list[Line], pairs: list[tuple[str, str]], measures: Iterable[str]) -> list[tuple[str, Paired]]:
    """Contrasts by several measures, which their titles name."""
    return [
        (f"{title}, {measure}", result)
        for measure in measures
        for title, result in contrast_rows(lines, pairs, itemgetter(measure))
    ]


def compute(lines: list[Line]) -> str:
    """Time of all runs; a start counts once."""
    starts = {(line["start"], line["commit"]): line["start seconds"] for line in lines}
    seconds = sum(line["seconds"] for line in lines) + sum(starts.values())
    machines = sorted({f"torch {line['torch']}, {line['machine']}" for line in lines})
    time = f"{seconds / 3600:.1f} hours by the clock, one thread each, beside other work"
    return f"{len(lines)} runs, {len(starts)} starts, {time}; {'; '.join(machines)}."


def unpaired(lines: list[Line]) -> list[str]:
    """Seeds whose runs did not start from the same network, which nothing else would show."""
    wrong = []
    for start in sorted({line["start"].rpartition("-")[0] for line in lines}):
        same = [line for line in lines if line["start"].startswith(start + "-") and regime_free(line)]
        if len({line["start student"] for line in same}) > 1:
            wrong.append(f"{start}: starts of {sorted({line['start student'] for line in same})} mIoU")
    return wrong


def mixed_devices(lines: list[Line]) -> list[str]:
    """Seeds of one comparison whose runs come from a CPU and from a GPU."""
    wrong = []
    for method, arms in ARMS.items():
        runs = {(line["seed"], line["settings"]["device"]) for line in lines if line["arm"] in arms}
        count = Counter(seed for seed, _ in runs)
        wrong += [f"{method}, seed {seed}" for seed in sorted(count) if count[seed] > 1]
    return wrong


def regime_free(line: Line) -> bool:
    """Whether the run is of the present world and network, whose starts are all the same."""
    return bool(line["arm"].startswith(("dacs", "mic")) and line["settings"]["scenes"] == "street")


def tables(lines: list[Line]) -> str:
    """The whole page."""
    development, confirming = split(lines)
    parts = ["# Results of the study", "", MADE]
    parts += [line for method in ARMS for line in confirmed(confirming, method)]
    found = {method: cost.bargains(confirming, method) for method in cost.ARMS}
    if any(len(arms) > 1 for arms in found.values()):
        parts += ["", "## Cost against gain", "", COST]
        parts += [line for method in cost.ARMS for line in ["", *cost_table(found[method], method)]]
    if ablated := ablation_rows(confirming):
        parts += ["", "## Ablations beside the paper's", "", *ablation_table(ablated)]
        parts += ["", ORDERS, "", *order_table(orders(confirming))]
    if settings := by_measure(development, [(arm, "dacs+mrm") for arm in LEFT_OPEN], MEASURES):
        parts += ["", "## Settings left open, development seeds", "", *contrast_table(settings)]
    if masks := by_measure(development, [(arm, PLAIN) for arm in MASKS], MEASURES):
        parts += ["", "## Masks left open, development seeds", "", *contrast_table(masks)]
    if development:
        parts += ["", "## Screen, development seeds", "", *screen_table(development)]
        parts += ["", "## All arms, development seeds", "", *arm_table(development, arms_of(development))]
    parts += ["", f"All runs: {compute(lines)}"]
    parts += [f"WARNING: not one start: {text}" for text in unpaired(lines)]
    parts += [f"WARNING: not one device: {text}" for text in mixed_devices([*development, *confirming])]
    dirty = sorted({line["commit"] for line in lines if "dirty" in line["commit"]})
    return "\n".join(parts + [f"WARNING: not committed when run: {text}" for text in dirty]) + "\n"


def confirmed(confirming: list[Line], method: str) -> list[str]:
    """A method, or a regime, on the confirming seeds."""
    if not (rows := contrast_rows(confirming, CONTRASTS[method])):
        return []
    parts = ["", f"## {name_of(method)}, confirming seeds", "", *arm_table(confirming, ARMS[method])]
    parts += ["", "mIoU of the student, differences paired by seed:", "", *contrast_table(rows)]
    parts += ["", "The same by the student with target statistics, and by the teacher:", ""]
    parts += contrast_table(by_measure(confirming, CONTRASTS[method], MEASURES[1:]))
    if timed := at_equal_time(confirming, method):
        parts += ["", "Processor seconds of the runs at equal time, their measurements included:", ""]
        parts += time_table(timed)
    if masked := contrast_rows(confirming, at_masked_cells(method), filled):
        parts += ["", "Pixel accuracy at masked cells from what the filler puts there:", "", *contrast_table(masked)]
        parts += ["", UNPLANNED]
        for title, contrasts in unplanned(confirming, method).items():
            parts += ["", f"{title}:", "", *contrast_table(contrasts)]
    return parts


def name_of(method: str) -> str:
    """A method's abbreviation, or a regime's name."""
    return method.upper() if method in cost.ARMS else method.capitalize()


def arms_of(lines: list[Line]) -> list[str]:
    return list(dict.fromkeys(line["arm"] for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with runs.jsonl")
    folder = parser.parse_args().results
    lines = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    text = tables(lines)
    (folder / "tables.md").write_text(text)
    development, confirming = split(lines)
    for method, arms in ARMS.items():
        rows = contrast_rows(confirming, CONTRASTS[method])
        if rows:
            values = {arm.removeprefix(f"{method}+"): of(confirming, arm) for arm in arms if of(confirming, arm)}
            short = [(title.replace(f"{method}+", ""), result) for title, result in rows]
            plot_contrasts(values, short, SMALL, folder / f"confirming-{method.replace(' ', '-')}.png")
    found = {method: cost.bargains(confirming, method) for method in cost.ARMS}
    if any(map(len, found.values())):
        plot_costs(found, folder / "cost.png")
    if pairs := screened(development):
        pairs.sort(key=lambda pair: -contrast_rows(development, [pair], filled)[0][1].mean)
        gained, miou = contrast_rows(development, pairs, filled), contrast_rows(development, pairs)
        plot_screen(gained, miou, folder / "screen.png")
    print(text)


if __name__ == "__main__":
    main()
