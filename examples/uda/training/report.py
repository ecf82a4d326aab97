"""What a run shows: tables and result.json, curves of losses and mIoU, a panel of predictions, TensorBoard."""

from __future__ import annotations

import json
import os
import shlex
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoints.evaluation import class_iou, iou_table, mean_in_words
from ..data.labels import colourise
from ..data.transforms import normalise
from ..runtime.files import naming_file, write_whole
from ..runtime.processes import rank_and_world
from ..runtime.rng import generator

SMOOTHING = 0.9
EXAMPLES = Path(__file__).parents[2]


class Board:
    """A run in TensorBoard; does nothing in other processes than the first, or where that is not installed.

    Args:
        folder: of the run.
        step: that the run goes on from; what an interrupted run showed of later ones goes.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.writer: Any = None
        if rank_and_world()[0] > 0:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except Exception:  # not installed, or broken in one of many ways: no reason for a run to stop
            return
        with suppress(UnicodeError):  # it takes no folder whose name the system's encoding lacks
            self.writer = SummaryWriter(str(folder), purge_step=step or None)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if self.writer is not None:
            for name, value in values.items():
                cost = name in ("images/s", "GiB", "seconds_per_step")
                group = "cost" if cost else "target" if name.startswith("miou") else "training"
                self.writer.add_scalar(f"{group}/{name.replace('/', ' per ')}", value, step)

    def picture(self, step: int, path: Path) -> None:
        """A file, as it is now."""
        if self.writer is not None:
            self.writer.add_image("panel", plt.imread(path)[..., :3], step, dataformats="HWC")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def report(run: Any, confusions: dict[str, Tensor], absent: Sequence[str] = ()) -> None:
    """Writes result.json, curves and the panel into the run's folder and prints the tables.

    Args:
        run: a `Run` at its last step.
        confusions: what its `evaluate` returned.
        absent: what `say_absent_classes` said at the start; of the validation the table says it.
    """
    names, means = run.models.classes.names, run.means(confusions)
    result = {
        "settings": asdict(run.settings),
        **means,
        "iou": {
            name: {k: v for k, v in zip(names, class_iou(confusion).tolist()) if v == v}  # absent classes: NaN
            for name, confusion in confusions.items()
        },
        "torch": torch.__version__,
        "device": str(run.device),
        "threads": torch.get_num_threads(),
    }
    write_whole(run.folder / "result.json", json.dumps(result, indent=2) + "\n")
    with naming_file(run.folder / "curves.png"):
        draw_curves(run.metrics, run.folder / "curves.png", run.settings.pretrain_iterations)
    show_panel(run)
    run.board.close()
    if confusions:
        print(iou_table(confusions, names))
        print(mean_in_words(confusions, names))
    for line in absent:
        if line.startswith("source: "):
            print(line)
    for mean in list(means)[1:]:
        print(f"{mean}: " + ", ".join(f"{name} {miou:.2f}" for name, miou in means[mean].items()))
    print(f"curves, pictures, metrics and checkpoint: {run.folder}")
    print(what_next(run.folder, bool(confusions)))


def what_next(folder: Path, labelled: bool) -> str:
    """The commands that a finished run is for."""
    evaluate, predict = (shlex.quote(os.path.relpath(EXAMPLES / script)) for script in ("evaluate.py", "predict.py"))
    run = shlex.quote(str(folder))
    ours = f"python {evaluate} {run}" + ("" if labelled else " --target LAYOUT:PATH")
    return f"next: {ours}\n      python {predict} {run} IMAGE_OR_FOLDER --out predictions"


def show_panel(run: Any) -> None:
    """Draws panel.png as the networks are now, for TensorBoard too."""
    path = run.folder / "panel.png"
    with naming_file(path), run.models.eager():
        draw_panel(run, path)
    run.board.picture(run.step, path)


def draw_curves(metrics: Path, path: Path, first_step: int) -> None:
    """Losses (smoothed) and mIoU over the steps of a metrics.jsonl; a line where self-training begins."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    names = sorted({key for row in rows for key in row} - {"step", "trust", "seconds_per_step"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    for name in names:
        steps = [row["step"] for row in rows if name in row]
        values = [row[name] for row in rows if name in row]
        if name.startswith("miou"):
            label = name.removeprefix("miou_").replace("_", " ")  # SYNTHIA has a miou16 and a miou13 too
            right.plot(steps, values, marker="o", markersize=4, label=label)
        else:
            left.plot(steps, smooth(values), label=name)
    for axes, title in ((left, "training loss"), (right, "mIoU on target validation (%)")):
        if first_step:
            axes.axvline(first_step, color="0.7", linewidth=1, linestyle="--", zorder=0)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines[first_step > 0 :]:
            axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def smooth(values: list[float]) -> list[float]:
    """Exponential moving average, without the bias of its start."""
    average, weight, out = 0.0, 0.0, []
    for value in values:
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        out.append(average / weight)
    return out


