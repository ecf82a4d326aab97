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
    run = Run(settings)
    run.source, run.target, run.validation = (kept(domain) for domain in (run.source, run.target, run.validation))
    return run


class Kept(Domain):
    """A domain that decodes each file once: half of a step's time on one CPU thread otherwise goes into that."""

    def __init__(self, domain: Domain) -> None:
        super().__init__(**vars(domain))
        object.__setattr__(self, "memory", {})
        object.__setattr__(self, "plain", domain)

    def remembered(self, what: str, index: int) -> Any:
        memory: dict[Any, Any] = self.memory  # type: ignore[attr-defined]
        if (what, index) not in memory:
            memory[what, index] = getattr(self.plain, what)(index)  # type: ignore[attr-defined]
        return memory[what, index]

    def pixels(self, index: int) -> Tensor:
        pixels: Tensor = self.remembered("pixels", index)
        return pixels

    def with_labels(self, index: int) -> tuple[Tensor, Tensor]:
        both: tuple[Tensor, Tensor] = self.remembered("with_labels", index)
        return both

    def labelled(self, index: int) -> tuple[Tensor, Tensor]:
        both: tuple[Tensor, Tensor] = self.remembered("labelled", index)
        return both


def kept(domain: Domain | None) -> Any:
    return None if domain is None else Kept(domain)
