"""All that these benchmarks take from the trainers, in one place."""

# ruff: noqa: F401

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples"), str(ROOT / "benchmarks")]

import train_dacs_mrm
import train_mic_mrm
from shared.provenance import commit, device_name
from uda.checkpoints.evaluation import class_iou, confusion_matrix, mean_iou, predict_ids
from uda.data.batches import batches
from uda.data.domain import Domain
from uda.data.labels import CITYSCAPES_COLOURS, CITYSCAPES_NAMES, colourise
from uda.data.transforms import normalise
from uda.scenes import write as scenes
from uda.settings import Settings, preset_values
from uda.settings.checks import option
from uda.training.optimizers import go_on_with
from uda.training.report import save_panel
from uda.training.run import Run, StepFunction, batches_of, one_step

mic_step = train_mic_mrm.train_step
dacs_step = train_dacs_mrm.train_step


def open_run(settings: Settings) -> Run:
    """A run as the trainers open it, whose images are decoded once: half of a step's time on a CPU goes into that."""
    run = Run(settings)
    for domain in (run.source, run.target, run.validation):
        assert domain is not None
        keep(domain)
    return run


def keep(domain: Domain) -> None:
    """What is read once stays in memory."""
    for name in ("pixels", "with_labels", "labelled"):
        object.__setattr__(domain, name, cache(getattr(domain, name)))
