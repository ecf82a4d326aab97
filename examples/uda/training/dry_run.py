"""--dry-run: everything that a run needs, tried in under a minute, and what was found on a page of text.

Steps at full size are made in a folder that is deleted again, from the method's part of the schedule, so that
optimiser states and all passes are there when memory is looked at. Class statistics are not counted for it.
"""

from __future__ import annotations

import math
import tempfile
import textwrap
import time
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.files import read_checkpoint
from ..data.batches import batches
from ..data.class_statistics import absent_classes, beside, spread
from ..data.domain import Domain
from ..data.images import read_rgb
from ..data.labels import IGNORE
from ..data.rare_class import RareClassSampler
from ..runtime.meter import GIB, forget_peak, memory_of, peak_memory
from ..runtime.processes import rank_and_world, stop_processes
from ..settings import Settings
from .domains import changed_samples
from .run import AfterStep, Run, StepFunction, batches_of, one_step

SAMPLE = 10  # label files that are read
PATIENCE = 20  # seconds; where a step takes longer, as on a CPU, one must do


def dry_run(
    settings: Settings,
    step_function: StepFunction,
    after_step: AfterStep | None = None,
) -> Run:
    """Prints what was found, line by line as it goes.

    Raises:
        ValueError, OSError: what a run would fail at; or a loss that is not finite.
    """
    with tempfile.TemporaryDirectory() as folder:
        tried = replace(settings, out=str(Path(folder) / "run"), resume="", dry_run=False, rare_classes=False)
        run = Run(tried)
        run.after_step = after_step
        try:
            look_at(run, settings, step_function)
        finally:
            run.board.close()
            if run.lock is not None:
                run.lock.close()
    stop_processes()
    return run


def look_at(run: Run, settings: Settings, step_function: StepFunction) -> None:
    """Says what `run` consists of and tries its steps."""
    say("run", what_it_is(settings))
    say("device", f"{run.device}, {settings.precision}; torch {torch.__version__}")
    say("source", f"{settings.source or 'the embedded scenes'}: {images_of(run.source)}")
    say_labels("labels", run.source)
    if settings.rare_classes:
        say("", rare_classes_of(run.source, settings))
    say("target", f"{settings.target or 'the embedded scenes'}: {images_of(run.target)}")
    if run.validation is None:
        say("validation", "no labels: the run goes without mIoU")
    else:
        say("validation", images_of(run.validation))
        say_labels("", run.validation)
    for name, text in networks_of(run):
        say(name, text)
    if settings.resume:
        state, path = read_checkpoint(Path(settings.resume))
        run.restore(state, path)
        say("checkpoint", f"{path}, of step {run.step}")
        for text in changed_samples(state.get("samples", {}), run.samples):
            say("", text)
    loading, steps, losses = try_steps(run, step_function)
    say("losses", ", ".join(f"{name} {value:.3f}" for name, value in losses[0].items()) + " (of a first step)")
    say("memory", memory_in_words(run.device))
    for name, text in times(settings, loading, steps):
        say(name, text)
    for values in losses:
        broken = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise ValueError(f"dry run: expected finite losses, got {', '.join(broken)}")
    say("ready", "the same command without --dry-run trains")


def say(name: str, text: str) -> None:
    if rank_and_world()[0] == 0:
        # paths stay whole
        lines = textwrap.wrap(
            f"{name:<12}{text}", 100, subsequent_indent=" " * 12, break_long_words=False, break_on_hyphens=False
        )
        print(*lines, sep="\n", flush=True)


def what_it_is(settings: Settings) -> str:
    phases = f"{settings.iterations} steps"
    if settings.pretrain_iterations:
        phases = f"{settings.pretrain_iterations} steps on the source alone, then {phases}"
    world = rank_and_world()[1]
    several = f" in each of {world} processes" if world > 1 else ""
    what = "masking, not rebuilding," if settings.mrm_mask_only else "MRM"
    rarely = f" in one step of {settings.mrm_period}" if settings.mrm_period > 1 else ""
    mrm = f" with {what} on {settings.mrm_on}{rarely}" if settings.uses_mrm else " without MRM"
    return (
        f"{settings.method}{mrm}, preset {settings.preset}, seed {settings.seed}: {phases} of {settings.batch_size} "
        f"images of each domain{several}, crops {side(settings.crop)}"
    )


def rare_classes_of(source: Domain, settings: Settings) -> str:
    """Whether rare class sampling finds its statistics; builds its sampler from them, as the run will."""
    pixels = beside(source)
    if pixels is None:
        return f"for rare class sampling all {len(source)} label files are read before a first run"
    sampler = RareClassSampler(pixels, settings.rare_temperature, settings.rare_min_pixels)
    return f"rare class sampling has the statistics of {len(pixels)} files and of {len(sampler.classes)} classes"


def images_of(domain: Domain) -> str:
    size = read_rgb(domain.samples[0].image).shape[:2]
    resized = "" if domain.size is None else f", resized to fit {side(domain.size)}"
    return f"{len(domain)} images, the first of {side(size)}{resized}"


