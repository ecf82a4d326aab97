"""Image and label files into arrays, with errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

ID_MODES = ("L", "P", "1", "I", "I;16", "I;16B")  # one channel, and values that are ids


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong inside into an error that starts with the path."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path}: expected an image, could not be read as one") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error and others
        raise ValueError(f"{path}: expected an image, could not be read as one: {error}") from error


def open_image(path: Path) -> Image.Image:
    """The whole image, read into memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, or not a whole one.
    """
    with naming(path):
        file: Image.Image = Image.open(path)
        with file:
            return file.copy()


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's head."""
    with naming(path), Image.open(path) as file:
        return file.height, file.width


def read_ids(path: Path) -> NDArray[np.integer]:
    """(H, W) label ids as the file stores them: its only channel or, as in SYNTHIA, the first of a 16-bit colour PNG.

    Raises:
        FileNotFoundError, ValueError: see `open_image`; also for files of colours instead of ids.
    """
    with naming(path):
        file: Any = Image.open(path)
        with file:
            if file.format == "PNG" and file.tile and file.tile[0][3] in ("RGB;16B", "RGBA;16B"):
                return first_channel(path)
            file.load()
    if file.mode not in ID_MODES:
        raise ValueError(f"{path}: expected an 8-bit map of label ids (mode L or P), got mode {file.mode}")
    ids = np.array(file)
    return ids.astype(np.uint8) if ids.dtype == np.bool_ else ids


def first_channel(path: Path) -> NDArray[np.uint16]:
    """(H, W), the first channel of a 16-bit colour PNG.

    Pillow has 8 bits per colour channel and keeps the higher byte, which is zero for ids below 256. Told that the
    bytes come in the other order, it keeps the lower one.
    """
    halves = []
    for order in ("16B", "16L"):
        file: Any = Image.open(path)
        with file:
            decoder, extents, offset, raw_mode = file.tile[0]
            file.tile = [(decoder, extents, offset, raw_mode.replace("16B", order))]
            halves.append(np.array(file)[..., 0].astype(np.uint16))
    return halves[0] * 256 + halves[1]
