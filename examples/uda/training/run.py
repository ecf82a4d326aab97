"""The loop around a method's step function: schedule, logging, evaluation, checkpoints, resuming.

A run's folder holds settings.json, metrics.jsonl, checkpoint.pt and, at the end, result.json and pictures.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..checkpoints.evaluation import evaluate, mean_iou
from ..data.batches import Batch, Batches, batches
from ..data.class_statistics import class_statistics
from ..data.labels import SYNTHIA13, SYNTHIA16
from ..data.rare_class import RareClassSampler
from ..runtime.processes import (
    any_over_ranks,
    average_buffers,
    average_gradients,
    from_first,
    rank_and_world,
    start_processes,
    stop_processes,
)
from ..runtime.rng import seed_of
from ..selftraining.draws import Draws
from ..settings import Settings
from .domains import open_data
from .models import Models
from .optimizers import optimizers_of
from .report import report
from .schedules import poly, warmup_apart, warmup_factor

# (step of the method, negative while pretraining; batch; models; settings; random choices) -> losses, after backward
StepFunction = Callable[[int, Batch, Models, Settings, Draws], dict[str, Tensor]]
AfterStep = Callable[[int, Models, Settings], None]


def rate_factor(step: int, settings: Settings) -> float:
    """Learning rate of `step` / base rate; pretraining comes first and has a rate of its own."""
    if step < settings.pretrain_iterations:
        return settings.pretrain_lr / settings.lr * warmup_factor(step, settings.warmup)
    step -= settings.pretrain_iterations
    if settings.warmup_apart:
        return warmup_apart(step, settings.iterations, settings.warmup, settings.schedule_power)
    return poly(step, settings.iterations, settings.schedule_power) * warmup_factor(step, settings.warmup)


class Run:
    """Everything a run consists of, and how it is saved."""

    def __init__(self, settings: Settings, make_student: Callable[..., nn.Module]) -> None:
        self.settings = settings
        self.device = start_processes(settings.device)
        self.source, self.target, self.validation = open_data(settings)
        self.models = Models(settings, self.source.classes, make_student, self.device)
        self.optimizers = optimizers_of(settings, self.models.student)
        self.step = 0
        self.total = settings.pretrain_iterations + settings.iterations
        self.folder = from_first(lambda: run_folder(settings))
        self.metrics = self.folder / "metrics.jsonl"
        if settings.resume:
            self.load(self.folder / "checkpoint.pt")
        elif rank_and_world()[0] == 0:
            self.folder.mkdir(parents=True)
            settings.save(self.folder / "settings.json")

    def save(self) -> None:
        """Writes checkpoint.pt so that there is a whole one at any moment."""
        self.average_buffers()
        if rank_and_world()[0] > 0:
            return
        state = {
            "step": self.step,
            "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.settings).items()},
            "classes": {"names": self.source.classes.names, "colours": self.source.classes.colours.tolist()},
            "student": self.models.student.state_dict(),
            "teacher": self.models.teacher.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        path = self.folder / "checkpoint.pt"
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def load(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected the checkpoint of an earlier run, found none")
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.models.student.load_state_dict(state["student"])
        self.models.teacher.load_state_dict(state["teacher"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.step = state["step"]
        if rank_and_world()[0] == 0:
            lines = self.metrics.read_text().splitlines() if self.metrics.exists() else []
            # what came after is done again; a crash can have torn the last line
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= self.step]
            self.metrics.write_text("".join(line + "\n" for line in kept))

    def average_buffers(self) -> None:
        for network in (self.models.student, self.models.teacher):
            average_buffers(network)

    def log(self, **values: float) -> None:
        if rank_and_world()[0] == 0:
            rounded = {key: round(float(value), 5) for key, value in values.items()}
            with self.metrics.open("a") as file:
                file.write(json.dumps({"step": self.step, **rounded}) + "\n")

    def evaluate(self) -> dict[str, Tensor]:
        """Confusion matrices of student and teacher on the target's validation split; logs their mIoU.

        Empty where the target has no labels.
        """
        if self.validation is None:
            return {}
        self.average_buffers()
        networks, window = {"student": self.models.student.network}, self.settings.eval_window
        if self.step >= self.settings.pretrain_iterations:  # there is no teacher before
            networks["teacher"] = self.models.teacher
        confusions = {
            name: evaluate(network, self.validation, len(self.models.classes), self.device, name, window)
            for name, network in networks.items()
        }
        self.log(
            **{
                f"{mean}_{name}": miou
                for mean, by_name in self.means(confusions).items()
                for name, miou in by_name.items()
            }
        )
        return confusions

    def means(self, confusions: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """mIoU of the networks over all classes and, of SYNTHIA's, over the 16 and 13 that the field reports."""
        synthia = self.settings.source.startswith("synthia:")
        subsets = {"miou": None} | ({"miou16": SYNTHIA16, "miou13": SYNTHIA13} if synthia else {})
        return {
            mean: {name: mean_iou(confusion, classes) for name, confusion in confusions.items()}
            for mean, classes in subsets.items()
        }


