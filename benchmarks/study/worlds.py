"""The scenes of the study: the embedded ones, and variants of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from night import write_night
from trainers import scenes

DRAWN = {"large": {"size": (192, 384)}, "more scenes": {"source": 1600, "target": 1600}}


def write_world(name: str, root: Path) -> dict[str, str]:
    """Writes a world below `root`, unless it is there; its source and target as the trainers take them.

    street: the embedded scenes. large: the same at twice the side. more scenes: four times as many to train on. one
    grey: see `one_grey`. night: the source of street, and `night`'s target.
    """
    if name == "night":
        write_night(root / name / "darkzurich")
        return write_world("street", root) | {"target": f"darkzurich:{root / name / 'darkzurich'}"}
    folder = root / name.replace(" ", "-")
    with drawn_as(name):
        scenes.write_scenes(folder, **DRAWN.get(name, {}))
    return {"source": f"gta5:{folder / 'gta5'}", "target": f"cityscapes:{folder / 'cityscapes'}"}


@contextmanager
def drawn_as(name: str) -> Iterator[None]:
    """Inside it scenes are drawn as the world's."""
    if name != "one grey":
        yield
        return
    with patch.multiple(scenes, SOURCE=one_grey(scenes.SOURCE), TARGET=one_grey(scenes.TARGET)):
        yield


def one_grey(domain: scenes.Domain) -> scenes.Domain:
    """Road, pavement and kerb of one colour: their place, markings and joints tell which is which."""
    (means, _) = domain.palette["road"]
    ground = dict.fromkeys(("road", "sidewalk", "kerb"), (means, 0.0))
    return replace(domain, palette=domain.palette | ground)
