"""Faults of the command and of the files that it names: settings, runs to resume, files that run code."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from place import Place, earlier
from runs import ENDED, Outcome, fault

RESNET = ["--encoder", "resnet18", "--decoder", "deeplabv2"]


class Code:
    """What an attacker puts into a file: unpickled without care, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def settings_faults() -> None:
    wrong = {
        "`--mic-mask-ratio 2`": ["--mic-mask-ratio", "2"],
        "`--crop 0 0`": ["--crop", "0", "0"],
        "`--mrm-grid 0 4`": ["--mrm-grid", "0", "4"],
        "`--threshold 2`": ["--threshold", "2"],
        "`--alpha 1.5`": ["--alpha", "1.5"],
        "`--workers -1`": ["--workers", "-1"],
        "`--seed -1`": ["--seed", "-1"],
        "`--eval-window -3`": ["--eval-window", "-3"],
        "`--lr -1`": ["--lr", "-1"],
        "`--device gpu`": ["--device", "gpu"],
        "`--encoder nope`": ["--encoder", "nope"],
        "`--source` alone": ["--target", ""],
        "a folder that is not there": ["--source", "gta5:/nonexistent"],
        "a layout that is not there": ["--source", "gta7:/nonexistent"],
    }
    for what, words in wrong.items():
        fault("settings", what)(lambda place, words=words: place.train(*words).outcome())


settings_faults()


@fault("settings", "a hub that cannot be reached")
def _(place: Place) -> Outcome:
    place.environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(place.root / "hub")}
    words = [*RESNET, "--encoder-weights", "imagenet"]
    return place.train(*words).outcome()


# resuming


@fault("resuming", "`--resume` of a folder without a run")
def _(place: Place) -> Outcome:
    return place.script("train_mic_mrm.py", "--resume", str(place.root)).outcome()


@fault("resuming", "`--resume` of a run without a checkpoint yet")
def _(place: Place) -> Outcome:
    for path in earlier(place.root).glob("checkpoint*"):
        path.unlink()
    return place.resume().outcome()


@fault("resuming", "settings.json is garbage")
def _(place: Place) -> Outcome:
    (earlier(place.root) / "settings.json").write_text("{half")
    return place.resume().outcome()


@fault("resuming", "`--resume RUN --lr 0.5`, another rate than the run's")
def _(place: Place) -> Outcome:
    earlier(place.root)
    return place.resume("--lr", "0.5").outcome()


@fault("resuming", "`--resume` of another trainer's run")
def _(place: Place) -> Outcome:
    earlier(place.root)
    return place.resume(script="train_dacs_mrm.py").outcome()


@fault("resuming", "a checkpoint of another network")
def _(place: Place) -> Outcome:
    path = earlier(place.root) / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mrm_width": 32}))
    return place.resume().outcome()


