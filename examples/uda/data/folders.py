"""The one walk over folders of images and labels: links are followed, what a system left there is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from PIL import Image

# what network storage, macOS and Windows leave in folders, besides hidden files (Synology, QNAP)
SYSTEM = {"@eadir", "@recycle", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "system volume information"}
SYSTEM |= {"@recently-snapshot", "lost+found", "__pycache__"}


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted; of folders that are links too, but not in circles.

    Hidden and system files and folders are passed over: names that begin with a dot, and those of `SYSTEM`.

    Raises:
        FileNotFoundError: no such folder, or a link to what is not there: images would be missing without a word.
        PermissionError: a folder that may not be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    return sorted(walk(folder, ()))


def walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name.casefold() in SYSTEM:
            continue
        if path.is_dir():
            yield from walk(path, (*above, real))
        elif path.exists():
            yield path
        else:
            raise FileNotFoundError(f"{path}: expected a file or a folder, found a link to what is not there")


def images_below(folder: Path) -> list[Path]:
    """Those of `files_below` that have the ending of an image."""
    return [path for path in files_below(folder) if path.suffix.lower() in image_endings()]


@cache
def image_endings() -> frozenset[str]:
    """The endings that Pillow opens, such as ".png"."""
    Image.init()
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def files_like(root: Path, pattern: str) -> list[Path]:
    """The files below `root` whose path from there fits, part by part, a pattern such as "rgb_anon/*/train/*/*.png"."""
    parts = pattern.split("/")
    fixed = next((i for i, part in enumerate(parts) if "*" in part), len(parts) - 1)
    start = root.joinpath(*parts[:fixed])

    def fits(path: Path) -> bool:
        names = path.relative_to(root).parts
        return len(names) == len(parts) and all(map(fnmatchcase, names, parts))

    return [path for path in files_below(start) if fits(path)] if start.is_dir() else []
