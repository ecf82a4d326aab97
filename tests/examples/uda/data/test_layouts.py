"""Data sets laid out as people have them: right labels pixel by pixel, and errors that say what is wrong where."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from image_files import write, write_png16
from uda.data.domain import check_classes, open_domain
from uda.data.labels import CITYSCAPES, CITYSCAPES_NAMES, IGNORE, SYNTHIA13, SYNTHIA16, SYNTHIA_RAW_IDS, ranges
from uda.data.layouts import LAYOUTS
from uda.scenes.write import scene

TRAIN_IDS = {c.raw_id: train for train, c in enumerate(CITYSCAPES)}


@pytest.fixture(scope="module")
def street():
    """Image (h, w, 3), raw Cityscapes ids and train ids of an embedded scene, with every class at its rim."""
    image, raw = scene(0, "source", 0, (24, 48))
    raw[0, :34] = range(34)
    return image, raw, np.vectorize(lambda k: TRAIN_IDS.get(k, IGNORE), otypes=[np.uint8])(raw)


def in_synthia_ids(train):
    """(h, w, 3): class, instance, nothing."""
    table = np.zeros(256, int)
    table[: len(SYNTHIA_RAW_IDS)] = SYNTHIA_RAW_IDS
    instance = np.arange(train.size).reshape(train.shape) * 7
    return np.stack([table[train], instance, np.zeros_like(instance)], axis=-1)


def lay_out(root, layout, street, split="train"):
    """Writes one sample; returns its label file."""
    image, raw, train = street
    if layout == "gta5":
        write(root / "images" / "00001.png", image)
        return write(root / "labels" / "00001.png", raw, palette=True)
    if layout == "synthia":
        write(root / "RGB" / "0000000.png", image)
        return write_png16(root / "GT" / "LABELS" / "0000000.png", in_synthia_ids(train), (4, 1, 2))
    if layout == "cityscapes":
        stem = "aachen_000000_000019"
        write(root / "leftImg8bit" / split / "aachen" / f"{stem}_leftImg8bit.png", image)
        return write(root / "gtFine" / split / "aachen" / f"{stem}_gtFine_labelIds.png", raw)
    if layout == "folder":
        write(root / split / "images" / "a" / "x.v2.jpg", image)
        return write(root / split / "labels" / "a" / "x.v2.png", raw)
    sequence, stem = ("GOPR0351", "GOPR0351_frame_000159")
    place = f"night/{split}/{sequence}" if layout == "acdc" else f"{split}/night/{sequence}"
    write(root / "rgb_anon" / place / f"{stem}_rgb_anon.png", image)
    return write(root / "gt" / place / f"{stem}_gt_labelTrainIds.png", train)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_pixel_by_pixel(tmp_path, street, layout, split):
    path = lay_out(tmp_path, layout, street, split)
    domain = open_domain(f"{layout}:{tmp_path}", split)
    assert domain.samples[0].label == path
    assert np.array_equal(domain.labels(0), street[2])
    assert domain.classes.names == CITYSCAPES_NAMES
    if layout != "folder":  # whose image is a JPEG here
        assert np.array_equal(domain.pixels(0).permute(1, 2, 0), street[0])


@pytest.mark.parametrize("layout", ["gta5", "synthia", "cityscapes", "acdc", "folder"])
def test_converted_labels_come_first(tmp_path, street, layout):
    raw = lay_out(tmp_path, layout, street)
    converted = np.full((24, 48), 3, np.uint8)
    converted[0, 0] = IGNORE
    name = raw.name.replace("_labelTrainIds", "").replace("_labelIds", "").replace(".png", "_labelTrainIds.png")
    write(raw.with_name(name), converted)
    assert np.array_equal(open_domain(f"{layout}:{tmp_path}").labels(0), converted)


def test_acdc_has_four_conditions_and_raw_ids(tmp_path, street):
    image, raw, train = street
    for condition in ("fog", "night", "rain", "snow"):
        write(tmp_path / "rgb_anon" / condition / "train" / "GP01" / f"{condition}_rgb_anon.png", image)
        write(tmp_path / "rgb_anon" / condition / "train_ref" / "GP01" / f"{condition}_rgb_ref_anon.png", image)
        write(tmp_path / "gt" / condition / "train" / "GP01" / f"{condition}_gt_labelIds.png", raw)
    domain = open_domain(f"acdc:{tmp_path}")
    assert [sample.image.name.split("_")[0] for sample in domain.samples] == ["fog", "night", "rain", "snow"]
    assert all(np.array_equal(domain.labels(i), train) for i in range(4))


def test_acdc_without_the_level_of_conditions(tmp_path, street):
    write(tmp_path / "rgb_anon" / "train" / "GP01" / "x_rgb_anon.png", street[0])
    path = write(tmp_path / "gt" / "train" / "GP01" / "x_gt_labelTrainIds.png", street[2])
    assert open_domain(f"acdc:{tmp_path}").samples[0].label == path


def test_training_images_need_no_labels(tmp_path, street):
    lay_out(tmp_path, "darkzurich", street)
    shutil.rmtree(tmp_path / "gt")
    domain = open_domain(f"darkzurich:{tmp_path}")
    assert domain.pixels(0).shape == (3, 24, 48)
    with pytest.raises(
        FileNotFoundError, match=r"expected the labels of .*_rgb_anon\.png.*1 of 1 images have no labels"
    ):
        domain.check_labels()


OWN = {
    "classes": [
        {"name": "soil", "ids": [1, 4], "colour": [120, 80, 40]},
        {"name": "crop", "ids": [2], "colour": [0, 200, 0]},
    ],
    "ignore": [0],
}


@pytest.fixture
def own(tmp_path):
    """A folder of one's own classes, without splits."""
    (tmp_path / "classes.json").write_text(json.dumps(OWN))
    write(tmp_path / "images" / "field" / "1.jpg", np.zeros((2, 3, 3), np.uint8))
    write(tmp_path / "labels" / "field" / "1.png", np.array([[0, 1, 2], [4, 255, 2]], np.uint8))
    return tmp_path


