"""All that these benchmarks take from the trainers, in one place."""

# ruff: noqa: F401

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples"), str(ROOT / "benchmarks")]

import train_dacs_mrm
import train_mic_mrm
from shared.provenance import commit, device_name
from torch import Tensor
from uda.checkpoints.evaluation import class_iou, confusion_matrix, evaluate, mean_iou
from uda.data.batches import Batch, batches
from uda.data.domain import Domain
from uda.data.labels import CITYSCAPES_COLOURS, CITYSCAPES_NAMES
from uda.data.transforms import normalise
from uda.runtime.rng import generator, own_rng
from uda.scenes import write as scenes
from uda.selftraining.draws import Draws
from uda.selftraining.mixing import mix
from uda.selftraining.teacher import pseudo_label, update_teacher
from uda.settings import Settings
from uda.training.models import Models
from uda.training.run import Run, StepFunction, batches_of, one_step

mic_step = train_mic_mrm.train_step
dacs_step = train_dacs_mrm.train_step


def open_run(settings: Settings) -> Run:
    """A run as the trainers open it, its images kept in memory as they are decoded."""
    run = Run(settings, train_mic_mrm.Student if settings.method == "mic" else train_dacs_mrm.Student)
    run.source, run.target, run.validation = (kept(domain) for domain in (run.source, run.target, run.validation))
    return run


def network_of(models: Models) -> Any:
    """The network that is trained."""
    return models.student.network


def mrm_of(models: Models) -> Any:
    """Its MRM; None where that is off."""
    return models.student.mrm


class Kept(Domain):
    """A domain that decodes each file once: half of a step's time on one CPU thread otherwise goes into that."""

    def __init__(self, domain: Domain) -> None:
        super().__init__(**vars(domain))
        object.__setattr__(self, "memory", {})
        object.__setattr__(self, "plain", domain)

    def remembered(self, what: str, index: int, *args: Any) -> Any:
        memory: dict[Any, Any] = self.memory  # type: ignore[attr-defined]
        key = what, index, *args
        if key not in memory:
            memory[key] = getattr(self.plain, what)(index, *args)  # type: ignore[attr-defined]
        return memory[key]

    def pixels(self, index: int) -> Tensor:
        pixels: Tensor = self.remembered("pixels", index)
        return pixels

    def labels(self, index: int, resized: bool = True) -> Tensor:
        labels: Tensor = self.remembered("labels", index, resized)
        return labels

    def labelled(self, index: int) -> tuple[Tensor, Tensor]:
        both: tuple[Tensor, Tensor] = self.remembered("labelled", index)
        return both


def kept(domain: Domain | None) -> Any:
    return None if domain is None else Kept(domain)
