"""What a run consists of, and one step of it: learning rates, losses, update; evaluating, saving, resuming.

A run's folder holds settings.json, metrics.jsonl, checkpoint.pt and, at the end, result.json and pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.evaluation import evaluate, mean_iou
from ..checkpoints.files import PREVIOUS, read_checkpoint, set_damaged_aside, write_checkpoint
from ..data.batches import Batch, Batches
from ..data.class_statistics import class_statistics
from ..data.labels import SYNTHIA13, SYNTHIA16
from ..data.rare_class import RareClassSampler
from ..runtime.files import naming_file, write_whole
from ..runtime.processes import (
    average_buffers,
    average_gradients,
    from_first,
    rank_and_world,
    start_processes,
)
from ..runtime.rng import seed_of
from ..selftraining.draws import Draws
from ..settings import Settings
from .domains import changed_samples, open_data, sample_names
from .folder import keep_metrics, lock, make_folder, other_processes
from .models import Models
from .optimizers import go_on_with, optimizers_of, rate_factor, update
from .report import Board
from .watch import GRADIENT, Watch, check_finite, largest_gradient, withhold

# (step of the method, negative while pretraining; batch; models; settings; random choices) -> losses, after backward
StepFunction = Callable[[int, Batch, Models, Settings, Draws], dict[str, Tensor]]
AfterStep = Callable[[int, Models, Settings], None]  # what a method does once the weights of a step are there


class Run:
    """Everything a run consists of, and how it is saved."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = start_processes(settings.device)
        self.source, self.target, self.validation = open_data(settings)
        self.samples = sample_names({"source": self.source, "target": self.target, "validation": self.validation})
        self.models = Models(settings, self.source.classes, self.device)
        self.optimizers = optimizers_of(settings, self.models.network, self.models.mrm)
        self.after_step: AfterStep | None = None
        self.step = 0
        self.total = settings.pretrain_iterations + settings.iterations
        self.folder = from_first(lambda: make_folder(settings))
        self.metrics = self.folder / "metrics.jsonl"
        self.evaluated: set[int] = set()  # steps of which metrics.jsonl has the mIoU
        self.saved: int | None = None  # step of the last checkpoint
        first = rank_and_world()[0] == 0
        self.lock = lock(self.folder) if first else None
        if settings.resume:
            self.load()
        self.board = Board(self.folder, self.step)
        if first:
            write_whole(self.folder / "settings.json", replace(settings, resume="").text())

    def save(self) -> None:
        """Writes checkpoint.pt so that there is a whole one at any moment."""
        self.average_buffers()
        check_finite(self.step, student=self.models.student, teacher=self.models.teacher)
        if rank_and_world()[0] == 0:
            write_checkpoint(self.folder, self.state())
        self.saved = self.step

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "step": self.step,
            "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.settings).items()},
            "classes": {"names": self.source.classes.names, "colours": self.source.classes.colours.tolist()},
            "processes": rank_and_world()[1],
            "samples": self.samples,
            "student": self.models.student.state_dict(),
            "teacher": self.models.teacher.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.models.scaler.state_dict(),
        }

    def load(self) -> None:
        """Goes on from the last whole checkpoint."""
        state, path = read_checkpoint(self.folder)
        self.restore(state, path)
        if rank_and_world()[0] == 0:
            if path.name == PREVIOUS:
                set_damaged_aside(self.folder)
            batch_size = self.settings.batch_size
            if text := other_processes(state["processes"], state["settings"]["batch_size"], batch_size):
                print(text)
            for text in changed_samples(state["samples"], self.samples):
                print(text)
            self.evaluated = keep_metrics(self.metrics, self.step, self.total)
        self.evaluated = from_first(lambda: self.evaluated)

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Takes what a checkpoint holds, on the CPU: AdamW's counts of steps would be read back each step elsewhere.

        Raises:
            ValueError: it is that of other networks, optimisers or classes; the line names `path`.
        """
        ours, theirs = self.source.classes.names, state["classes"]["names"]
        if ours != theirs:
            raise ValueError(
                f"{path}: expected a checkpoint of the classes of {self.source.spec}, {ours}, got {theirs}"
            )
        try:
            self.models.student.load_state_dict(state["student"])
            self.models.teacher.load_state_dict(state["teacher"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                go_on_with(optimizer, saved)
            if state["scaler"]:  # fp16's
                self.models.scaler.load_state_dict(state["scaler"])
            self.step = self.saved = int(state["step"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path}: does not fit the run's settings.json ({reason})") from error

    def average_buffers(self) -> None:
        for network in (self.models.student, self.models.teacher):
            average_buffers(network)

    def log(self, **values: float) -> None:
        if rank_and_world()[0] == 0:
            rounded = {key: round(float(value), 5) for key, value in values.items()}
            with naming_file(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.step, **rounded}) + "\n")
            self.board.scalars(self.step, values)

    def evaluate(self) -> dict[str, Tensor]:
        """Confusion matrices on the target's validation split, of the student and the teacher; logs their mIoU.

        None of the teacher where the run has none yet; empty where the target has no labels.
        """
        if self.validation is None:
            return {}
        self.average_buffers()
        networks, window = {"student": self.models.network}, self.settings.eval_window
        if self.settings.has_teacher(self.step):
            networks["teacher"] = self.models.teacher
        with self.models.eager():
            confusions = {
                name: evaluate(network, self.validation, len(self.models.classes), self.device, name, window)
                for name, network in networks.items()
            }
        means = self.means(confusions)
        self.log(**{f"{mean}_{name}": miou for mean, miou_of in means.items() for name, miou in miou_of.items()})
        self.evaluated.add(self.step)
        return confusions

    def means(self, confusions: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """mIoU of the networks over all classes and, of SYNTHIA's, over the 16 and 13 that the field reports."""
        synthia = self.settings.source.startswith("synthia:")
        subsets = {"miou": None} | ({"miou16": SYNTHIA16, "miou13": SYNTHIA13} if synthia else {})
        return {
            mean: {name: mean_iou(confusion, classes) for name, confusion in confusions.items()}
            for mean, classes in subsets.items()
        }


