"""Classes, colours and the maps from raw label ids to train ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IGNORE = 255


class LabelClass(NamedTuple):
    name: str
    raw_id: int  # Cityscapes "labelIds", which GTA5 uses too
    colour: tuple[int, int, int]


CITYSCAPES = (
    LabelClass("road", 7, (128, 64, 128)),
    LabelClass("sidewalk", 8, (244, 35, 232)),
    LabelClass("building", 11, (70, 70, 70)),
    LabelClass("wall", 12, (102, 102, 156)),
    LabelClass("fence", 13, (190, 153, 153)),
    LabelClass("pole", 17, (153, 153, 153)),
    LabelClass("traffic light", 19, (250, 170, 30)),
    LabelClass("traffic sign", 20, (220, 220, 0)),
    LabelClass("vegetation", 21, (107, 142, 35)),
    LabelClass("terrain", 22, (152, 251, 152)),
    LabelClass("sky", 23, (70, 130, 180)),
    LabelClass("person", 24, (220, 20, 60)),
    LabelClass("rider", 25, (255, 0, 0)),
    LabelClass("car", 26, (0, 0, 142)),
    LabelClass("truck", 27, (0, 0, 70)),
    LabelClass("bus", 28, (0, 60, 100)),
    LabelClass("train", 31, (0, 80, 100)),
    LabelClass("motorcycle", 32, (0, 0, 230)),
    LabelClass("bicycle", 33, (119, 11, 32)),
)
CITYSCAPES_NAMES = [c.name for c in CITYSCAPES]
CITYSCAPES_COLOURS = np.array([c.colour for c in CITYSCAPES], dtype=np.uint8)


def id_table(raw_to_train: dict[int, int]) -> NDArray[np.uint8]:
    """(256,) lookup table raw id -> train id, 255 for all ids that are not named."""
    table = np.full(256, IGNORE, dtype=np.uint8)
    for raw, train in raw_to_train.items():
        table[raw] = train
    return table


CITYSCAPES_IDS = id_table({c.raw_id: train for train, c in enumerate(CITYSCAPES)})
TRAIN_IDS = id_table({train: train for train in range(len(CITYSCAPES))})


def colourise(labels: NDArray[np.integer], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Train ids (..., H, W) -> colours (..., H, W, 3), black where ignored."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colours)] = colours
    return table[labels.astype(np.uint8)]
