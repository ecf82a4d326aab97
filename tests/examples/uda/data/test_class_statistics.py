"""Class statistics: counted, kept, noticed when the data changes, or taken from the files of DAFormer's scripts."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
from image_files import write
from uda.data import class_statistics as module
from uda.data.class_statistics import absent_classes, class_statistics
from uda.data.domain import open_domain

EXPECTED = [{0: 4, 2: 2}, {0: 3, 13: 3}]


@pytest.fixture
def root(tmp_path):
    for k, ids in enumerate(([7, 7, 7, 7, 11, 11, 0, 0], [7, 7, 7, 26, 26, 26, 255, 4])):
        write(tmp_path / "gta" / "images" / f"{k}.png", np.zeros((2, 4, 3), np.uint8))
        write(tmp_path / "gta" / "labels" / f"{k}.png", np.array(ids, np.uint8).reshape(2, 4), palette=True)
    return tmp_path / "gta"


@pytest.fixture
def counted(monkeypatch):
    """How often label files were counted."""
    calls, count = [], module.count
    monkeypatch.setattr(module, "count", lambda *args: calls.append(1) or count(*args))
    return calls


def test_pixels_are_counted_once(root, tmp_path, counted, capsys):
    domain = open_domain(f"gta5:{root}", size=(20, 40))  # counted in the files' own size
    assert class_statistics(domain, tmp_path / "cache") == EXPECTED
    printed = capsys.readouterr()
    assert printed.err == ""  # it took no half minute
    assert class_statistics(domain, tmp_path / "cache") == EXPECTED
    assert len(counted) == 1
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".json"]


def test_another_data_set_has_another_file(root, tmp_path, counted, scenes):
    for path in (root, scenes[0]):
        class_statistics(open_domain(f"gta5:{path}"), tmp_path / "cache")
    assert len(counted) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_changed_data_set_is_noticed(root, tmp_path, counted, capsys):
    class_statistics(open_domain(f"gta5:{root}"), tmp_path / "cache")
    write(root / "images" / "2.png", np.zeros((2, 4, 3), np.uint8))
    write(root / "labels" / "2.png", np.full((2, 4), 33, np.uint8))
    assert class_statistics(open_domain(f"gta5:{root}"), tmp_path / "cache")[2] == {18: 8}
    assert "the data set has changed" in capsys.readouterr().out
    write(root / "labels" / "2_labelTrainIds.png", np.full((2, 4), 1, np.uint8))
    assert class_statistics(open_domain(f"gta5:{root}"), tmp_path / "cache")[2] == {1: 8}
    assert len(counted) == 3


def test_a_full_disk_is_named_and_leaves_nothing(root, tmp_path, counted, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*class-statistics-.*\.json"):
        class_statistics(open_domain(f"gta5:{root}"), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"pixels": 3}'])
def test_a_damaged_cache_is_counted_anew(root, tmp_path, counted, content, capsys):
    domain = open_domain(f"gta5:{root}")
    class_statistics(domain, tmp_path / "cache")
    next((tmp_path / "cache").iterdir()).write_text(content)
    assert class_statistics(domain, tmp_path / "cache") == EXPECTED
    assert "damaged" in capsys.readouterr().out
    assert class_statistics(domain, tmp_path / "cache") == EXPECTED
    assert len(counted) == 2


def write_stats(root, files=(0, 1)):
    place = "/somewhere/else/gta/labels"
    stats = [{**{str(i): n for i, n in EXPECTED[k].items()}, "file": f"{place}/{k}_labelTrainIds.png"} for k in files]
    (root / "sample_class_stats.json").write_text(json.dumps(stats))


def test_statistics_beside_the_data_are_used(root, tmp_path, counted):
    write_stats(root, files=(1, 0))
    domain = open_domain(f"gta5:{root}")
    assert class_statistics(domain, tmp_path / "cache") == EXPECTED
    assert not counted and not (tmp_path / "cache").exists()


def test_statistics_of_fewer_samples_are_not_used(root, tmp_path, counted, capsys):
    write_stats(root, files=(0,))
    assert class_statistics(open_domain(f"gta5:{root}"), tmp_path / "cache") == EXPECTED
    assert "sample_class_stats.json: knows 1 of 2 samples, not used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected the statistics of DAFormer's conversion scripts"),
        ('[{"0": 1}]', r"expected the statistics .*KeyError\('file'\)"),
        ('[{"19": 1, "file": "0.png"}]', "expected train ids 0-18, got 19"),
    ],
)
def test_wrong_statistics_are_named(root, tmp_path, content, message):
    (root / "sample_class_stats.json").write_text(content)
    with pytest.raises(ValueError, match=rf"sample_class_stats\.json: {message}"):
        class_statistics(open_domain(f"gta5:{root}"), tmp_path)


def test_cityscapes_names_match(tmp_path, scenes, counted):
    domain = open_domain(f"cityscapes:{scenes[1]}")
    assert domain.samples[0].label.name.endswith("_gtFine_labelIds.png")
    converted = domain.samples[0].label.name.replace("labelIds", "labelTrainIds")
    assert module.key(f"gtFine\\train\\{converted}") == module.key(domain.samples[0].label.name)


def test_bad_files_are_found_before_training(root, tmp_path):
    domain = open_domain(f"gta5:{root}")
    write(root / "labels" / "1.png", np.zeros((2, 5), np.uint8))
    with pytest.raises(ValueError, match=r"labels/1\.png: expected labels of the image's size \(2, 4\), got \(2, 5\)"):
        class_statistics(domain, tmp_path / "cache")
    (root / "labels" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels/1\.png: expected the labels of .*images/1\.png"):
        class_statistics(domain, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("stats", "wrong"),
    [
        ([{"file": "labels/0.png"}, {"file": "labels/1.png"}], r"says 0 pixels of road in .*0\.png, which has 4"),
        (
            [{"0": 4, "2": 2, "file": "0"}, {"0": 6, "file": "1"}],
            r"says 6 pixels of road in .*1\.png, .* has 3",
        ),
    ],
    ids=["without a class", "of other labels"],
)
def test_statistics_of_other_labels_are_not_used(root, tmp_path, counted, capsys, stats, wrong):
    (root / "sample_class_stats.json").write_text(json.dumps(stats))
    assert class_statistics(open_domain(f"gta5:{root}"), tmp_path / "cache") == EXPECTED
    assert re.search(rf"sample_class_stats\.json: {wrong}; not used, delete it", capsys.readouterr().out)


@pytest.mark.parametrize("ending", [".tif", ".bmp"])
def test_contents_that_change_places_are_noticed(tmp_path, counted, ending):
    """Label files of one size and of one time."""
    root, cache = tmp_path / "own", tmp_path / "cache"
    for name, raw in (("a", 7), ("b", 26)):
        write(root / "images" / f"{name}.png", np.zeros((2, 4, 3), np.uint8))
        write(root / "labels" / f"{name}{ending}", np.full((2, 4), raw, np.uint8))
    assert class_statistics(open_domain(f"folder:{root}"), cache) == [{0: 8}, {13: 8}]
    a, b = (root / "labels" / f"{name}{ending}" for name in "ab")
    times, contents = a.stat(), (a.read_bytes(), b.read_bytes())
    for path, content in zip((b, a), contents):
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert class_statistics(open_domain(f"folder:{root}"), cache) == [{13: 8}, {0: 8}]


def test_classes_without_labelled_pixels_are_named(root):
    said = absent_classes(open_domain(f"gta5:{root}"))
    assert said.startswith("no labelled pixel of sidewalk, wall, fence,") and said.endswith(" in 2 label files")
    assert "in 1 of 2 label files" in absent_classes(open_domain(f"gta5:{root}"), limit=1)
    for path in (root / "labels").iterdir():
        write(path, np.full((2, 4), 0, np.uint8))
    with pytest.raises(ValueError, match="expected labelled pixels of its classes, found none in 2 label files"):
        absent_classes(open_domain(f"gta5:{root}"))


@pytest.mark.parametrize(("value", "reminded"), [(255, True), (7, False)])
def test_masks_of_0_and_255(tmp_path, value, reminded):
    classes = [{"name": name, "ids": [k], "colour": [k, k, k]} for k, name in enumerate(("background", "object"))]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes, "ignore": [7]}))
    write(tmp_path / "images" / "a.png", np.zeros((2, 2, 3), np.uint8))
    write(tmp_path / "labels" / "a.png", np.array([[0, value], [value, 0]], np.uint8))
    said = absent_classes(open_domain(f"folder:{tmp_path}"))
    assert said.startswith("no labelled pixel of object in 1 label files")
    assert said.endswith("; 255, which they hold, counts as no class") == reminded