def test_own_classes(own):
    domain = open_domain(f"folder:{own}")
    assert domain.labels(0).tolist() == [[IGNORE, 0, 1], [0, IGNORE, 1]]
    assert domain.classes.names == ["soil", "crop"]
    assert domain.classes.colours.tolist() == [[120, 80, 40], [0, 200, 0]]
    assert open_domain(f"folder:{own}", "val").samples == domain.samples
    write(own / "val" / "images" / "2.png", np.zeros((2, 3, 3), np.uint8))
    assert [s.image.name for s in open_domain(f"folder:{own}", "val").samples] == ["2.png"]


def test_any_number_of_classes(own):
    classes = [{"name": str(k), "ids": [k], "colour": [k, k, k]} for k in range(255)]
    (own / "classes.json").write_text(json.dumps({"classes": classes[:254], "ignore": [254]}))
    array = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write(own / "labels" / "field" / "1.png", array)
    labels = open_domain(f"folder:{own}").labels(0).flatten().tolist()
    assert labels == [*range(254), IGNORE, IGNORE]
    (own / "classes.json").write_text(json.dumps({"classes": classes}))
    with pytest.raises(ValueError, match=r"classes\.json: expected 2 to 254 classes .*got 255"):
        open_domain(f"folder:{own}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"expected \{\"classes\": \[\{\"name\": .*got JSONDecodeError"),
        ("[1]", "expected .*got TypeError"),
        ({"classes": [{"name": "soil", "ids": [1]}]}, "got KeyError: 'colour'"),
        ({"classes": [OWN["classes"][0]]}, "expected 2 to 254 .*got 1; list what is not that class as a class too"),
        ({"classes": [{"name": "soil", "ids": [70000], "colour": [0, 0, 0]}]}, r"\[70000\] is not a list .* to 65535"),
        ({"classes": [{"name": "soil", "ids": [1], "colour": [0, 0, 300]}]}, r"300\] is not a list of whole .* to 255"),
        ({"classes": [OWN["classes"][0], {**OWN["classes"][1], "name": "soil"}]}, r"a name of its own for every class"),
        ({"classes": [{"name": "soil", "ids": [1], "colour": [0, 0]}]}, r"colours \[r, g, b\]"),
        ({"classes": []}, "expected 2 to 254 classes.*got 0"),
        ({**OWN, "ignore": [2]}, r"expected every id once and 255 for no class, got \[2\]"),
        (
            {"classes": [*OWN["classes"], {"name": "x", "ids": [255], "colour": [0, 0, 0]}]},
            r"255 for no class, got \[255\]",
        ),
    ],
)
def test_wrong_classes_are_explained(own, content, message):
    (own / "classes.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=rf"classes\.json: .*{message}"):
        open_domain(f"folder:{own}")


def test_a_list_of_classes_as_windows_writes_it_and_one_that_is_gone(own):
    text = json.dumps(OWN)
    (own / "classes.json").write_text(text, encoding="utf-8-sig")
    assert open_domain(f"folder:{own}").classes.names == ["soil", "crop"]
    (own / "classes.json").unlink()
    (own / "classes.json").symlink_to(own / "nowhere.json")
    with pytest.raises(FileNotFoundError, match=r"classes\.json"):  # the classes would be Cityscapes' without a word
        open_domain(f"folder:{own}")


def test_ids_of_16_bits(own):
    ignored = {**OWN, "ignore": [0, 65535]}
    ignored["classes"] = [OWN["classes"][0], {**OWN["classes"][1], "ids": [2, 1000]}]
    (own / "classes.json").write_text(json.dumps(ignored))
    write(own / "labels" / "field" / "1.png", np.array([[0, 1, 1000], [65535, 255, 2]], np.uint16))
    assert open_domain(f"folder:{own}").labels(0).tolist() == [[IGNORE, 0, 1], [IGNORE, IGNORE, 1]]
    write(own / "labels" / "field" / "1.png", np.array([[0, 1, 1001]], np.uint16))
    with pytest.raises(ValueError, match=r"1\.png: expected raw ids 0-2, 4, 255, 1000, 65535, got 1001; list yours"):
        open_domain(f"folder:{own}").labels(0)


def test_splits_below_images_and_labels(own):
    """As detection tools lay them out."""
    for split in ("train", "val", "test"):
        write(own / "images" / split / "a.png", np.zeros((2, 3, 3), np.uint8))
        write(own / "labels" / split / "a.png", np.full((2, 3), 2, np.uint8))
        if split == "train":  # without a val beside it, it is a folder like others
            assert len(open_domain(f"folder:{own}")) == 2
    for split in ("train", "val", "test"):
        (sample,) = open_domain(f"folder:{own}", split).samples
        assert sample == (own / "images" / split / "a.png", own / "labels" / split / "a.png")


def test_a_split_that_is_not_there(own):
    write(own / "val" / "images" / "2.png", np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(FileNotFoundError, match=r"vla: no such folder"):
        open_domain(f"folder:{own}", "vla")


def test_images_of_one_name(own):
    write(own / "images" / "field" / "1.png", np.zeros((2, 3), np.uint8))  # a mask beside its photograph
    with pytest.raises(ValueError, match=r"field/1\.jpg and 1\.png would have the same labels"):
        open_domain(f"folder:{own}")


@pytest.mark.parametrize(
    ("layout", "pattern"),
    [
        ("gta5", r"images/\*\.png"),
        ("synthia", r"RGB/\*\.png"),
        ("cityscapes", r"leftImg8bit/train/\*/\*_leftImg8bit\.png"),
        ("acdc", r"rgb_anon/\*/train/\*/\*_rgb_anon\.png"),
        ("darkzurich", r"rgb_anon/train/night/\*/\*_rgb_anon\.png"),
        ("folder", r"images/\*\*/\*\.\*"),
    ],
)
def test_wrong_layouts_say_what_was_expected(tmp_path, layout, pattern):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}: expected files like {tmp_path}/{pattern}, found none"):
        open_domain(f"{layout}:{tmp_path}")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        open_domain(f"{layout}:{tmp_path}/nowhere")


@pytest.mark.filterwarnings("ignore:.*are passed over")
def test_a_folder_without_readable_images(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "notes.txt").write_text("no picture")
    with pytest.raises(FileNotFoundError, match=r"images: expected images \(\.png, \.jpg, \.\.\.\)"):
        open_domain(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("layout", "strange", "message"),
    [
        ("gta5", 77, r"00001\.png: expected raw ids 0-34, 255, got 77"),
        ("synthia", 40, r"0000000\.png: expected raw ids 0-22, 255, got 40"),
        ("synthia", 300, r"0000000\.png: expected raw ids 0-22, 255, got 300"),
        ("cityscapes", 34, r"_gtFine_labelIds\.png: expected raw ids 0-33, 255, got 34"),
        ("acdc", 19, r"_gt_labelTrainIds\.png: expected train ids 0-18, 255, got 19"),
        ("darkzurich", 33, r"_gt_labelTrainIds\.png: expected train ids 0-18, 255, got 33"),
        ("folder", 254, r"x\.v2\.png: expected raw ids 0-33, 255, got 254; list yours in .*classes\.json"),
    ],
)
def test_strange_ids_are_named(tmp_path, street, layout, strange, message):
    path = lay_out(tmp_path, layout, street)
    if layout == "synthia":
        write_png16(path, np.full((24, 48, 3), strange))
    else:
        write(path, np.full((24, 48), strange, np.uint8))
    with pytest.raises(ValueError, match=message):
        open_domain(f"{layout}:{tmp_path}").labels(0)


def test_other_classes_are_an_error(own, tmp_path_factory, street):
    root = tmp_path_factory.mktemp("gta5")
    lay_out(root, "gta5", street)
    with pytest.raises(
        ValueError, match=r"expected one list of classes, got \['road', .* in gta5:.*\['soil', 'crop'\]"
    ):
        check_classes(open_domain(f"gta5:{root}"), open_domain(f"folder:{own}"))


def test_subsets_for_synthia():
    assert [CITYSCAPES_NAMES[k] for k in range(19) if k not in SYNTHIA16] == ["terrain", "truck", "train"]
    assert [CITYSCAPES_NAMES[k] for k in SYNTHIA16 if k not in SYNTHIA13] == ["wall", "fence", "pole"]
    assert len(SYNTHIA16) == 16 and len(SYNTHIA13) == 13


def test_ranges():
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
