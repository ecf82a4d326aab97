"""Files that people have: read as they are meant, or refused by name; the same by every script."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import predict
import pytest
import torch
from image_files import write, write_png16
from PIL import Image
from uda.data.batches import Batches
from uda.data.domain import open_domain
from uda.data.images import read_ids, read_rgb
from uda.data.listing import files_below, images_below

CLASSES = {"classes": [{"name": str(k), "ids": [k], "colour": [9 * k, 0, 0]} for k in range(1, 17)], "ignore": [0]}
UPRIGHT = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
IDS = (np.arange(16 * 24) % 16 + 1).astype(np.uint8).reshape(16, 24)
SIX_BY_EIGHT = IDS[:6, :8]
# EXIF orientation -> how an upright image is stored
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}


def turned(path, array, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}.get(path.suffix, {})
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(STORED[orientation](array))).save(path, exif=exif, **options)
    return path


@pytest.fixture
def own(tmp_path):
    """A folder in the layout of one's own data, still without files."""
    root = tmp_path / "own"
    root.mkdir()
    (root / "classes.json").write_text(json.dumps(CLASSES))
    return root


# images


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", [".png", ".tif", ".webp", ".jpg"])
def test_images_are_upright(tmp_path, orientation, ending):
    smooth = np.add.outer(np.arange(16) * 9, np.arange(24) * 4)[..., None].repeat(3, 2).astype(np.uint8)
    array = smooth if ending == ".jpg" else UPRIGHT  # which loses a little
    read = read_rgb(turned(tmp_path / f"photo{ending}", array, orientation)).astype(int)
    assert read.shape == array.shape and np.abs(read - array).max() <= (3 if ending == ".jpg" else 0)


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_turned_photographs_fit_their_upright_labels(own, orientation, ending):
    """In training, with and without resizing, and where evaluation and label checks read them."""
    turned(own / "images" / f"a{ending}", np.repeat(IDS[..., None] * 10, 3, axis=2), orientation)
    write(own / "labels" / "a.png", IDS)
    domain = open_domain(f"folder:{own}")
    pixels, labels = domain.with_labels(0)
    assert torch.equal(labels + 1, torch.from_numpy(IDS))
    errors = (pixels[0].int() - 10 * torch.from_numpy(IDS).int()).abs()
    assert errors.float().mean() < (4 if ending == ".jpg" else 1e-9)
    domain.check_size(0, labels)
    small = open_domain(f"folder:{own}", size=(8, 12))
    assert small.pixels(0).shape == (3, 8, 12) and small.labelled(0)[1].shape == (8, 12)
    assert Batches(small, small, (8, 12), 1, 0)[0].source_images.shape == (1, 3, 8, 12)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
def test_labels_that_lie_as_the_photograph_is_stored_are_refused(own, ending):
    turned(own / "images" / f"a{ending}", UPRIGHT, 6)
    write(own / "labels" / "a.png", np.ascontiguousarray(np.rot90(IDS)))
    domain = open_domain(f"folder:{own}")
    message = r"a\.png: expected labels of the image's size \(16, 24\), got \(24, 16\) \(.*images/a.* upright\)"
    readers = (domain.with_labels, domain.labelled, lambda i: domain.check_size(i, domain.labels(i)))
    for read in readers:
        with pytest.raises(ValueError, match=message):
            read(0)


def deep_grey_png(path):
    Image.fromarray(UPRIGHT[..., 0].astype(np.uint16) * 4).save(path)


def deep_colour_png(path):
    write_png16(path, UPRIGHT.astype(int) * 4)


def deep_tiff(path):
    Image.fromarray(UPRIGHT[..., 0].astype(np.uint16) * 4).save(path, format="TIFF")


def float_tiff(path):
    Image.fromarray(UPRIGHT[..., 0].astype(np.float32)).save(path, format="TIFF")


def deep_ppm(path):
    path.write_bytes(b"P6 24 16 4095\n" + (UPRIGHT.astype(">u2") * 4).tobytes())


def deep_jpeg2000(path):
    Image.fromarray(UPRIGHT).save(path, format="JPEG2000")
    content = bytearray(path.read_bytes())
    content[content.find(b"\xff\x4f\xff\x51") + 42] = 15  # the codestream's own word for 16 bits
    path.write_bytes(content)


DEEP = [deep_grey_png, deep_colour_png, deep_tiff, float_tiff, deep_ppm, deep_jpeg2000]


