"""Image and label files into arrays: the one place that reads them, with errors that name the file.

Images come out upright and with 8 bits a channel, labels with the ids that the file stores; other files are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

ID_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM")  # of them Pillow gives what is stored, given the raw modes below
LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp", "tiff_sgilog", "tiff_sgilog24")
# how a pixel is stored -> what Pillow multiplies it by
ID_FACTORS = dict.fromkeys(("1", "L", "P", "P;1", "P;2", "P;4", "I", "I;16", "I;16B", "I;16L", "I;16N"), 1)
ID_FACTORS |= dict.fromkeys(("I;16S", "I;16BS", "I;16NS", "I;32", "I;32B", "I;32N", "I;32S", "I;32BS", "I;32NS"), 1)
ID_FACTORS |= {"L;2": 85, "L;4": 17}
IDS = "expected an 8-bit map of label ids (mode L or P)"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong inside into an error that starts with the path."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path}: expected an image, could not be read as one") from None
    except Image.DecompressionBombError as error:
        remedy = "cut it into tiles, or let predict.py take more: --max-pixels"
        raise ValueError(f"{path}: expected fewer pixels ({error}); {remedy}") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error and others
        raise ValueError(f"{path}: expected an image, could not be read as one: {error}") from error


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3), RGB, upright as viewers show it (EXIF orientation).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, not a whole one, or one of more than 8 bits a channel.
    """
    with naming(path):
        file: Any = Image.open(path)
        with file:
            deep = is_deep(file)
            if not deep:
                file.load()
                ImageOps.exif_transpose(file, in_place=True)
                return np.array(file.convert("RGB"))
    raise ValueError(
        f"{path}: expected 8 bits per channel, got {deep}; convert all images to 8 bits with one scale for all of them"
    )


def is_deep(file: Any) -> str:
    """How an opened image stores more than 8 bits a channel, in words; empty where it does not.

    Pillow reads 16-bit colours as well, but keeps the higher byte alone, which is black for small values.
    """
    if file.mode.startswith(("I", "F")):
        return f"mode {file.mode}"
    if file.format == "TIFF":
        bits = max(file.tag_v2.get(258, (1,)))
    elif file.format == "PPM":
        bits = max([value.bit_length() for value in tile_arguments(file) if isinstance(value, int)], default=8)
    elif file.format == "JPEG2000":
        bits = bits_of_jpeg2000(Path(file.filename))
    else:
        bits = 16 if any(isinstance(value, str) and "16" in value for value in tile_arguments(file)) else 8
    return f"{bits} bits of mode {file.mode}" if bits > 8 else ""


def tile_arguments(file: Any) -> list[Any]:
    """What Pillow's decoder of an opened file is told: its name and arguments, among them the raw mode."""
    if not file.tile:
        return []
    decoder, _, _, arguments = file.tile[0]
    return [decoder, *(arguments if isinstance(arguments, tuple) else (arguments,))]


def bits_of_jpeg2000(path: Path) -> int:
    """Bits of the first channel, from the codestream's size marker."""
    with path.open("rb") as file:
        content = file.read(2**16)
    start = content.find(b"\xff\x4f\xff\x51")
    return (content[start + 42] & 0x7F) + 1 if 0 <= start < len(content) - 42 else 8


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of the upright image, as far as the file's head tells: what says how to turn it may come last."""
    with naming(path), Image.open(path) as file:
        # of the class itself, since PNG's own method reads the whole file; Pillow has turned TIFF's size already
        orientation = 1 if file.format == "TIFF" else Image.Image.getexif(file).get(0x0112, 1)
        return (file.width, file.height) if orientation > 4 else (file.height, file.width)


def read_ids(path: Path) -> NDArray[np.integer]:
    """(H, W) label ids, see `read_labels`."""
    return read_labels(path)[0]


def read_labels(path: Path) -> tuple[NDArray[np.integer], NDArray[np.uint8] | None]:
    """(H, W) label ids as the file stores them, and its palette (n, 3) if it has one.

    The ids are its only channel or, as in SYNTHIA, the first of a 16-bit colour PNG. Turned upright as images are,
    where the file says how (EXIF orientation).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an image, not a whole one; colours in place of ids; or a form in which ids do not come out as
            they were stored, as JPEG's.
    """
    with naming(path):
        file: Any = Image.open(path)
        with file:
            if file.format == "PNG" and raw_mode(file) in ("RGB;16B", "RGBA;16B"):
                return first_channel(path), None
            problem, factor = form_of_ids(file)
            if not problem:
                file.load()
                colours = file.getpalette("RGB") if file.mode == "P" else None
                ImageOps.exif_transpose(file, in_place=True)
                ids = np.array(file)
                palette = None if colours is None else np.array(colours, dtype=np.uint8).reshape(-1, 3)
                return ids.astype(np.uint8) if ids.dtype == np.bool_ else ids // factor, palette
    raise ValueError(f"{path}: {problem}")


def form_of_ids(file: Any) -> tuple[str, int]:
    """Why the ids of an opened label file would not come out as they were stored, empty if they do; their factor."""
    compression = file.info.get("compression") if file.format == "TIFF" else None
    if file.format not in ID_FORMATS or compression in LOSSY_TIFF:
        kind = file.format if compression is None else f"TIFF with {compression} compression"
        return f"{IDS} in a form that keeps every value, such as PNG, got {kind}; export the labels anew", 1
    if file.mode not in ("1", "L", "P") and not file.mode.startswith("I"):
        return f"{IDS}, got mode {file.mode}", 1
    raw = "P" if file.format == "GIF" else raw_mode(file)
    scaled = file.format == "PPM" and any(isinstance(v, int) and v not in (255, 65535) for v in tile_arguments(file))
    shallow = file.format == "BMP" and file.mode == "L" and bits_of_bmp(Path(file.filename)) != 8
    if raw not in ID_FACTORS or scaled or shallow:
        return f"{IDS}, got {file.format} that stores them otherwise ({raw}); save it as an 8-bit PNG", 1
    return "", ID_FACTORS[raw]


def raw_mode(file: Any) -> str:
    """How an opened file stores a pixel, in Pillow's words."""
    return next((value for value in tile_arguments(file)[1:] if isinstance(value, str)), "")


def bits_of_bmp(path: Path) -> int:
    """Bits per pixel. Pillow reads grey files of 4 as if they had 8."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(30)[28:], "little")


def first_channel(path: Path) -> NDArray[np.uint16]:
    """(H, W), the first channel of a 16-bit colour PNG.

    Pillow has 8 bits per colour channel and keeps the higher byte, which is zero for ids below 256. Told that the
    bytes come in the other order, it keeps the lower one.
    """
    halves = []
    for order in ("16B", "16L"):
        file: Any = Image.open(path)
        with file:
            decoder, extents, offset, mode = file.tile[0]
            file.tile = [(decoder, extents, offset, mode.replace("16B", order))]
            halves.append(np.array(file)[..., 0].astype(np.uint16))
    return halves[0] * 256 + halves[1]
