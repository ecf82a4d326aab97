"""Which files lie below a folder: images, by their ending, and files of a pattern; not what systems leave there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from PIL import Image

# what network storage, macOS and Windows leave in folders, besides hidden files (Synology, QNAP)
SYSTEM = {"@eadir", "@recycle", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "system volume information"}
SYSTEM |= {"@recently-snapshot", "lost+found", "__pycache__"}
NO_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # that Pillow names, but cannot read by itself


def files_below(folder: Path, dead_links: bool = False) -> list[Path]:
    """All files below a folder, sorted; of folders that are links too, but not in circles.

    Hidden and system files and folders are passed over: names that begin with a dot, and those of `SYSTEM`.

    Args:
        dead_links: whether links to what is not there are among them.

    Raises:
        FileNotFoundError: no such folder, or a link to what is not there: images would be missing without a word.
        PermissionError: a folder that may not be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    paths = sorted(walk(folder, ()))
    dead = [] if dead_links else [path for path in paths if not path.exists()]
    if dead:
        raise FileNotFoundError(f"{dead[0]}: expected a file or a folder, found a link to what is not there")
    return paths


def walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name.casefold() in SYSTEM:
            continue
        if path.is_dir():
            yield from walk(path, (*above, real))
        else:
            yield path


def images_below(folder: Path, dead_links: bool = False) -> list[Path]:
    """Those of `files_below` that have the ending of an image; warns of others, such as photographs named .heic."""
    paths = files_below(folder, dead_links)
    others = [path for path in paths if not is_image(path)]
    if others:
        warnings.warn(
            f"{folder}: {len(others)} of {len(paths)} files are passed over, such as {others[0].name}: images have an "
            "ending that Pillow opens, such as .png or .jpg",
            stacklevel=2,
        )
    return [path for path in paths if is_image(path)]


def is_image(path: Path) -> bool:
    """Whether it has the ending of one."""
    return path.suffix.lower() in image_endings()


@cache
def image_endings() -> frozenset[str]:
    """The endings that Pillow opens, such as ".png"."""
    Image.init()
    kinds = Image.OPEN.keys() - NO_IMAGES
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in kinds)


def files_like(root: Path, pattern: str) -> list[Path]:
    """The files below `root` whose path from there fits, part by part, a pattern such as "rgb_anon/*/train/*/*.png"."""
    parts = pattern.split("/")
    fixed = next((i for i, part in enumerate(parts) if "*" in part), len(parts) - 1)
    start = root.joinpath(*parts[:fixed])

    def fits(path: Path) -> bool:
        names = path.relative_to(root).parts
        return len(names) == len(parts) and all(map(fnmatchcase, names, parts))

    return [path for path in files_below(start) if fits(path)] if start.is_dir() else []