@pytest.mark.parametrize("make", DEEP)
def test_deep_images_are_refused_wherever_they_are_read(own, make):
    (own / "images").mkdir()
    make(own / "images" / "thermal.png")
    write(own / "labels" / "thermal.png", IDS)
    domain = open_domain(f"folder:{own}")
    batches = Batches(domain, domain, (8, 8), 1, 0)
    for read in (domain.pixels, domain.with_labels, batches.__getitem__):
        with pytest.raises(ValueError, match=r"thermal\.png: expected 8 bits per channel, got .*convert all images"):
            read(0)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_shallow_images_are_read_at_their_full_range(tmp_path, bits):
    Image.fromarray(np.arange(2**bits, dtype=np.uint8)[None]).save(tmp_path / "grey.png", bits=bits)
    assert read_rgb(tmp_path / "grey.png")[0, [0, -1], 0].tolist() == [0, 255]


def test_images_beyond_pillows_guard_name_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # a third of the image's
    path = write(tmp_path / "map.png", UPRIGHT)
    with pytest.raises(ValueError, match=r"map\.png: expected fewer pixels .*384 pixels.*tiles.*--max-pixels"):
        read_rgb(path)


# labels


def grey_png(path, ids, bits):
    """A grey PNG of fewer than 8 bits a pixel; Pillow multiplies what it reads."""
    Image.fromarray(ids).save(path, format="PNG", bits=bits)


def palette(path, ids, form, **options):
    image = Image.fromarray(ids)
    image.putpalette([7 * k % 256 for k in range(3 * 16)])
    image.save(path, format=form, **options)


KEPT = {
    "grey PNG": lambda path, ids: Image.fromarray(ids).save(path, format="PNG"),
    "grey PNG of 1 bit": lambda path, ids: grey_png(path, ids, 1),
    "grey PNG of 2 bits": lambda path, ids: grey_png(path, ids, 2),
    "grey PNG of 4 bits": lambda path, ids: grey_png(path, ids, 4),
    "grey PNG of 16 bits": lambda path, ids: Image.fromarray(ids.astype(np.uint16)).save(path, format="PNG"),
    "colour PNG of 16 bits": lambda path, ids: write_png16(path, np.stack([ids, 0 * ids, 0 * ids], -1).astype(int)),
    "palette PNG": lambda path, ids: palette(path, ids, "PNG"),
    "palette PNG of 4 bits": lambda path, ids: palette(path, ids, "PNG", bits=4),
    "TIFF": lambda path, ids: Image.fromarray(ids).save(path, format="TIFF"),
    "TIFF with LZW": lambda path, ids: Image.fromarray(ids).save(path, format="TIFF", compression="tiff_lzw"),
    "TIFF of 16 bits": lambda path, ids: Image.fromarray(ids.astype(np.uint16)).save(path, format="TIFF"),
    "TIFF of 32 bits": lambda path, ids: Image.fromarray(ids.astype(np.int32)).save(path, format="TIFF"),
    "BMP": lambda path, ids: Image.fromarray(ids).save(path, format="BMP"),
    "palette BMP": lambda path, ids: palette(path, ids, "BMP"),
    "GIF": lambda path, ids: palette(path, ids, "GIF"),
    "PGM": lambda path, ids: Image.fromarray(ids).save(path, format="PPM"),
}


@pytest.mark.parametrize("form", KEPT)
def test_ids_come_out_as_they_were_stored(tmp_path, form):
    ids = SIX_BY_EIGHT % {"grey PNG of 1 bit": 2, "grey PNG of 2 bits": 4}.get(form, 16)
    KEPT[form](tmp_path / "labels.png", ids)
    assert np.array_equal(read_ids(tmp_path / "labels.png"), ids)


def four_bit_bmp(path):
    """A grey ramp, which Pillow takes for 8 bits a pixel."""
    head = struct.pack("<IiiHHIIiiII", 40, 8, 6, 1, 4, 0, 0, 0, 0, 16, 0)
    ramp = b"".join(bytes([k, k, k, 0]) for k in range(16))
    rows = b"".join(bytes(a << 4 | b for a, b in zip(row[::2] % 16, row[1::2] % 16)) for row in SIX_BY_EIGHT[::-1])
    path.write_bytes(b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 64) + head + ramp + rows)


def maxval_15(path):
    path.write_bytes(b"P5 8 6 15\n" + (SIX_BY_EIGHT % 16).tobytes())