def batches_of(run: Run) -> Batches:
    """The batches of this process."""
    settings, rare = run.settings, None
    if settings.rare_classes:
        cache = run.folder.parent / "class_statistics"
        pixels = from_first(lambda: class_statistics(run.source, cache))
        rare = RareClassSampler(pixels, settings.rare_temperature, settings.rare_min_pixels)
    return Batches(
        run.source,
        run.target,
        settings.crop,
        settings.batch_size,
        settings.seed,
        first_sample=rank_and_world()[0] * settings.batch_size,
        margins=settings.margins,
        margins_of_image=settings.margins_of_image,
        rare=rare,
        min_crop_ratio=settings.rare_min_crop_ratio,
        scale_jitter=settings.scale_jitter,
    )


def one_step(
    run: Run,
    batch: Batch,
    step_function: StepFunction,
    watch: Watch | None = None,
    asked: Callable[[], bool] = lambda: False,
) -> dict[str, Tensor]:
    """Learning rates, the method's losses with their backward passes, the update.

    Args:
        watch: is told the losses, and what `asked` says by then: whether this process was asked to stop.
    """
    settings, models = run.settings, run.models
    torch.manual_seed(seed_of(settings.seed, "step", run.step, rank_and_world()[0]))  # dropout
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate_factor(run.step, settings)
        optimizer.zero_grad()
    step = run.step - settings.pretrain_iterations
    losses = step_function(step, batch, models, settings, Draws(settings, run.step))
    student = models.student
    average_gradients(student)
    if watch is not None:
        # fp16's overflow now and then, which its scaler sees to
        told = losses if settings.precision == "fp16" else losses | {GRADIENT: largest_gradient(student)}
        withhold(student, watch.note(run.step, told, asked()))
    update(run.optimizers, models.scaler)
    if run.after_step is not None:
        run.after_step(step, models, settings)
    if step == -1:  # self-training starts from the pretrained network
        models.teacher.load_state_dict(models.network.state_dict())
    return losses
