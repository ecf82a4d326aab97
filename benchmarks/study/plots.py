"""Plots of the study: every seed is a dot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from cost import CHEAP, ENOUGH, Bargain
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from paired import Paired

DOT, MEAN, PALE = "#4477aa", "#222222", "#bbbbbb"
MARKERS = "osD^vPX*<>"


def plot_contrasts(
    arms: Mapping[str, Mapping[int, float]], rows: Sequence[tuple[str, Paired]], small: float, path: Path
) -> None:
    """Left every arm's mIoU, the runs of one seed joined; right the paired differences with their intervals.

    Args:
        arms: name -> seed -> student mIoU.
        rows: title and difference of each contrast.
        small: differences below this are shaded.
        path: of the picture.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 1.6 + 0.42 * max(len(rows), 6)), width_ratios=[1, 1.15], layout="constrained"
    )
    names = list(arms)
    for seed in sorted({seed for values in arms.values() for seed in values}):
        places = [k for k, name in enumerate(names) if seed in arms[name]]
        left.plot(places, [arms[names[k]][seed] for k in places], color=PALE, linewidth=0.8, zorder=1)
        left.scatter(places, [arms[names[k]][seed] for k in places], s=16, color=DOT, zorder=2)
    for k, name in enumerate(names):
        mean = sum(arms[name].values()) / len(arms[name])
        left.plot([k - 0.25, k + 0.25], [mean, mean], color=MEAN, linewidth=2, zorder=3)
    left.set_xticks(range(len(names)), names, fontsize=8, rotation=35, ha="right", rotation_mode="anchor")
    left.set_xlim(-0.5, len(names) - 0.5)
    left.set_ylabel("student mIoU")
    left.set_title("each seed a dot, its runs joined; bar: mean of the arm's seeds", fontsize=9)

    right.axvspan(-small, small, color="#eeeeee", zorder=0)
    draw_differences(right, rows)
    right.set_xlabel("difference in mIoU, paired by seed")
    right.set_title(f"mean and 95 % interval; grey: within ±{small:g}", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_differences(ax: Axes, rows: Sequence[tuple[str, Paired]]) -> None:
    """A line per contrast, the first on top: dots, and above them mean and interval."""
    ax.axvline(0, color=MEAN, linewidth=0.8)
    for k, (_, result) in enumerate(rows):
        y = len(rows) - 1 - k
        ax.scatter(result.differences, [y - 0.14] * len(result.differences), s=16, color=DOT, zorder=2)
        if len(result.seeds) > 1:
            ax.errorbar(result.mean, y + 0.14, xerr=result.half, fmt="o", markersize=5, color=MEAN, capsize=3, zorder=3)
    labels = [f"{title}  (n = {len(result.seeds)})" for title, result in rows]
    ax.set_yticks(range(len(rows)), labels[::-1], fontsize=8)
    ax.set_ylim(-0.6, len(rows) - 0.4)


def plot_screen(gained: Sequence[tuple[str, Paired]], miou: Sequence[tuple[str, Paired]], path: Path) -> None:
    """A line per regime: what rebuilding gains on mask only, at masked cells and in the end."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 1.2 + 0.3 * len(gained)), sharey=True, layout="constrained")
    titles = ["accuracy at masked cells, rebuilt - mask only", "student mIoU, MRM - mask only"]
    for ax, rows, title in zip(axes, (gained, miou), titles):
        draw_differences(ax, rows)
        ax.set_xlabel(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_costs(found: Mapping[str, Sequence[Bargain]], path: Path) -> None:
    """A panel per method: gain with its interval over cost; blue what is efficient, on grey what reaches the aim."""
    figure, axes = plt.subplots(1, len(found), figsize=(5.5 * len(found), 5.6), layout="constrained", squeeze=False)
    for ax, (method, bargains) in zip(axes[0], found.items()):
        for k, one in enumerate(bargains):
            colour, name = DOT if one.efficient else PALE, one.arm.removeprefix(f"{method}+")
            style = {"fmt": MARKERS[k % len(MARKERS)], "color": colour, "capsize": 3, "markersize": 7}
            beside = 0.4 * sum(other.cost == one.cost for other in bargains[:k])  # equal costs stand side by side
            label = f"{name}  (n = {len(one.gain.seeds)})"
            ax.errorbar(one.cost + beside, one.gain.mean, yerr=one.gain.half, label=label, **style)
        if whole := next((one for one in bargains if one.arm == f"{method}+mrm"), None):
            top = 1.5 * whole.gain.mean
            ax.set_ylim(min(0, *(one.gain.mean for one in bargains)) - 0.1 * top, top)
            aim = (0, ENOUGH * whole.gain.mean), CHEAP * whole.cost, top
            ax.add_patch(Rectangle(*aim, color="0.93", zorder=0))
            ax.set_xlim(0, 1.15 * whole.cost)
        ax.axhline(0, color=MEAN, linewidth=0.8)
        ax.set_xlabel("more time per step at the papers' sizes, %")
        ax.set_title(
            "blue: no arm gains as much for less; grey: the aim, 4/5 of MRM's gain for half its cost", fontsize=8
        )
        ax.set_ylabel(f"student mIoU over {method}, mean and 95 % interval")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
