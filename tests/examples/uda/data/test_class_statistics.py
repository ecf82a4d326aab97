"""Class statistics: counted, kept, noticed when the data changes, or taken from the files of DAFormer's scripts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from image_files import write
from uda.data import class_statistics as module
from uda.data.class_statistics import class_statistics
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
    assert class_statistics(domain, tmp_path / "cache", workers=1) == EXPECTED
    printed = capsys.readouterr()
    assert printed.err == ""  # it took no half minute
    assert printed.out.startswith(f"gta5:{root}: no pixel of sidewalk, wall, fence,")
    assert printed.out.count("\n") == 1
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
    stats = [{"0": 40 + k, "2": 7, "file": f"{place}/{k}_labelTrainIds.png"} for k in files]
    (root / "sample_class_stats.json").write_text(json.dumps(stats))


def test_statistics_beside_the_data_are_used(root, tmp_path, counted):
    write_stats(root, files=(1, 0))
    domain = open_domain(f"gta5:{root}")
    assert class_statistics(domain, tmp_path / "cache") == [{0: 40, 2: 7}, {0: 41, 2: 7}]
    by_class = {"0": [["labels/0_labelTrainIds.png", 5], ["labels/1_labelTrainIds.png", 6]], "3": []}
    (root / "samples_with_class.json").write_text(json.dumps(by_class))
    (root / "sample_class_stats.json").unlink()
    assert class_statistics(domain, tmp_path / "cache") == [{0: 5}, {0: 6}]
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
