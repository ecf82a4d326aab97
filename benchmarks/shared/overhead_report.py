"""Tables of what overhead.py measured."""

from __future__ import annotations

import random
import statistics
from typing import Any

from .provenance import made_by

FEW = 6  # rounds below which there is no interval


def overhead(row: dict[str, Any], arm: str) -> tuple[float, float, float]:
    """Median of the per-round ratios to the baseline, minus one, in percent, and its 95 % bootstrap interval."""
    return relative(row["seconds"][arm], row["seconds"]["baseline"])


def relative(seconds: list[float], base: list[float]) -> tuple[float, float, float]:
    """Of few rounds the range in place of the interval, which they cannot give."""
    ratios = [100 * (a / b - 1) for a, b in zip(seconds, base)]
    if len(ratios) < FEW:
        return statistics.median(ratios), min(ratios), max(ratios)
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[50], medians[-51]


def percent(values: tuple[float, float, float]) -> str:
    return f"{values[0]:+.1f} % ({values[1]:+.1f} to {values[2]:+.1f})"


def rebuilder_share(row: dict[str, Any]) -> float | None:
    """The Rebuilder's forward and backward in percent of the floor's step; None where there is no floor."""
    if "floor" not in row["seconds"]:
        return None
    both = [a + b for a, b in zip(row["parts"]["Rebuilder"], row["parts"]["Rebuilder backward"])]
    return 100 * statistics.median(both) / statistics.median(row["seconds"]["floor"])


def table(results: dict[str, Any]) -> str:
    """Markdown: a row per method and arm; the parts of MRM's pass; prediction."""
    rows = results["rows"]
    blocks = [steps_table(rows)]
    if not results["rounds"]:
        return "\n\n".join([*blocks, "Alone: one step in a process of its own.", made_by(results)]) + "\n"
    blocks += [parts_table(rows), inference_table(rows)]
    spread = "range of" if results["rounds"] < FEW else "median and 95 % interval of"
    if any(row["derived"] for row in rows):
        blocks.append(
            "Derived: the baseline's step plus the parts that the arm adds, timed in the same round; in brackets is the"
            " spread of the parts, not of the baseline."
        )
    return "\n\n".join([*blocks, f"In brackets: {spread} {results['rounds']} rounds.", made_by(results)]) + "\n"


def steps_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| method | network, crop, batch | arm | ms per step | images/s | overhead | alone: ms | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        what = f"{row['network']}, {row['crop'][0]} x {row['crop'][1]}, {row['batch_size']}"
        for arm in row["seconds"] | row["peak_memory_mib"]:
            alone = memory = cost = ""
            speed = " | "
            if arm in row["seconds_alone"]:
                alone = f"{1000 * row['seconds_alone'][arm]:.0f}"
            if arm in row["peak_memory_mib"]:
                memory = f"{row['peak_memory_mib'][arm]:.0f} MiB"
            if seconds := row["seconds"].get(arm):
                median = statistics.median(seconds)
                cost = "" if arm == "baseline" else percent(overhead(row, arm))
                speed = f"{1000 * median:.0f} | {2 * row['batch_size'] / median:.3g}"
            name = f"{arm} (derived)" if arm in row["derived"] else arm
            lines.append(f"| {row['method']} | {what} | {name} | {speed} | {cost} | {alone} | {memory} |")
    return "\n".join(lines)


def parts_table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0]["parts"])
    lines = [
        f"| parts of MRM's pass, ms | {' | '.join(names)} | Rebuilder's share of the floor's step | its parameters |",
        "|---" * (3 + len(names)) + "|",
    ]
    for row in rows:
        parts = " | ".join(f"{1000 * statistics.median(row['parts'][name]):.0f}" for name in names)
        share = rebuilder_share(row)
        share_text = "" if share is None else f"{share:.1f} %"
        count = f"{row['rebuilder_parameters'] / 1e6:.2f} M ({row['parameters'] / 1e6:.1f} M in the network)"
        lines.append(f"| {row['method']} | {parts} | {share_text} | {count} |")
    return "\n".join(lines)


def inference_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| prediction | ms without MRM | ms after training with it | difference | outputs |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        seconds, same = row["inference"]["seconds"], row["inference"]["same_outputs"]
        ms = [f"{1000 * statistics.median(seconds[name]):.0f}" for name in ("without", "mrm")]
        one = len(seconds["mrm"]) == 1
        cost = "one pass each" if one else percent(relative(seconds["mrm"], seconds["without"]))
        lines.append(f"| {row['method']} | {ms[0]} | {ms[1]} | {cost} | {'equal' if same else 'DIFFERENT'} |")
    return "\n".join(lines)
