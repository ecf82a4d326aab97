from __future__ import annotations

import numpy as np
import pytest
import torch
from image_files import write
from PIL import Image
from uda.data.batches import Batches
from uda.data.domain import fitted, open_domain
from uda.data.labels import CITYSCAPES, CITYSCAPES_IDS, IGNORE


def test_raw_ids_become_train_ids_pixel_by_pixel(gta5):
    domain = open_domain(f"gta5:{gta5}")
    labels = domain.labels(0).flatten().tolist()
    expected = {c.raw_id: train for train, c in enumerate(CITYSCAPES)}
    assert labels == [expected.get(raw, IGNORE) for raw in [*range(35), *[255] * 5]]
    assert torch.equal(domain.pixels(0), torch.full((3, 5, 8), 7, dtype=torch.uint8))


def test_converted_labels_are_taken_as_they_are(gta5):
    converted = np.full((5, 8), 3, np.uint8)
    converted[0, 0] = 255
    write(gta5 / "labels" / "00001_labelTrainIds.png", converted)
    labels = open_domain(f"gta5:{gta5}").labels(0)
    assert labels[0, 0] == IGNORE
    assert (labels.flatten()[1:] == 3).all()


def test_the_embedded_scenes_have_their_real_ids(scenes):
    gta5, cityscapes = (open_domain(f"{name}:{path}") for name, path in zip(("gta5", "cityscapes"), scenes))
    for domain, size in ((gta5, 6), (cityscapes, 6)):
        assert len(domain) == size
        raw = np.array(Image.open(domain.samples[0].label))
        assert np.array_equal(domain.labels(0).numpy(), CITYSCAPES_IDS[raw])
        assert {0, 2, 10} <= set(domain.labels(0).unique().tolist())  # road, building, sky
    assert len(open_domain(f"cityscapes:{scenes[1]}", "val")) == 3


def test_resizing(gta5):
    domain = open_domain(f"gta5:{gta5}", size=(10, 16))
    pixels, labels = domain.labelled(0)
    assert pixels.shape == (3, 10, 16)
    assert torch.equal(labels[::2, ::2], domain.labels(0))  # nearest: no id that was not there


def test_resizing_keeps_proportions():
    assert fitted((1052, 1914), (720, 1280)) == (704, 1280)  # GTA5 in DAFormer's frame
    assert fitted((1052, 1914), (1440, 2560)) == (1407, 2560)  # and in HRDA's
    assert fitted((1024, 2048), (512, 1024)) == (512, 1024)
    assert fitted((1914, 1052), (720, 1280)) == (1280, 704)  # the frame is turned


def test_resizing_is_bilinear_without_smoothing(gta5):
    array = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    write(gta5 / "images" / "00001.png", array)
    halves = open_domain(f"gta5:{gta5}", size=(4, 6)).pixels(0).permute(1, 2, 0)
    means = array.reshape(4, 2, 6, 2, 3).mean((1, 3))
    assert np.abs(halves.numpy() - means).max() <= 0.5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gta5", "expected LAYOUT:PATH with LAYOUT one of gta5, synthia, cityscapes, acdc, .*, got 'gta5'"),
        ("kitti:/data", "got 'kitti:/data'"),
    ],
)
def test_wrong_specs(spec, message):
    with pytest.raises(ValueError, match=message):
        open_domain(spec)


def test_missing_files_are_named(tmp_path, gta5):
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit/train/\*/\*_leftImg8bit\.png, found none"):
        open_domain(f"cityscapes:{tmp_path}")
    (gta5 / "labels" / "00001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels/00001\.png: no such file"):
        open_domain(f"gta5:{gta5}").labels(0)


def test_bad_files_are_named(gta5):
    (gta5 / "images" / "00001.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"images/00001\.png: expected an image"):
        open_domain(f"gta5:{gta5}").pixels(0)
    write(gta5 / "labels" / "00001.png", np.zeros((5, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"labels/00001\.png: expected an 8-bit map of label ids.*got mode RGB"):
        open_domain(f"gta5:{gta5}").labels(0)


def test_sizes_that_differ_are_named(gta5):
    write(gta5 / "labels" / "00001.png", np.zeros((5, 9), np.uint8))
    domain = open_domain(f"gta5:{gta5}")
    with pytest.raises(ValueError, match=r"00001\.png: expected labels of the image's size \(5, 8\), got \(5, 9\)"):
        Batches(domain, domain, (4, 4), 1, 0)[0]


def test_a_few_pixels_between_image_and_labels(tmp_path):
    """As some of GTA5's pairs: the labels are resized; more is an error that names the file."""
    root = tmp_path / "own"
    write(root / "images" / "a.png", np.zeros((200, 300, 3), np.uint8))
    labels = write(root / "labels" / "a.png", np.full((199, 302), 7, np.uint8))
    domain = open_domain(f"folder:{root}", size=(100, 150))
    with pytest.warns(UserWarning, match=r"a\.png: labels \(199, 302\) are resized to their image's size \(200, 300\)"):
        pixels, ids = domain.labelled(0)
    assert pixels.shape[1:] == ids.shape == (100, 150)
    assert ids.unique().tolist() == [0]
    write(labels, np.full((190, 300), 7, np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: expected labels of the image's size \(200, 300\), got \(190, 300\)"):
        domain.labelled(0)
