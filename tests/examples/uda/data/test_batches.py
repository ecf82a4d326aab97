from __future__ import annotations

import numpy as np
import pytest
import torch
from image_files import write
from PIL import Image
from uda.data.batches import Batches, batches, without_margins
from uda.data.domain import open_domain
from uda.data.labels import IGNORE
from uda.data.rare_class import RareClassSampler
from uda.data.transforms import normalise
from uda.runtime.rng import generator, uniform


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
    trusted = Batches(source, target, (32, 64), 2, 0, margins=(3, 5, 0, 0))[0].target_trusted
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
            image = domain.pixels(int(torch.randint(6, (), generator=gen))).float() / 255
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


def test_small_images_are_filled_up(gta5, scenes):
    small, target = open_domain(f"gta5:{gta5}"), open_domain(f"cityscapes:{scenes[1]}")
    batch = Batches(small, target, (60, 96), 2, seed=0, margins=(4, 6, 0, 0))[0]
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
    assert len(car_pixels(rare=rare, min_crop_ratio=1e6)) == 60, "redraws end where no crop has enough"


def test_rare_class_samples_depend_on_seed_step_and_number_alone(sparse, scenes):
    rare = RareClassSampler([{0: 1024, 10: 1024}] * 3 + [{0: 960, 10: 1024, 13: 64}], min_pixels=20)
    target = open_domain(f"cityscapes:{scenes[1]}")
    whole = Batches(sparse, target, (16, 16), 4, 0, rare=rare)[2]
    second = Batches(sparse, target, (16, 16), 2, 0, first_sample=2, rare=rare)[2]
    for x, y in zip(vars(whole).values(), vars(second).values()):
        assert torch.equal(x[2:], y)
    evenly = Batches(sparse, target, (16, 16), 4, 0)[2]
    assert torch.equal(whole.target_images, evenly.target_images)


def test_margins() -> None:
    weights = torch.ones(2, 6, 3)
    out = without_margins(weights, 1, 2, 0, 1)
    assert out[:, :, 0].tolist() == [[0, 1, 1, 1, 0, 0]] * 2
    assert out[0, 2].tolist() == [1, 1, 0]
    assert weights.min() == 1.0
    assert without_margins(weights, 0, 0, 0, 0).min() == 1.0
    assert without_margins(weights, 4, 7, 0, 0).max() == without_margins(weights, 0, 0, 3, 4).max() == 0.0


def test_the_files_of_a_batch(scenes):
    source, target = open_domain(f"gta5:{scenes[0]}"), open_domain(f"cityscapes:{scenes[1]}")
    data = Batches(source, target, (48, 96), 2, seed=3, first_sample=4)
    *ours, first, second = data.files(7)
    assert len(ours) == 2
    batch = data[7]
    for file, image in zip([*ours, first, second], [*batch.source_images, *batch.target_images]):
        pixels = normalise(torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1) / 255)
        assert torch.equal(image, pixels) or torch.equal(image, pixels.flip(-1))


@pytest.mark.parametrize("close", [True, False])
def test_workers_end_with_their_batches(scenes, tmp_path, close):
    """Closed before the end, or after an error in one of them, whose traceback is still held."""
    import multiprocessing
    import shutil

    shutil.copytree(scenes[0], tmp_path / "gta5")
    source, target = open_domain(f"gta5:{tmp_path / 'gta5'}"), open_domain(f"cityscapes:{scenes[1]}")
    loader = batches(Batches(source, target, (48, 96), 2, seed=0), 0, 1000, workers=2)
    next(loader)
    assert len(multiprocessing.active_children()) == 2
    if close:
        loader.close()
    else:
        for path in (tmp_path / "gta5" / "images").iterdir():
            path.unlink()
        with pytest.raises(FileNotFoundError, match="no such file"):
            for _ in loader:
                pass
    assert multiprocessing.active_children() == []


def test_scale_jitter(scenes):
    """Image, labels and margins of the image together; without it nothing else is drawn."""
    source, target = open_domain(f"gta5:{scenes[0]}"), open_domain(f"cityscapes:{scenes[1]}")
    large = Batches(source, target, (200, 200), 6, 0, margins=(4, 8, 2, 2), margins_of_image=True, scale_jitter=0.5)[0]
    rows, cols = (large.target_trusted.amax(d).sum(-1) for d in (2, 1))  # what lies within the margins
    inside = (large.target_images != 0).any(1)
    heights, widths = inside.any(2).sum(1), inside.any(1).sum(1)
    assert len(set(heights.tolist())) > 3
    assert (heights >= 24).all() and (heights <= 72).all()
    torch.testing.assert_close(widths.float(), 2.0 * heights, atol=1, rtol=0)
    torch.testing.assert_close(heights - rows, heights * 12 / 48, atol=1, rtol=0)
    torch.testing.assert_close(widths - cols, widths * 4 / 96, atol=1.5, rtol=0)
    labelled = (large.source_labels != IGNORE).any(2).sum(1)
    torch.testing.assert_close(labelled, (large.source_images != 0).any(1).any(2).sum(1), atol=1, rtol=0)
