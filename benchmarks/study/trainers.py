"""All that the study takes from the trainers, in one place."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "benchmarks")]

import train_dacs_mrm
import train_mic_mrm
from shared.provenance import commit, device_name
from uda.checkpoints.evaluation import class_iou, confusion_matrix, evaluate, mean_iou
from uda.data.batches import Batch, batches
from uda.data.domain import Domain
from uda.data.transforms import normalise
from uda.networks import Segmentor
from uda.networks.small import SmallEncoder
from uda.runtime.rng import generator, own_rng
from uda.scenes import camera as scenes_camera
from uda.scenes import car as scenes_car
from uda.scenes import render as scenes_render
from uda.scenes import things as scenes_things
from uda.scenes import write as scenes
from uda.selftraining.draws import Draws
from uda.selftraining.mixing import mix
from uda.selftraining.teacher import make_teacher, pseudo_label
from uda.settings import Settings
from uda.training.loop import train
from uda.training.models import Models
from uda.training.run import Run, StepFunction, batches_of, one_step

# method -> (student, step function); DACS is trained by its own page
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
    "SmallEncoder",
    "StepFunction",
    "batches",
    "batches_of",
    "class_iou",
    "commit",
    "confusion_matrix",
    "device_name",
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
    "scenes_camera",
    "scenes_car",
    "scenes_render",
    "scenes_things",
    "train",
]
