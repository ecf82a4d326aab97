"""The scenes of the study: the embedded ones, and variants of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from trainers import scenes

SIZES = {"large": (192, 384)}


def write_world(name: str, root: Path) -> Path:
    """Writes a world below `root`, unless it is there, and returns its folder.

    street: the embedded scenes. large: the same at twice the side. one grey: road, pavement and kerb have one colour
    within each domain, so that their place and the joints of the slabs tell which is which.
    """
    folder = root / name.replace(" ", "-")
    changed = {}
    if name == "one grey":
        changed = {domain: one_grey(getattr(scenes, domain)) for domain in ("SOURCE", "TARGET")}
    with patch.multiple(scenes, **changed) if changed else patch.multiple(scenes, VERSION=scenes.VERSION):
        scenes.write_scenes(folder, size=SIZES.get(name, (96, 192)))
    return folder


def one_grey(domain: scenes.Domain) -> scenes.Domain:
    """The domain with the road's mean colour, and no spread around it, on all of the ground."""
    (means, _) = domain.palette["road"]
    ground = dict.fromkeys(("road", "sidewalk", "kerb"), (means, 0.0))
    return replace(domain, palette=domain.palette | ground)
