"""Tables and the plot from results/runs.jsonl, written beside it.

python benchmarks/photographs/report.py
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from arms import ALSO, ARMS, BASE, CONTRASTS, DEVELOPMENT, MRM_ON_IT
from data import GAPS, PAIRS
from paired import Paired, paired

RESULTS = Path(__file__).parent / "results"
Line = dict[str, Any]

HEAD = """Made by `python benchmarks/photographs/report.py` from runs.jsonl. mIoU in percent, at the last step.
Differences are of runs with one seed that began from the same network."""


def of(lines: list[Line], pair: str, arm: str, network: str = "student") -> dict[tuple[int, str], float]:
    """Seed and start -> the network's mIoU, of the pair's and arm's runs that have it."""
    own = [x for x in lines if (x["pair"], x["arm"]) == (pair, arm) and x[network] is not None]
    return {(x["seed"], x["start"]): x[network] for x in own}


def final(line: Line, key: str) -> float:
    """What was measured of the teacher's pseudo-labels at the last step."""
    value = line["curve"][-1]["labels"][key]
    return float("nan") if value is None else float(value)


def arm_table(lines: list[Line], pair: str) -> list[str]:
    """A row per arm: means over its seeds, and every seed's mIoU."""
    rows = [
        "| arm | seeds | student | teacher | pseudo-labels right | trust | each seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in dict.fromkeys([*ARMS, *(x["arm"] for x in lines)]):  # some have left, their runs have not
        own = sorted((x for x in lines if (x["pair"], x["arm"]) == (pair, arm)), key=lambda x: x["seed"])
        if not own:
            continue
        student = statistics.mean(x["student"] for x in own)
        teachers = [x["teacher"] for x in own if x["teacher"] is not None]
        teacher = f"{statistics.mean(teachers):.1f}" if teachers else "none"
        right, trust = (statistics.mean(final(x, key) for x in own) for key in ("accuracy", "trust"))
        each = ", ".join(f"{x['seed']}: {x['student']:.1f}" for x in own)
        rows.append(f"| {arm} | {len(own)} | {student:.1f} | {teacher} | {right:.1f} % | {trust:.2f} | {each} |")
    starts = {x["seed"]: x["start student"] for x in lines if x["pair"] == pair and x["arm"] != "oracle"}
    if starts:
        rows += ["", f"The starts, trained on the source alone: {statistics.mean(starts.values()):.1f} on average."]
    return rows


def contrasts(lines: list[Line], pair: str) -> list[tuple[str, Paired, Paired]]:
    """The pair's differences of student and teacher, of arms that have seeds in common and began from the same
    networks."""
    others = [f"{MRM_ON_IT}, {also}" for also in ALSO]  # whose baseline is another
    on_top = sorted({x["arm"] for x in lines if x["arm"].startswith((f"{BASE}+", f"{BASE},"))} - set(others))
    pairs = [*((arm, BASE) for arm in on_top), *CONTRASTS]
    found = []
    for a, b in pairs:
        both = (paired(of(lines, pair, a, network), of(lines, pair, b, network)) for network in ("student", "teacher"))
        found.append((f"{a} - {b}", *both))
    return [row for row in found if row[1].seeds]


def contrast_table(rows: list[tuple[str, Paired, Paired]]) -> list[str]:
    table = ["| difference, paired by seed: mean [95 % interval] | seeds | student | teacher |", "|---|---|---|---|"]
    table += [f"| {title} | {len(own.seeds)} | {shown(own)} | {shown(other)} |" for title, own, other in rows]
    return table


def shown(result: Paired) -> str:
    interval = f" [{signed(result.low)}, {signed(result.high)}]" if len(result.seeds) > 1 else ""
    return f"{signed(result.mean)}{interval}" if result.seeds else ""


def signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # the sum turns -0.0 into 0.0


def gains(lines: list[Line]) -> list[tuple[str, float, float, float]]:
    """For each pair, noise and seed: which it is, the baseline's right pseudo-labels and its confident pixels, both in
    percent, and MRM's gain over it."""
    found = []
    for pair in PAIRS:
        for noise in ("", ", noise 0.3"):
            base = [x for x in lines if (x["pair"], x["arm"]) == (pair, BASE + noise)]
            mrm = of(lines, pair, MRM_ON_IT + noise)
            for x in base:
                if (key := (x["seed"], x["start"])) in mrm:
                    gain = mrm[key] - x["student"]
                    found.append((pair + noise, final(x, "accuracy"), 100 * final(x, "trust"), gain))
    return found


def plot(points: list[tuple[str, float, float, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True)
    for name in dict.fromkeys(name for name, *_ in points):
        *xs, gain = zip(*(numbers for other, *numbers in points if other == name))
        for axes, x in zip(both, xs):
            axes.scatter(x, gain, label=name, alpha=0.8)
    for axes, text in zip(
        both, ("pixels with a right pseudo-label, %", "pixels with a confident pseudo-label (trust), %")
    ):
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set_xlabel(text)
    both[0].set_ylabel("mIoU with MRM minus without, points")
    both[1].legend(fontsize="small")
    figure.suptitle("balanced DACS: what MRM adds, against the baseline's pseudo-labels at its last step")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def kind(line: Line) -> str:
    """Under which title a run is reported: no setting was chosen by runs on drawn targets."""
    _, target, _ = PAIRS[line["pair"]]
    if target in GAPS:
        return "All seeds"
    return "Development seeds" if line["seed"] in DEVELOPMENT else "Confirming seeds"


def tables(lines: list[Line]) -> str:
    """The whole page."""
    parts = ["# Results on photographs", "", HEAD]
    for title in ("Confirming seeds", "All seeds", "Development seeds"):
        some = [line for line in lines if kind(line) == title]
        for pair in PAIRS:
            if any(line["pair"] == pair for line in some):
                parts += ["", f"## {title}, {pair}", "", *arm_table(some, pair)]
                if rows := contrasts(some, pair):
                    parts += ["", *contrast_table(rows)]
    hours = sum(line["cpu seconds"] for line in lines) / 3600
    parts += ["", f"All {len(lines)} runs took {hours:.1f} hours of a thread, starts left out."]
    dirty = sorted({line["commit"] for line in lines if "dirty" in line["commit"]})
    return "\n".join(parts + [f"WARNING: not committed when run: {text}" for text in dirty]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with runs.jsonl")
    folder = parser.parse_args().results
    lines = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    text = tables(lines)
    (folder / "tables.md").write_text(text)
    if points := gains(lines):
        plot(points, folder / "gain.png")
    print(text)


if __name__ == "__main__":
    main()