@fault("resuming", "the last checkpoint is torn")
def _(place: Place) -> Outcome:
    path = earlier(place.root) / "checkpoint.pt"
    os.truncate(path, path.stat().st_size // 2)
    return place.resume().outcome()


@fault("resuming", "a byte in the last checkpoint is another")
def _(place: Place) -> Outcome:
    path = earlier(place.root) / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    return place.resume().outcome()


@fault("resuming", "both checkpoints are torn")
def _(place: Place) -> Outcome:
    for path in earlier(place.root).glob("checkpoint*.pt"):
        os.truncate(path, path.stat().st_size // 2)
    return place.resume().outcome()


@fault("resuming", "the same run resumed twice at the same moment")
def _(place: Place) -> Outcome:
    run = place.train(iterations=500).until(steps=3)
    outcome = place.resume(folder=run.folder).outcome()
    run.signal(signal.SIGTERM)
    run.wait()
    return outcome


@fault("resuming", "two runs with the same `--out` at the same moment")
def _(place: Place) -> Outcome:
    runs = [place.train("--scenes", str(place.root / "s")) for _ in range(2)]
    ends = [run.outcome() for run in runs]
    return max(ends, key=lambda end: end.status)


@fault("resuming", "an image of the source was added and another removed since the checkpoint")
def _(place: Place) -> Outcome:
    run = place.train(iterations=2)
    run.wait()
    for kind in ("images", "labels"):
        first, second, *_ = sorted(run.data.glob(f"gta5/{kind}/*.png"))
        shutil.copy(first, first.with_name("new.png"))
        second.unlink()
    again = place.resume(folder=run.folder)
    outcome = again.outcome()
    said = [line for line in again.said().splitlines() if "the data have changed" in line]
    outcome.line = said[0] if said else ""
    return outcome.keeping(f"{ENDED}; {outcome.kept}" if outcome.status == 0 else outcome.kept)


# files that people have, in the layout of one's own data


def deep_image(root: Path) -> None:
    Image.fromarray(np.full((48, 96), 4000, np.uint16)).save(root / "images" / "b.png")


def lossy_labels(root: Path) -> None:
    Image.open(root / "labels" / "b.png").save(root / "labels" / "b.png", format="JPEG")


def negative_ids(root: Path) -> None:
    (root / "labels" / "b.png").unlink()
    Image.fromarray(np.full((48, 96), -250, np.int32)).save(root / "labels" / "b.tif")


def turned_image(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn; its labels lie as it is stored
    Image.new("RGB", (96, 48)).save(root / "images" / "b.png", exif=exif)


def broken_link(root: Path) -> None:
    (root / "images" / "day2").symlink_to(root / "nowhere")


def one_class(root: Path) -> None:
    classes = {"classes": [{"name": "road", "ids": [0, 1], "colour": [0, 0, 0]}]}
    (root / "classes.json").write_text(json.dumps(classes))


FILES = {
    "an image of 16 bits a channel": deep_image,
    "labels saved as JPEG under the name .png": lossy_labels,
    "negative label ids in a 32-bit file": negative_ids,
    "a photograph with a quarter turn in its EXIF, labels as it is stored": turned_image,
    "a link among the images that leads nowhere": broken_link,
    "a list of a single class": one_class,
}


def own_data(root: Path) -> str:
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    classes = [{"name": name, "ids": [k], "colour": [k, 0, 0]} for k, name in enumerate(("road", "sky"))]
    (root / "classes.json").write_text(json.dumps({"classes": classes}))
    for name in "ab":
        Image.new("RGB", (96, 48)).save(root / "images" / f"{name}.png")
        Image.fromarray(np.arange(48 * 96, dtype=np.uint8).reshape(48, 96) % 2).save(root / "labels" / f"{name}.png")
    return f"folder:{root}"


def files_faults() -> None:
    for what, spoil in FILES.items():

        def provoke(place: Place, spoil: Callable[[Path], None] = spoil) -> Outcome:
            spec = own_data(place.root / "own")
            spoil(place.root / "own")
            return place.train("--source", spec, "--target", spec).outcome()

        fault("files that people have", what)(provoke)


files_faults()


# downloads that went wrong

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"


def download(place: Place, content: str, name: str = "download.pth") -> str:
    (place.root / name).write_text(content)
    return str(place.root / name)


@fault("files that are something else", "a Git LFS pointer as the checkpoints of `--resume`")
def _(place: Place) -> Outcome:
    for path in earlier(place.root).glob("checkpoint*.pt"):
        path.write_text(POINTER)
    return place.resume().outcome()


@fault("files that are something else", "a Git LFS pointer given to evaluate.py")
def _(place: Place) -> Outcome:
    return place.script("evaluate.py", download(place, POINTER)).outcome()


@fault("files that are something else", "a web page as `--init`")
def _(place: Place) -> Outcome:
    return place.train("--init", download(place, PAGE)).outcome()


@fault("files that are something else", "a web page as `--encoder-weights`")
def _(place: Place) -> Outcome:
    weights = download(place, PAGE, "resnet18.safetensors")
    return place.train(*RESNET, "--encoder-weights", weights).outcome()


# files that run code when they are unpickled


def bait(place: Place, name: str = "bait.pt") -> Path:
    torch.save({"state_dict": Code(place.root / "owned"), "step": 1}, place.root / name)
    return place.root / name


def checked(place: Place, outcome: Outcome) -> Outcome:
    ran = (place.root / "owned").exists()
    return outcome.keeping("THE CODE RAN" if ran else "the code was not run")


@fault("files that run code", "as the checkpoint of `--resume`")
def _(place: Place) -> Outcome:
    folder = earlier(place.root)
    (folder / "checkpoint-previous.pt").unlink(missing_ok=True)
    shutil.copy(bait(place), folder / "checkpoint.pt")
    return checked(place, place.resume().outcome())


def given_bait(place: Place, words: list[str], name: str = "bait.pt", script: str = "train_mic_mrm.py") -> Outcome:
    """Of a trainer whose last word is the file."""
    return checked(place, place.train(*words, str(bait(place, name)), script=script).outcome())


VFM, SMALL_VIT = "train_vfm_mrm.py", ["--encoder", "small_vit", "--decoder", "light"]
TIMM_VIT = ["--encoder", "vit_tiny_patch16_224", "--decoder", "light"]
for what, arguments in {
    "as `--init`": {"words": ["--init"]},
    "as `--encoder-weights`": {"words": [*RESNET, "--encoder-weights"]},
    "as a ViT's `--encoder-weights`": {"words": [*TIMM_VIT, "--encoder-weights"], "script": VFM},
    "as `--init` of VFM-UDA's trainer": {"words": [*SMALL_VIT, "--init"], "name": "bait.ckpt", "script": VFM},
}.items():
    fault("files that run code", what)(partial(given_bait, **arguments))


@fault("files that run code", "given to evaluate.py")
def _(place: Place) -> Outcome:
    return checked(place, place.script("evaluate.py", str(bait(place))).outcome())


@fault("files that run code", "given to predict.py")
def _(place: Place) -> Outcome:
    place.scenes()
    image = next(place.root.glob("scenes/gta5/images/*.png"))
    words = [str(bait(place)), str(image), "--out", str(place.root / "predicted")]
    return checked(place, place.script("predict.py", *words).outcome())
