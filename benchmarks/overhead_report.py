"""Table and plot of what overhead.py measured."""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def overhead(row: dict[str, Any], arm: str) -> tuple[float, float, float]:
    """Median of the per-round ratios to the baseline, minus one, in percent, and its 95 % bootstrap interval."""
    ratios = [100 * (a / b - 1) for a, b in zip(row["seconds"][arm], row["seconds"]["baseline"])]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[50], medians[-51]


def table(results: dict[str, Any]) -> str:
    """Markdown: a row per method and arm, then the split of the extra pass."""
    lines = [
        "| method | network, crop, batch | arm | ms per step | images/s | overhead (95 % interval) | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        what = f"{row['network']}, {row['crop'][0]} x {row['crop'][1]}, {row['batch_size']}"
        for arm, seconds in row["seconds"].items():
            median = statistics.median(seconds)
            middle, low, high = overhead(row, arm)
            cost = f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})" if len(seconds) > 1 else f"{middle:+.1f} % (one step)"
            cost = "" if arm == "baseline" else cost
            memory = f"{row['peak_memory_mib'][arm]:.0f} MiB" if arm in row["peak_memory_mib"] else ""
            speed = f"{1000 * median:.0f} | {2 * row['batch_size'] / median:.1f}"
            lines.append(f"| {row['method']} | {what} | {arm} | {speed} | {cost} | {memory} |")
    lines += ["", "| method | Rebuilder parameters | " + " | ".join(results["rows"][0]["split_ms"]) + " | (ms)"]
    lines += ["|---" * (2 + len(results["rows"][0]["split_ms"])) + "|"]
    for row in results["rows"]:
        parts = " | ".join(f"{ms:.0f}" for ms in row["split_ms"].values())
        lines.append(f"| {row['method']} | {row['rebuilder_parameters'] / 1e6:.2f} M | {parts} |")
    return "\n".join([*lines, "", f"{results['machine']}; torch {results['torch']}; commit {results['commit']}.", ""])


def plot(results: dict[str, Any], path: Path) -> None:
    """Bars of overhead per method and arm, with their intervals."""
    arms = [arm for arm in results["rows"][-1]["seconds"] if arm != "baseline"]
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for i, arm in enumerate(arms):
        rows = [(x, overhead(row, arm)) for x, row in enumerate(results["rows"]) if arm in row["seconds"]]
        at = [x + (i - 2) * 0.16 for x, _ in rows]
        errors = [[m - low for _, (m, low, _) in rows], [high - m for _, (m, _, high) in rows]]
        axes.bar(at, [m for _, (m, _, _) in rows], 0.15, yerr=errors, label=arm, error_kw={"elinewidth": 1})
    axes.set_xticks(range(len(results["rows"])), [row["method"] for row in results["rows"]])
    axes.set(ylabel="overhead per step (%)", title="Training time, relative to the same step without MRM")
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", frameon=False, ncols=len(arms))
    figure.savefig(path, dpi=130)