REFUSED = {
    "JPEG": lambda path: Image.fromarray(SIX_BY_EIGHT).save(path, format="JPEG"),
    "WEBP": lambda path: Image.fromarray(SIX_BY_EIGHT).save(path, format="WEBP"),
    "AVIF": lambda path: Image.fromarray(SIX_BY_EIGHT).save(path, format="AVIF"),
    "JPEG2000": lambda path: Image.fromarray(SIX_BY_EIGHT).save(path, format="JPEG2000"),
    "TIFF with jpeg": lambda path: Image.fromarray(SIX_BY_EIGHT).save(path, format="TIFF", compression="jpeg"),
    "TIFF that stores": lambda path: Image.fromarray(SIX_BY_EIGHT).save(path, format="TIFF", tiffinfo={262: 0}),
    "PPM that stores": maxval_15,
    "BMP that stores": four_bit_bmp,
    "mode RGB": lambda path: Image.fromarray(UPRIGHT).save(path, format="PNG"),
    "mode LA": lambda path: Image.fromarray(SIX_BY_EIGHT).convert("LA").save(path, format="PNG"),
    "mode F": float_tiff,
}


@pytest.mark.parametrize("form", REFUSED)
def test_other_forms_are_refused_by_name(tmp_path, form):
    try:
        REFUSED[form](tmp_path / "labels.png")
    except (KeyError, OSError):
        pytest.skip("this Pillow does not write the form")
    with pytest.raises(ValueError, match=rf"labels\.png: expected an 8-bit map of label ids .*got {form}"):
        read_ids(tmp_path / "labels.png")


@pytest.mark.parametrize("stored", [[-1, 1], [-240, 1], [-(2**31), 3], [200, 1], [70000, 1]])
def test_ids_that_no_class_has_are_named(own, stored):
    """Negative ones among them, which would count from the end of a table."""
    write(own / "images" / "a.png", np.zeros((1, 2, 3), np.uint8))
    write(own / "labels" / "a.tif", np.array([stored], np.int32))
    message = rf"a\.tif: expected raw ids 0-16, 255, got {stored[0]}; list yours in .*classes\.json"
    with pytest.raises(ValueError, match=message):
        open_domain(f"folder:{own}").labels(0)


@pytest.mark.parametrize(
    ("order", "green", "wrong"),
    [
        ([1, 2, 3, 4], 0, ""),
        ([3, 1, 2, 4], 0, "1 has the colour of 3"),  # numbered as they come
        ([1, 2, 4, 3], 0, ""),  # as many right as wrong
        ([3, 1, 2, 4], 9, ""),  # colours of no class say nothing
    ],
)
def test_a_picture_of_the_colours_with_a_palette(own, order, green, wrong):
    """Its pixels are the numbers of its colours, and no ids."""
    write(own / "images" / "a.png", np.zeros((1, 4, 3), np.uint8))
    picture = Image.fromarray(np.array([[1, 2, 3, 4]], np.uint8))
    picture.putpalette([0, 0, 0, *(value for k in order for value in (9 * k, green, 0))])
    (own / "labels").mkdir()
    picture.save(own / "labels" / "a.png")
    domain = open_domain(f"folder:{own}")
    if not wrong:
        assert domain.labels(0).tolist() == [[0, 1, 2, 3]]
        return
    with pytest.raises(ValueError, match=rf"a\.png: expected label ids, got numbers of colours: {wrong}"):
        domain.labels(0)


# folders


def test_files_with_endings_of_no_image_are_said(tmp_path, own):
    write(own / "images" / "a.png", UPRIGHT)
    (own / "images" / "IMG_1.HEIC").write_bytes(b"photograph")
    for look in (lambda: open_domain(f"folder:{own}"), lambda: predict.find_jobs(own / "images", tmp_path / "out")):
        with pytest.warns(UserWarning, match=r"images: 1 of 2 files are passed over, such as IMG_1\.HEIC"):
            assert len(look()) == 1


def test_links_are_followed_and_circles_are_not(tmp_path, own):
    for day, home in (("day1", own), ("day2", tmp_path / "store"), ("day3", tmp_path / "store")):
        write(home / "images" / day / "a.png", UPRIGHT)
        write(home / "labels" / day / "a.png", IDS)
        for sub in ("images", "labels"):
            if home != own:
                os.symlink(home / sub / day, own / sub / day)
    os.symlink(own / "images" / "day1" / "a.png", own / "images" / "day1" / "b.png")
    os.symlink(own / "labels" / "day1" / "a.png", own / "labels" / "day1" / "b.png")
    os.symlink(own / "images", own / "images" / "day1" / "again")
    os.symlink(tmp_path / "store", tmp_path / "store" / "images" / "day2" / "back")
    domain = open_domain(f"folder:{own}")
    found = [str(sample.image.relative_to(own / "images")) for sample in domain.samples]
    assert [name for name in found if "back" not in name] == ["day1/a.png", "day1/b.png", "day2/a.png", "day3/a.png"]
    assert len(found) < 20
    domain = open_domain(f"folder:{os.path.relpath(own)}")
    assert len(domain) == len(found)
    assert images_below(own / "images") == [sample.image for sample in open_domain(f"folder:{own}").samples]
    assert list(predict.find_jobs(own / "images", tmp_path / "out").values()) == images_below(own / "images")


