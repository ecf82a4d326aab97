"""Image and label files: what is read, and what is said of files that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from image_files import write, write_png16
from PIL import Image
from uda.data.images import image_size, read_ids, read_rgb


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("filters", [(0,), (1,), (2,), (3,), (4,), (0, 4, 3, 2, 1)])
def test_the_first_channel_of_16_bit_pngs(tmp_path, channels, filters):
    array = np.random.default_rng(0).integers(0, 65536, (7, 9, channels))
    path = write_png16(tmp_path / "labels.png", array, filters)
    assert np.array_equal(read_ids(path), array[..., 0])
    assert image_size(path) == (7, 9)


def test_pillow_alone_would_lose_small_ids(tmp_path):
    array = np.full((2, 3, 3), 22)
    assert not np.array(Image.open(write_png16(tmp_path / "labels.png", array))).any()


@pytest.mark.parametrize("palette", [False, True])
def test_one_channel(tmp_path, palette):
    array = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(read_ids(write(tmp_path / "labels.png", array, palette)), array)


def test_deep_and_binary_maps(tmp_path):
    deep = np.array([[0, 255, 256, 40000]], dtype=np.uint16)
    assert np.array_equal(read_ids(write(tmp_path / "deep.png", deep)), deep)
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1").save(tmp_path / "binary.png")
    assert read_ids(tmp_path / "binary.png").tolist() == [[0, 1]]


@pytest.mark.parametrize(("read", "suffix"), [(read_rgb, ".png"), (read_rgb, ".jpg"), (read_ids, ".png")])
def test_broken_files_are_named(tmp_path, read, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    path = write(tmp_path / f"noise{suffix}", noise)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ValueError, match=rf"noise\{suffix}: expected an image, could not be read as one: .*"):
        read(path)
    path.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=rf"noise\{suffix}: expected an image, could not be read as one$"):
        read(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"noise\{suffix}: no such file"):
        read(path)


def test_truncated_16_bit_pngs_are_named(tmp_path):
    path = write_png16(tmp_path / "labels.png", np.random.default_rng(0).integers(0, 65536, (30, 30, 3)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"labels\.png: expected an image, could not be read as one: .*truncated"):
        read_ids(path)


def test_colours_are_not_ids(tmp_path):
    path = write(tmp_path / "colours.png", np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(
        ValueError, match=r"colours\.png: expected an 8-bit map of label ids \(mode L or P\), got mode RGB"
    ):
        read_ids(path)