def say_labels(name: str, domain: Domain) -> None:
    """What label files hold, and the classes that they do not; what cannot be read is an error that names the file."""
    say(name, labels_of(domain))
    if absent := absent_classes(domain):
        say("", absent)


def labels_of(domain: Domain) -> str:
    """Shares of the classes in label files spread over the domain."""
    indices = spread(len(domain), SAMPLE)
    counts = torch.zeros(256, dtype=torch.int64)
    for index in indices:
        _, labels = domain.with_labels(index)
        counts += torch.bincount(labels.flatten(), minlength=256)
    shares = 100 * counts / counts.sum()
    seen = [k for k in shares[:IGNORE].argsort(descending=True).tolist() if counts[k] > 0]
    names = [f"{domain.classes.names[k]} {shares[k]:.0f}%" for k in seen[:4]]
    more = f" and {len(seen) - 4} more" if len(seen) > 4 else ""
    return (
        f"{len(indices)} files read, {len(seen)} of {len(domain.classes)} classes: {', '.join(names)}{more}; "
        f"{shares[IGNORE]:.0f}% without a class"
    )


def networks_of(run: Run) -> list[tuple[str, str]]:
    settings, models = run.settings, run.models
    weights = settings.init or settings.encoder_weights or "none, random ones"
    both = " at two resolutions" if settings.hrda else ""
    found = [
        ("network", f"{settings.encoder} and {settings.decoder}{both}, {parameters_in(models.network)} parameters"),
        ("weights", f"{weights}"),
    ]
    if models.mrm is None:
        return found
    what = "mask tokens" if settings.mrm_mask_only else "Rebuilder"
    return [*found, (what, f"{parameters_in(models.mrm)} parameters, in training only")]


def try_steps(run: Run, step_function: StepFunction) -> tuple[float, list[float], list[dict[str, float]]]:
    """Seconds to load a batch; seconds and losses of two steps, with MRM if it is on, and of one without if some are.

    A GPU's peak of memory is then that of all but the first.
    """
    settings = run.settings
    # of the method, with a teacher that is averaged
    first = settings.pretrain_iterations + next(step for step in count(1) if settings.mrm_due(step))
    numbers = [first, first] + [first + 1] * (settings.mrm_period > 1)
    data = batches_of(run)
    began = time.perf_counter()
    batch = data[first]
    loading = time.perf_counter() - began
    with closing(batches(data, first, first + 1, settings.workers, pin=run.device.type == "cuda")) as loader:
        batch = next(loader)  # through the workers that the run will have
    steps: list[float] = []
    losses: list[dict[str, float]] = []
    while len(steps) < len(numbers) and sum(steps) < PATIENCE:
        run.step = numbers[len(steps)]
        if len(steps) < 2:
            forget_peak(run.device)
        began = time.perf_counter()
        losses.append(read(one_step(run, batch.to(run.device), step_function)))  # waits for the device
        steps.append(time.perf_counter() - began)
    return loading, steps, losses


def read(losses: dict[str, Tensor]) -> dict[str, float]:
    return dict(zip(losses, torch.stack([loss.float() for loss in losses.values()]).tolist()))


def memory_in_words(device: torch.device) -> str:
    peak, there = peak_memory(device) / GIB, memory_of(device) / GIB
    of = f" of {there:.1f} GiB" if there else " GiB"
    where = "on the device" if device.type == "cuda" else "of this process"
    tight = "; that is tight: --precision bf16 and --checkpoint-activations save memory"
    return f"{peak:.1f}{of} at the peak, {where}" + (tight if there and peak > 0.92 * there else "")


def times(settings: Settings, loading: float, steps: list[float]) -> list[tuple[str, str]]:
    first = f" (the first {steps[0]:.2f} s)" if len(steps) > 1 else " (the first, later ones are faster)"
    step, kinds = steps[-1], " with MRM" if settings.mrm_period > 1 else ""
    if len(steps) > 2:
        step += (steps[1] - steps[2]) / settings.mrm_period
        kinds = f" in the mean, {steps[1]:.2f} s with MRM and {steps[2]:.2f} s without"
    total = settings.iterations * step / 3600
    workers = math.ceil(loading / step)
    hours = f"{total:.1f} hours" if total >= 1 else f"{60 * total:.0f} minutes"
    enough = "enough" if max(settings.workers, 1) >= workers else f"give --workers {workers + 1}"
    return [
        ("step", f"{step:.2f} s{kinds}{first}: about {hours} for {settings.iterations} steps, evaluations not counted"),
        ("loading", f"{loading:.2f} s a batch in one process; --workers {settings.workers}: {enough}"),
    ]


def side(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def parameters_in(module: Any) -> str:
    count = sum(p.numel() for p in module.parameters())
    return f"{count / 1e6:.1f} M" if count >= 100_000 else f"{count / 1e3:.0f} k"
