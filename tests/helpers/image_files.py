"""Writes small images and label files as data sets have them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def write(path: Path, array: NDArray[np.uint8], palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette(list(range(256)) * 3)
    image.save(path)
    return path


def write_png16(path: Path, array: NDArray[np.integer], filters: tuple[int, ...] = (0,)) -> Path:
    """A 16-bit colour PNG of array (h, w, 3 or 4), its rows filtered by the given kinds in turn (PNG specification)."""
    height, width, channels = array.shape
    step = 2 * channels  # bytes per pixel
    rows = array.astype(">u2").view(np.uint8).reshape(height, width * step).astype(int)
    above = np.zeros(width * step, int)
    data = bytearray()
    for y, row in enumerate(rows):
        kind = filters[y % len(filters)]
        left, corner = (np.concatenate([np.zeros(step, int), x[:-step]]) for x in (row, above))
        guess = left + above - corner
        a, b, c = abs(guess - left), abs(guess - above), abs(guess - corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
        predicted = (0, left, above, (left + above) // 2, paeth)[kind]
        data += bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = row

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    parts = (
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", head),
        chunk(b"IDAT", zlib.compress(bytes(data))),
        chunk(b"IEND", b""),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(parts))
    return path
