"""The scenes of the study: the embedded ones, and variants of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from trainers import scenes

SIZES = {"large": (192, 384)}


def write_world(name: str, root: Path) -> Path:
    """Writes a world below `root`, unless it is there, and returns its folder.

    street: the embedded scenes. large: the same at twice the side. one grey: see `one_grey`.
    """
    folder = root / name.replace(" ", "-")
    with drawn_as(name):
        scenes.write_scenes(folder, size=SIZES.get(name, (96, 192)))
    return folder


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
