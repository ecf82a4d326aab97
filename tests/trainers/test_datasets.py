from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from uda.datasets import Batches, open_domain
from uda.labels import CITYSCAPES, CITYSCAPES_IDS, IGNORE


def write(path, array, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette(list(range(256)) * 3)
    image.save(path)


@pytest.fixture
def gta5(tmp_path):
    raw = np.arange(40, dtype=np.uint8).reshape(5, 8)  # every raw id, and some that do not exist
    write(tmp_path / "images" / "00001.png", np.full((5, 8, 3), 7, np.uint8))
    write(tmp_path / "labels" / "00001.png", raw, palette=True)
    return tmp_path


def test_raw_ids_become_train_ids_pixel_by_pixel(gta5):
    domain = open_domain(f"gta5:{gta5}")
    labels = domain.labels(0).flatten().tolist()
    expected = {c.raw_id: train for train, c in enumerate(CITYSCAPES)}
    assert labels == [expected.get(raw, IGNORE) for raw in range(40)]
    assert torch.equal(domain.image(0), torch.full((3, 5, 8), 7 / 255))


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
    assert domain.image(0).shape == (3, 10, 16)
    labels = domain.labels(0)
    assert torch.equal(labels[::2, ::2], domain.labels(0, resized=False))  # nearest: no id that was not there


def test_target_labels_are_not_read(scenes, tmp_path):
    import shutil

    shutil.copytree(scenes[1] / "leftImg8bit", tmp_path / "leftImg8bit")
    source, target = open_domain(f"gta5:{scenes[0]}"), open_domain(f"cityscapes:{tmp_path}")
    batch = Batches(source, target, (32, 64), 2, seed=0)[0]
    assert batch.target_images.shape == (2, 3, 32, 64)


def test_samples_depend_on_seed_step_and_number_alone(scenes):
    source, target = open_domain(f"gta5:{scenes[0]}"), open_domain(f"cityscapes:{scenes[1]}")

    def batch(step, **options):
        return Batches(source, target, (32, 64), **{"batch_size": 4, "seed": 0, **options})[step]

    whole = batch(5)
    second = batch(5, batch_size=2, first_sample=2)
    for x, y in zip(vars(whole).values(), vars(second).values()):
        assert torch.equal(x[2:], y)
    assert not torch.equal(whole.source_images, batch(6).source_images)
    assert not torch.equal(whole.source_images, batch(5, seed=1).source_images)


def test_margins_are_not_trusted(scenes):
    source, target = open_domain(f"gta5:{scenes[0]}"), open_domain(f"cityscapes:{scenes[1]}")
    trusted = Batches(source, target, (32, 64), 2, 0, margins=(3, 5))[0].target_trusted
    assert trusted.shape == (2, 32, 64)
    assert not trusted[:, :3].any()
    assert not trusted[:, -5:].any()
    assert trusted[:, 3:-5].all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gta5", "expected LAYOUT:PATH with LAYOUT one of gta5, cityscapes, got 'gta5'"),
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
        open_domain(f"gta5:{gta5}").image(0)
    write(gta5 / "labels" / "00001.png", np.zeros((5, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"labels/00001\.png: expected an 8-bit map of label ids.*got mode RGB"):
        open_domain(f"gta5:{gta5}").labels(0)


def test_sizes_that_differ_are_named(gta5):
    write(gta5 / "labels" / "00001.png", np.zeros((5, 9), np.uint8))
    domain = open_domain(f"gta5:{gta5}")
    with pytest.raises(ValueError, match=r"00001\.png: expected labels of the image's size \(5, 8\), got \(5, 9\)"):
        Batches(domain, domain, (4, 4), 1, 0)[0]
