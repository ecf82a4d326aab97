"""Classes, colours and the maps from raw label ids to train ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IGNORE = 255
UNKNOWN = 254  # in a table of ids: no file of this data set should hold that id
MAX_CLASSES = 254  # train ids 0 to 253
THINGS = ("traffic light", "traffic sign", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")


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

# SYNTHIA's own ids of those classes, in their order. Of terrain, truck and train RAND-CITYSCAPES shows nothing.
SYNTHIA_RAW_IDS = (3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11)

# Train ids over which SYNTHIA -> Cityscapes is reported: the 16 classes both have, and 13 without the hardest three.
SYNTHIA16 = [k for k, name in enumerate(CITYSCAPES_NAMES) if name not in ("terrain", "truck", "train")]
SYNTHIA13 = [k for k in SYNTHIA16 if CITYSCAPES_NAMES[k] not in ("wall", "fence", "pole")]


def id_table(raw_to_train: dict[int, int], ignored: Iterable[int] = ()) -> NDArray[np.uint8]:
    """Lookup table raw id -> train id, of 256 entries, or more where 16-bit files hold higher ids.

    255 for `ignored` ids that are not in `raw_to_train`, and for raw 255 (which is how -1 is stored in a byte);
    `UNKNOWN` for all others.
    """
    nothing = [*ignored, IGNORE]
    table = np.full(1 + max(nothing + list(raw_to_train)), UNKNOWN, dtype=np.uint8)
    table[nothing] = IGNORE
    for raw, train in raw_to_train.items():
        table[raw] = train
    return table


_CITYSCAPES_MAP = {c.raw_id: train for train, c in enumerate(CITYSCAPES)}
CITYSCAPES_IDS = id_table(_CITYSCAPES_MAP, ignored=range(34))
GTA5_IDS = id_table(_CITYSCAPES_MAP, ignored=range(35))  # its licence plates are 34, Cityscapes' -1
SYNTHIA_IDS = id_table({raw: train for train, raw in enumerate(SYNTHIA_RAW_IDS)}, ignored=range(23))


@dataclass(frozen=True)
class ClassSet:
    """The classes of a data set: train id k is names[k], drawn in colours[k].

    ids: the lookup table of its raw label files, see `id_table`.
    own: the file in which a user lists classes of one's own, whether it is there or not; None where they are given.
    """

    names: list[str]
    colours: NDArray[np.uint8]  # (K, 3)
    ids: NDArray[np.uint8]  # (256 or more,)
    own: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def things(self) -> list[int]:
        """Train ids of the classes that DAFormer calls things, known by Cityscapes' names."""
        return [k for k, name in enumerate(self.names) if name in THINGS]

    def train_ids(
        self, stored: NDArray[np.integer], path: Path, converted: bool, palette: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Ids (H, W) as a file stores them, raw ids or, where it was `converted`, train ids -> train ids.

        Args:
            palette: (n, 3), the colours that the file shows its ids in, if it has such.

        Raises:
            ValueError: an id that this data set does not have, or ids that are numbers of colours; the message names
                the file.
        """
        table = id_table({k: k for k in range(len(self))}) if converted else self.ids
        if palette is not None and (reason := self.contradiction(stored, table, palette)):
            raise ValueError(f"{path}: expected label ids, got numbers of colours: {reason}")
        lowest, highest = int(stored.min(initial=0)), int(stored.max(initial=0))
        if lowest >= 0 and highest < len(table):
            train: NDArray[np.uint8] = table[stored]
            strange = train == UNKNOWN
            if not strange.any():
                return train
            highest = int(stored[strange].max())
        got = lowest if lowest < 0 else highest  # a negative one would count from the table's end
        kind = "train id" if converted else "raw id"
        known = ranges(np.flatnonzero(table != UNKNOWN).tolist())
        where = f'; list yours in {self.own}, under a class or under "ignore"' if self.own and not converted else ""
        raise ValueError(f"{path}: expected {kind}s {known}, got {got}{where}")

    def contradiction(self, stored: NDArray[np.integer], table: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
        """Where a file's palette shows more of its ids in another class's colour than in their own class's; else empty.

        A picture of the colours that was saved with a palette numbers them as they come.
        """
        shown = (palette[:, None] == self.colours).all(2)  # (n, K)
        own = shown & (table[: len(palette), None] == np.arange(len(self)))
        if (shown.any(0) == own.any(0)).all():  # pixels need not be looked at: GTA5's palette has a car's colour twice
            return ""
        used = np.bincount(stored.ravel(), minlength=len(palette))[: len(palette)] > 0
        right = used & own.any(1)
        wrong = used & shown.any(1) & ~right
        if wrong.sum() <= right.sum():
            return ""
        index = int(np.flatnonzero(wrong)[0])
        name = self.names[int(np.flatnonzero(shown[index])[0])]
        return (
            f"{index} has the colour of {name} in its palette, but is not an id of it; save ids, or give the classes "
            "the colours of the palette"
        )


def ranges(numbers: list[int]) -> str:
    """Sorted numbers in short: [0, 1, 2, 5] -> "0-2, 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def colourise(labels: NDArray[np.integer], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Train ids (..., H, W) -> colours (..., H, W, 3), black where ignored."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colours)] = colours
    return table[labels.astype(np.uint8)]