def run_folder(settings: Settings) -> Path:
    """The folder of this run; never one that another run has filled."""
    if settings.out:
        folder = Path(settings.out)
        if folder.exists() and not settings.resume:
            sys.exit(f"{folder} exists; give another --out, or go on with it: --resume {folder}")
        return folder
    first = Path("runs") / f"{settings.method}{'+mrm' if settings.uses_mrm else ''}-seed{settings.seed}"
    folder, count = first, 1
    while folder.exists():
        count += 1
        folder = first.with_name(f"{first.name}-{count}")
    return folder


def train(
    settings: Settings,
    make_student: Callable[..., nn.Module],
    step_function: StepFunction,
    after_step: AfterStep | None = None,
) -> Run:
    """Runs a method to its end, or to an interruption that it can be resumed from.

    Args:
        after_step: what a method does once the weights of a step are there.
    """
    run = Run(settings, make_student)
    stop = catch_interrupts()
    rank, _ = rank_and_world()
    data = batches_of(run)
    bar = tqdm(total=run.total, initial=run.step, desc=run.folder.name, disable=rank > 0, dynamic_ncols=True)
    started, first_step = time.perf_counter(), run.step
    for batch in batches(data, run.step, run.total, settings.workers):
        losses = one_step(run, batch.to(run.device), step_function, after_step)
        run.step += 1
        bar.update()
        if run.step % settings.log_every == 0:
            values = {key: value.item() for key, value in losses.items()}
            bar.set_postfix({key: f"{value:.3f}" for key, value in values.items()})
            run.log(**values)
        if run.step < run.total and (run.step % settings.eval_every == 0 or run.step == settings.pretrain_iterations):
            scores = ", ".join(f"{name} {mean_iou(confusion):.2f}" for name, confusion in run.evaluate().items())
            if rank == 0 and scores:
                bar.write(f"step {run.step}: mIoU {scores}")
        stopped = any_over_ranks(bool(stop), run.device)
        if run.step % settings.save_every == 0 or run.step == run.total or stopped:
            run.save()
        if stopped and run.step < run.total:
            bar.close()
            sys.exit(f"interrupted at step {run.step} of {run.total}; go on with --resume {run.folder}")
    bar.close()
    if run.step > first_step:
        run.log(seconds_per_step=(time.perf_counter() - started) / (run.step - first_step))
    confusions = run.evaluate()
    if rank == 0:
        report(run, confusions)
    stop_processes()
    return run


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
    run: Run, batch: Batch, step_function: StepFunction, after_step: AfterStep | None = None
) -> dict[str, Tensor]:
    """Learning rates, the method's losses with their backward passes, the update."""
    settings, models = run.settings, run.models
    torch.manual_seed(seed_of(settings.seed, "step", run.step, rank_and_world()[0]))  # dropout
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate_factor(run.step, settings)
        optimizer.zero_grad()
    step = run.step - settings.pretrain_iterations
    losses = step_function(step, batch, models, settings, Draws(settings, run.step))
    average_gradients(models.student)
    for optimizer in run.optimizers:
        optimizer.step()
    if after_step is not None:
        after_step(step, models, settings)
    if step == -1:  # self-training starts from the pretrained network
        models.teacher.load_state_dict(models.student.network.state_dict())
    return losses


def catch_interrupts() -> list[int]:
    """A list that fills when the process is asked to stop (Ctrl-C, SIGTERM); the step under way is finished first."""
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        if received:  # asked twice
            raise KeyboardInterrupt
        received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return received