def test_everything_may_be_linked(tmp_path):
    for layout, image, label in (
        ("gta5", "images/1.png", "labels/1.png"),
        ("cityscapes", "leftImg8bit/train/ulm/a_leftImg8bit.png", "gtFine/train/ulm/a_gtFine_labelIds.png"),
    ):
        for file, content in ((image, UPRIGHT), (label, IDS)):
            write(tmp_path / "store" / file, content)
            place = tmp_path / layout / file
            place.parent.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(tmp_path / "store" / file.rpartition("/")[0], place.parent)
        assert len(open_domain(f"{layout}:{tmp_path / layout}")) == 1


@pytest.mark.parametrize("name", ["a.png", "day2"])
def test_broken_links_are_named(own, name):
    write(own / "images" / "b.png", UPRIGHT)
    os.symlink(own / "nowhere", own / "images" / name)
    with pytest.raises(FileNotFoundError, match=rf"{name}: expected a file or a folder, found a link to what is not"):
        open_domain(f"folder:{own}")


def test_broken_links_are_images_that_cannot_be_predicted(tmp_path, own):
    write(own / "images" / "b.png", UPRIGHT).unlink()
    os.symlink(own / "nowhere", own / "images" / "a.png")
    assert list(predict.find_jobs(own / "images", tmp_path / "out").values()) == [own / "images" / "a.png"]


def test_predictions_do_not_go_above_the_images(tmp_path, own):
    write(own / "images" / "a.png", UPRIGHT)
    for out in (own, own / "images"):
        with pytest.raises(ValueError, match=r"--out: expected another folder than that of the images"):
            predict.find_jobs(own / "images", out)


LEFT_BEHIND = [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".thumbnails", "#recycle", "System Volume Information"]


@pytest.mark.parametrize("folder", [*LEFT_BEHIND, ""])
def test_what_systems_leave_behind_is_passed_over(tmp_path, own, folder):
    """In training and in prediction; without a folder a file that macOS adds to each."""
    write(own / "images" / "a.png", UPRIGHT)
    write(own / "labels" / "a.png", IDS)
    name = f"{folder}/a.png" if folder else "._a.png"
    write(own / "images" / name, UPRIGHT)
    write(own / "labels" / name, IDS)
    assert [sample.image.name for sample in open_domain(f"folder:{own}").samples] == ["a.png"]
    assert list(predict.find_jobs(own / "images", tmp_path / "out").values()) == [own / "images" / "a.png"]


@pytest.mark.parametrize(
    ("layout", "image"),
    [
        ("gta5", "images/{}.png"),
        ("synthia", "RGB/{}.png"),
        ("cityscapes", "leftImg8bit/train/{}_leftImg8bit.png"),
        ("acdc", "rgb_anon/fog/train/{}_rgb_anon.png"),
        ("darkzurich", "rgb_anon/train/night/{}_rgb_anon.png"),
    ],
)
def test_it_is_passed_over_in_every_layout(tmp_path, layout, image):
    deep = "" if layout in ("gta5", "synthia") else "ulm/"
    for name in (f"{deep}a", f"{deep}._a", f"{deep or '@eaDir/'}.ipynb_checkpoints/a", f"@eaDir/{deep}a", "@eaDir/a"):
        write(tmp_path / image.format(name), UPRIGHT)
    assert [sample.image for sample in open_domain(f"{layout}:{tmp_path}").samples] == [
        tmp_path / image.format(f"{deep}a")
    ]


def test_folders_that_are_hidden_as_a_whole_are_taken(tmp_path):
    write(tmp_path / ".data" / "images" / "a.png", UPRIGHT)
    assert len(files_below(tmp_path / ".data")) == 1


def test_label_maps_come_before_pictures_of_them(own):
    write(own / "images" / "a.png", UPRIGHT)
    write(own / "labels" / "a.png", IDS)
    write(own / "labels" / "a.jpg", UPRIGHT)
    assert open_domain(f"folder:{own}").samples[0].label.name == "a.png"
