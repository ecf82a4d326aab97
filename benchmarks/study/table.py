"""The study's tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import cost
from ablations import Order
from contrasts import Line, filled, of, screened, verdict
from paired import Paired, paired

MEASURES = "student", "student, target statistics", "teacher"


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def heading(*titles: str) -> list[str]:
    return [row(*titles), "|" + "---|" * len(titles)]


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def interval(result: Paired) -> str:
    if not result.seeds:
        return ""
    ends = f" [{result.low:+.2f}, {result.high:+.2f}]" if len(result.seeds) > 1 else ""
    return f"{result.mean:+.2f}{ends}"


def seeds(result: Paired) -> str:
    first, last = result.seeds[0], result.seeds[-1]
    whole = result.seeds == list(range(first, last + 1)) and last > first
    return f"{first} to {last}" if whole else ", ".join(map(str, result.seeds))


def differences(result: Paired) -> str:
    return ", ".join(f"{d:+.2f}" for d in result.differences)


def arm_table(lines: list[Line], arms: Iterable[str]) -> list[str]:
    """What every arm reached, over the seeds that it has."""
    table = heading("arm", "n", "student", "target statistics", "teacher", "masked cells: own", "filled", "blank")
    for arm in arms:
        own = [line for line in lines if line["arm"] == arm]
        if not own:
            continue
        masked = [
            f"{statistics.mean(line['masked'][kind]['accuracy'] for line in own):.2f}"
            if all(kind in line["masked"] for line in own)
            else ""
            for kind in ("own", "filled", "blank")
        ]
        means = [spread([line[measure] for line in own]) for measure in MEASURES]
        table.append(row(arm, str(len(own)), *means, *masked))
    return table


def contrast_table(rows: Iterable[tuple[str, Paired]]) -> list[str]:
    table = heading("contrast", "n", "mean [95 % interval]", "", "by seed", "seeds")
    for title, result in rows:
        said = verdict(result), differences(result), seeds(result)
        table.append(row(title, str(len(result.seeds)), interval(result), *said))
    return table


def screen_table(lines: list[Line]) -> list[str]:
    """Regimes by what rebuilding gains at masked cells, the most first."""
    rows = []
    for arm, other in screened(lines):
        gained = paired(of(lines, arm, filled), of(lines, other, filled))
        miou = paired(of(lines, arm), of(lines, other))
        regime, _, rest = other.partition("+mask-only")
        base = next((name for name in (regime + rest, regime) if of(lines, name)), "dacs")
        over = paired(of(lines, arm), of(lines, base))
        level = f"{statistics.mean(of(lines, arm)[seed] for seed in gained.seeds):.2f}"
        cells = [arm, other, str(len(gained.seeds)), level, f"{over.mean:+.2f} over {base}" if over.seeds else ""]
        rows.append((gained.mean, row(*cells, interval(miou), interval(gained))))
    title = ["MRM in the regime", "its mask only", "n", "student", "over the baseline", "MRM - mask only, mIoU"]
    return heading(*title, "at masked cells, accuracy") + [text for _, text in sorted(rows, reverse=True)]


def ablation_table(rows: Iterable[tuple[str, str, float, Paired]]) -> list[str]:
    """Every ablation beside the paper's."""
    table = heading("MRM with", "n", "over DACS [95 % interval]", "by seed", "the paper's", "over DACS there")
    for change, theirs, gain, result in rows:
        ours = str(len(result.seeds)), interval(result), differences(result)
        table.append(row(change, *ours, theirs, f"{gain:+.1f}"))
    return table


def order_table(found: Iterable[Order]) -> list[str]:
    """Which of the paper's orderings appear."""
    table = heading("", "the paper's order", "order here", "pairs as in the paper", "reversed", "open")
    for one in found:
        pairs = ["; ".join(f"{a} > {b}" for a, b in kind) for kind in (one.holds, one.reversed)]
        table.append(row(one.table, " > ".join(one.theirs), " > ".join(one.ours), *pairs, str(len(one.open))))
    return table


def time_table(parts: Iterable[tuple[str, list[float]]]) -> list[str]:
    """Processor seconds as parts of MRM's."""
    table = heading("arm", "n", "of MRM's time, median", "range")
    for arm, of_mrm in parts:
        ends = f"{min(of_mrm):.2f} to {max(of_mrm):.2f}"
        table.append(row(arm, str(len(of_mrm)), f"{statistics.median(of_mrm):.2f}", ends))
    return table


def cost_table(found: Iterable[cost.Bargain], method: str) -> list[str]:
    """Gains beside costs, the cheapest first."""
    table = heading("arm", "n", f"over {method} [95 % interval]", "of MRM's gain", "% of a step", "of MRM's cost", "")
    for one in found:
        parts = f"{one.part_of_gain:.0%}", f"+{one.cost:.0f} %", f"{one.part_of_cost:.0%}"
        aim = one.part_of_gain >= cost.ENOUGH and one.part_of_cost <= cost.CHEAP
        said = ", ".join(["efficient"] * one.efficient + ["reaches the aim"] * aim)
        table.append(row(one.arm, str(len(one.gain.seeds)), interval(one.gain), *parts, said))
    return table
