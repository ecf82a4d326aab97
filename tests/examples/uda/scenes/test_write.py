"""The embedded street scenes: deterministic, in the real layouts, complete or rebuilt."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from uda.scenes import write as scenes
from uda.scenes.write import SPLITS, label_palette, scene, write_scenes

IDS = {7, 8, 11, 17, 20, 21, 23, 24, 26}  # raw Cityscapes ids of the nine classes
SMALL = {"source": 3, "target": 5, "val": 3, "size": (32, 64)}


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.png"))}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, **SMALL)
    return root


def test_returns_both_roots(written: Path) -> None:
    assert write_scenes(written, **SMALL) == (written / "gta5", written / "cityscapes")


def test_layout_is_that_of_gta5_and_cityscapes(written: Path) -> None:
    for index in (1, 2, 3):
        assert (written / "gta5" / "images" / f"{index:05d}.png").is_file()
        assert (written / "gta5" / "labels" / f"{index:05d}.png").is_file()
    for split, count in (("train", 5), ("val", 3)):
        images = sorted((written / "cityscapes" / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        assert len(images) == count
        for image in images:
            city, name = image.parent.name, image.name.replace("_leftImg8bit", "_gtFine_labelIds")
            assert image.name.startswith(f"{city}_") and image.name.endswith("_000019_leftImg8bit.png")
            assert (written / "cityscapes" / "gtFine" / split / city / name).is_file()
    assert len(contents(written)) == 2 * (3 + 5 + 3)


def test_images_are_rgb_and_labels_have_the_real_modes(written: Path) -> None:
    for path in written.rglob("*.png"):
        mode = "RGB" if "images" in path.parts or "leftImg8bit" in path.parts else "P" if "gta5" in path.parts else "L"
        with Image.open(path) as image:
            assert (image.mode, image.size) == (mode, (64, 32)), path


def test_palette_labels_keep_raw_ids(written: Path) -> None:
    _, labels = scene(0, "source", 0, (32, 64))
    with Image.open(written / "gta5" / "labels" / "00001.png") as image:
        assert np.array_equal(np.asarray(image), labels)
        assert image.getpalette()[: 3 * 27] == label_palette()[: 3 * 27]


def test_only_the_source_is_free_of_the_ego_vehicle(written: Path) -> None:
    for path in [*written.glob("gta5/labels/*.png"), *written.glob("cityscapes/gtFine/*/*/*.png")]:
        found = set(np.unique(np.asarray(Image.open(path))).tolist())
        assert found <= (IDS if "gta5" in path.parts else IDS | {1}), path


@pytest.mark.parametrize("split", SPLITS)
def test_every_class_occurs(split: str) -> None:
    found: set[int] = set()
    for index in range(16):
        image, labels = scene(0, split, index, (96, 192))
        assert image.shape == (96, 192, 3) and labels.shape == (96, 192)
        assert image.dtype == labels.dtype == np.uint8
        found |= set(np.unique(labels).tolist())
    assert found >= IDS


def test_same_seed_same_bytes_other_seed_other(written: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "again", **SMALL)
    assert contents(tmp_path / "again") == contents(written)
    write_scenes(tmp_path / "other", seed=1, **SMALL)
    other = contents(tmp_path / "other")
    assert all(other[name] != data for name, data in contents(written).items())


def test_an_image_does_not_depend_on_the_counts(written: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path, source=1, target=2, val=1, size=(32, 64))
    whole = contents(written)
    assert all(whole[name] == data for name, data in contents(tmp_path).items())


def test_splits_differ() -> None:
    first, second = (scene(0, split, 0, (32, 64))[1] for split in ("train", "val"))
    assert not np.array_equal(first, second)


def test_whole_scenes_are_left_alone(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "scene", lambda *_: pytest.fail("drew a scene that is there"))
    write_scenes(written, **SMALL)


def test_half_written_scenes_are_completed(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, calls = scenes.scene, []

    def interrupted(*args: object) -> object:
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return draw(*args)

    with monkeypatch.context() as patch:
        patch.setattr(scenes, "scene", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_scenes(tmp_path, **SMALL)
    assert json.loads((tmp_path / "scenes.json").read_text())["complete"] is False
    assert len(contents(tmp_path)) == 2 * 4
    write_scenes(tmp_path, **SMALL)
    assert contents(tmp_path) == contents(written)
    assert json.loads((tmp_path / "scenes.json").read_text())["complete"] is True
    assert not list(tmp_path.rglob("*.part"))


def test_other_settings_replace_the_scenes(tmp_path: Path) -> None:
    write_scenes(tmp_path, source=2, target=1, val=1, size=(16, 32))
    write_scenes(tmp_path, source=1, target=1, val=1, size=(16, 32))
    assert len(contents(tmp_path)) == 2 * 3
    write_scenes(tmp_path, source=1, target=1, val=1, size=(32, 48))
    assert {Image.open(path).size for path in tmp_path.rglob("*.png")} == {(48, 32)}


def test_another_generator_version_replaces_the_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"source": 1, "target": 1, "val": 1, "size": (16, 32)}
    write_scenes(tmp_path, **few)
    before = contents(tmp_path)
    (tmp_path / "gta5" / "images" / "00001.png").write_bytes(b"old generator")
    monkeypatch.setattr(scenes, "VERSION", scenes.VERSION + 1)
    write_scenes(tmp_path, **few)
    assert contents(tmp_path) == before


def test_folders_of_others_are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "gta5").mkdir()
    (tmp_path / "gta5" / "mine.txt").write_text("real data")
    with pytest.raises(FileExistsError, match=r"scenes\.json"):
        write_scenes(tmp_path, **SMALL)
    assert (tmp_path / "gta5" / "mine.txt").read_text() == "real data"
