"""All that the study takes from the trainers, in one place."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import train_dacs_mrm
import train_mic_mrm
from uda import scenes
from uda.datasets import Batch, Domain, batches
from uda.draws import Draws
from uda.evaluation import class_iou, confusion_matrix, evaluate, mean_iou
from uda.mixing import mix
from uda.models import Models
from uda.networks import Segmentor
from uda.rng import generator, own_rng
from uda.run import Run, StepFunction, batches_of, one_step, train
from uda.settings import Settings
from uda.teacher import make_teacher, pseudo_label
from uda.transforms import normalise

# method -> (student, step function); DACS is trained by its own page, as in the Quick start
TRAINERS = {
    "dacs": (train_dacs_mrm.Student, train_dacs_mrm.train_step),
    "mic": (train_mic_mrm.Student, train_mic_mrm.train_step),
}

__all__ = [
    "ROOT",
    "TRAINERS",
    "Batch",
    "Domain",
    "Draws",
    "Models",
    "Run",
    "Segmentor",
    "Settings",
    "StepFunction",
    "batches",
    "batches_of",
    "class_iou",
    "confusion_matrix",
    "evaluate",
    "generator",
    "make_teacher",
    "mean_iou",
    "mix",
    "normalise",
    "one_step",
    "own_rng",
    "pseudo_label",
    "scenes",
    "train",
]
