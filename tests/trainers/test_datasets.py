from __future__ import annotations

import numpy as np
import pytest
import torch
from image_files import write
from PIL import Image
from uda.datasets import Batches, fitted, open_domain
from uda.labels import CITYSCAPES, CITYSCAPES_IDS, IGNORE
from uda.rare_class import RareClassSampler
from uda.rng import generator, uniform
from uda.transforms import normalise


@pytest.fixture
def gta5(tmp_path):
    raw = np.array([*range(35), *[255] * 5], dtype=np.uint8).reshape(5, 8)  # every raw id
    write(tmp_path / "images" / "00001.png", np.full((5, 8, 3), 7, np.uint8))
    write(tmp_path / "labels" / "00001.png", raw, palette=True)
    return tmp_path


def test_raw_ids_become_train_ids_pixel_by_pixel(gta5):
    domain = open_domain(f"gta5:{gta5}")
    labels = domain.labels(0).flatten().tolist()
    expected = {c.raw_id: train for train, c in enumerate(CITYSCAPES)}
    assert labels == [expected.get(raw, IGNORE) for raw in [*range(35), *[255] * 5]]
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


def test_the_random_choices_of_a_sample(scenes):
    """Index, crop (none where the crop is the whole image) and flip, in this order from one generator."""
    source, target = open_domain(f"gta5:{scenes[0]}"), open_domain(f"cityscapes:{scenes[1]}")
    batch = Batches(source, target, (48, 96), 2, seed=3, first_sample=4)[7]
    for i in range(2):
        for name, domain, images in (("source", source, batch.source_images), ("target", target, batch.target_images)):
            gen = generator(3, name, 7, 4 + i)
            image = domain.image(int(torch.randint(6, (), generator=gen)))
            image = image.flip(-1) if uniform(gen) < 0.5 else image
            assert torch.equal(images[i], normalise(image))


def test_margins_of_the_image_are_cropped_with_it(scenes):
    source, target = open_domain(f"gta5:{scenes[0]}"), open_domain(f"cityscapes:{scenes[1]}")
    options = {"margins": (5, 9, 3, 2), "margins_of_image": True}
    whole = Batches(source, target, (48, 96), 8, 0, **options)[0].target_trusted
    for trusted in whole:
        flipped = int(trusted[20].argmax()) == 2
        expected = torch.zeros(48, 96)
        expected[5:-9, 3:-2] = 1
        assert torch.equal(trusted, expected.flip(-1) if flipped else expected)
    crops = Batches(source, target, (24, 48), 8, 0, **options)[0].target_trusted
    assert len({float(trusted.mean()) for trusted in crops}) > 1  # by where they lie
    with pytest.raises(ValueError, match=r"margins: expected \(top, bottom\) or .*got \(1, 2, 3\)"):
        Batches(source, target, (24, 48), 1, 0, margins=(1, 2, 3))


def test_small_images_are_filled_up(gta5, scenes):
    small, target = open_domain(f"gta5:{gta5}"), open_domain(f"cityscapes:{scenes[1]}")
    batch = Batches(small, target, (60, 96), 2, seed=0, margins=(4, 6))[0]
    assert batch.source_images.shape == batch.target_images.shape == (2, 3, 60, 96)
    torch.testing.assert_close(batch.source_images[0, :, :5, :8], normalise(torch.full((3, 5, 8), 7 / 255)))
    assert not batch.source_images[:, :, 5:].any() and not batch.source_images[:, :, :, 8:].any()
    assert (batch.source_labels[:, 5:] == IGNORE).all() and (batch.source_labels[:, :, 8:] == IGNORE).all()
    assert batch.target_trusted[:, 4:48].all()
    assert not batch.target_trusted[:, :4].any() and not batch.target_trusted[:, 48:].any()


@pytest.fixture
def sparse(tmp_path):
    """Four images of road; the last has a car (train id 13) in one corner."""
    for k in range(4):
        labels = np.full((32, 64), 7, np.uint8)
        labels[:, 32:] = 23
        if k == 3:
            labels[:8, :8] = 26
        write(tmp_path / "images" / f"{k}.png", np.full((32, 64, 3), k, np.uint8))
        write(tmp_path / "labels" / f"{k}.png", labels)
    return open_domain(f"gta5:{tmp_path}")


def test_rare_classes_are_drawn_and_shown(sparse, scenes):
    statistics = [{0: 1024, 10: 1024}] * 3 + [{0: 960, 10: 1024, 13: 64}]
    rare = RareClassSampler(statistics, temperature=0.01, min_pixels=20)
    target = open_domain(f"cityscapes:{scenes[1]}")

    def car_pixels(**options):
        data = Batches(sparse, target, (24, 56), 1, 0, **options)
        return torch.tensor([int((data[step].source_labels == 13).sum()) for step in range(60)])

    evenly, by_class = car_pixels(), car_pixels(rare=rare, min_crop_ratio=1.5)
    assert (evenly > 0).float().mean() < 0.4
    assert (by_class > 30).float().mean() > 0.8  # a single crop does so in one of five draws
    assert (by_class > 30).sum() > (car_pixels(rare=rare, min_crop_ratio=0) > 30).sum()


def test_rare_class_samples_depend_on_seed_step_and_number_alone(sparse, scenes):
    rare = RareClassSampler([{0: 1024, 10: 1024}] * 3 + [{0: 960, 10: 1024, 13: 64}], min_pixels=20)
    target = open_domain(f"cityscapes:{scenes[1]}")
    whole = Batches(sparse, target, (16, 16), 4, 0, rare=rare)[2]
    second = Batches(sparse, target, (16, 16), 2, 0, first_sample=2, rare=rare)[2]
    for x, y in zip(vars(whole).values(), vars(second).values()):
        assert torch.equal(x[2:], y)
    evenly = Batches(sparse, target, (16, 16), 4, 0)[2]
    assert torch.equal(whole.target_images, evenly.target_images)


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
        open_domain(f"gta5:{gta5}").image(0)
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