@torch.no_grad()
def draw_panel(run: Any, path: Path, count: int = 4) -> None:
    """Target images: truth and pseudo-label if there are any, mask, predictions from rebuilt and from all features."""
    network, teacher, mrm = run.models.network.eval(), run.models.teacher.eval(), run.models.mrm
    classes, domain = run.models.classes, run.validation or run.target
    colours = classes.colours
    rows, seen = [], set()
    for index in np.linspace(0, len(domain) - 1, count).astype(int).tolist():
        pixels, labels = (domain.pixels(index), None) if run.validation is None else domain.labelled(index)
        x = normalise(pixels[None].float() / 255).to(run.device)
        columns = {"image": pixels.permute(1, 2, 0).numpy()}
        if labels is not None:
            columns["ground truth"] = colourise(labels.numpy(), colours)
        if run.settings.has_teacher(run.step):
            columns["pseudo-label"] = in_colour(teacher.predict(x), colours)
        if mrm is not None:
            draws = generator(run.settings.seed, "panel", index)
            masks: list[Tensor] = []

            def rebuild(levels: list[Tensor], draws: Any = draws, masks: list[Tensor] = masks) -> list[Tensor]:
                rebuilt, mask = mrm.rebuild(levels, generator=draws)
                masks.append(mask)
                return rebuilt  # type: ignore[no-any-return]

            logits = network.predict(x, rebuild)
            mask = F.interpolate(masks[0].float(), x.shape[-2:])[0, 0]  # HRDA's first is that of the whole image
            veiled = np.where(mask.cpu().bool().numpy()[..., None], columns["image"] // 5 + 100, columns["image"])
            columns["mask"] = veiled.astype(np.uint8)
            columns["from masked features"] = in_colour(logits, colours)
        predicted = network.predict(x)[0].argmax(0).cpu().numpy()
        columns["prediction"] = colourise(predicted, colours)
        rows.append(columns)
        seen |= set(np.unique(predicted).tolist())
    network.train()
    teacher.train()
    legend = {classes.names[k]: colours[k] / 255 for k in sorted(seen)}
    save_panel(rows, legend, path)


def save_panel(rows: list[dict[str, NDArray[np.uint8]]], legend: dict[str, NDArray[np.float64]], path: Path) -> None:
    """A grid of pictures with a title per column and the classes' colours below."""
    height, width = next(iter(rows[0].values())).shape[:2]
    cell = 2.6  # inches
    width_of_all = cell * len(rows[0])
    columns = max(1, int(width_of_all / 1.5))  # of the legend
    lines = -(-len(legend) // columns)
    figure, axes = plt.subplots(
        len(rows),
        len(rows[0]),
        figsize=(width_of_all, (cell * height / width + 0.06) * len(rows) + 0.5 + 0.2 * lines),
        squeeze=False,
        layout="constrained",
    )
    for line, pictures in zip(axes, rows):
        for ax, picture in zip(line, pictures.values()):
            ax.imshow(picture, interpolation="nearest")
            ax.set_axis_off()
    for ax, title in zip(axes[0], rows[0]):
        ax.set_title(title, fontsize=11)
    patches = [Rectangle((0, 0), 1, 1, color=colour) for colour in legend.values()]
    names = figure.legend(patches, list(legend), loc="outside lower center", ncols=columns, frameon=False, fontsize=10)
    for text in names.get_texts():
        text.set_parse_math(False)  # a name may hold dollars
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the font draws a box for each
        figure.savefig(path, dpi=110)
    plt.close(figure)


def in_colour(logits: Tensor, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(1, K, H, W) -> (H, W, 3) colours of the best class."""
    return colourise(logits[0].argmax(0).cpu().numpy(), colours)
