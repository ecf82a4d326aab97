"""The faults of benchmarks/faults.py: what each does to a run, and how the run is started."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fault_runs import Fault, Outcome, Place

FAULTS: list[Fault] = []


def fault(group: str, what: str) -> Callable[[Callable[[Place], Outcome]], Callable[[Place], Outcome]]:
    """Adds a function to the table under this description."""

    def add(provoke: Callable[[Place], Outcome]) -> Callable[[Place], Outcome]:
        FAULTS.append(Fault(group, what, provoke))
        return provoke

    return add


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


# resuming


def earlier(place: Path) -> Path:
    """A copy of a short run that has ended."""
    return shutil.copytree(place / "ended", place / "resumed", dirs_exist_ok=False)


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


@fault("files that run code", "as `--init`")
def _(place: Place) -> Outcome:
    return checked(place, place.train("--init", str(bait(place))).outcome())


@fault("files that run code", "as `--encoder-weights`")
def _(place: Place) -> Outcome:
    words = ["--encoder", "resnet18", "--decoder", "deeplabv2", "--encoder-weights", str(bait(place))]
    return checked(place, place.train(*words).outcome())


@fault("files that run code", "given to evaluate.py")
def _(place: Place) -> Outcome:
    return checked(place, place.script("evaluate.py", str(bait(place))).outcome())


@fault("files that run code", "given to predict.py")
def _(place: Place) -> Outcome:
    image = next(place.root.glob("scenes/gta5/images/*.png"))
    words = [str(bait(place)), str(image), "--out", str(place.root / "predicted")]
    return checked(place, place.script("predict.py", *words).outcome())


# data


def data_faults() -> None:
    def truncate(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    def other_ids(path: Path) -> None:
        from PIL import Image

        Image.new("RGB", (96, 48)).save(path)

    harm = {
        "images cut off": ("images", truncate),
        "images without content": ("images", lambda path: os.truncate(path, 0)),
        "images that vanish": ("images", Path.unlink),
        "labels in colours": ("labels", other_ids),
    }
    for workers in (0, 2):
        for what, (kind, act) in harm.items():

            def provoke(place: Place, kind: str = kind, act: Any = act, workers: int = workers) -> Outcome:
                run = place.train(workers=workers, iterations=500, own_data=True).until(steps=3)
                for path in run.data.glob(f"gta5/{kind}/*.png"):
                    act(path)
                return run.outcome()

            fault(f"data, {workers} workers", f"{what} in the middle of the run")(provoke)


data_faults()


@fault("data, 0 workers", "images that a file server does not answer for, then SIGTERM")
def _(place: Place) -> Outcome:
    return never_answers(place, 0)


@fault("data, 2 workers", "images that a file server does not answer for, then SIGTERM")
def _(place: Place) -> Outcome:
    return never_answers(place, 2)


def never_answers(place: Place, workers: int) -> Outcome:
    """A named pipe that nobody writes to takes as long as a lost file server."""
    run = place.train(workers=workers, iterations=500, own_data=True).until(steps=3)
    for path in run.data.glob("gta5/images/*.png"):
        path.unlink()
        os.mkfifo(path)
    time.sleep(3)
    run.signal(signal.SIGTERM)
    return run.outcome()


# processes and signals


@fault("processes", "a process that loads data is killed")
def _(place: Place) -> Outcome:
    run = place.train(workers=2, iterations=500).until(steps=3)
    os.kill(run.children()[0], signal.SIGKILL)
    return run.outcome()


def one_of_two(place: Place, torchrun: bool, number: int) -> Outcome:
    run = place.two(torchrun=torchrun, iterations=500).until(steps=3)
    os.kill(run.ranks()[number], signal.SIGKILL)
    return run.outcome()


@fault("processes", "one of two is killed, under torchrun")
def _(place: Place) -> Outcome:
    return one_of_two(place, True, 1)


@fault("processes", "one of two is killed, started by hand (gloo)")
def _(place: Place) -> Outcome:
    return one_of_two(place, False, 1)


@fault("processes", "the first of two is killed, started by hand (gloo)")
def _(place: Place) -> Outcome:
    return one_of_two(place, False, 0)


@fault("processes", "one of two cannot read an image, under torchrun, 2 workers each")
def _(place: Place) -> Outcome:
    run = place.two(torchrun=True, workers=2, iterations=500, own_data=True).until(steps=3)
    for path in run.data.glob("gta5/images/*.png"):
        os.truncate(path, 100)
    return run.outcome()


def signal_faults() -> None:
    for workers in (0, 2):
        for number in (signal.SIGTERM, signal.SIGINT):

            def provoke(place: Place, workers: int = workers, number: int = number) -> Outcome:
                run = place.train(workers=workers, iterations=500).until(steps=3)
                run.signal(number, group=True)
                return run.outcome()

            name = signal.Signals(number).name
            fault("signals", f"{name} to all processes of the run, in training, {workers} workers")(provoke)


signal_faults()


@fault("signals", "SIGTERM twice")
def _(place: Place) -> Outcome:
    run = place.train(workers=2, iterations=500).until(steps=3)
    run.signal(signal.SIGTERM)
    time.sleep(0.02)
    run.signal(signal.SIGTERM)
    return run.outcome()


@fault("signals", "SIGTERM to two processes under torchrun")
def _(place: Place) -> Outcome:
    run = place.two(torchrun=True, iterations=500).until(steps=3)
    run.signal(signal.SIGTERM)
    return run.outcome()


@fault("signals", "SIGTERM in the middle of an evaluation")
def _(place: Place) -> Outcome:
    run = place.train("--eval-every", "2", "--save-every", "500", val=400, iterations=500)
    run.until(lambda: (run.folder / "checkpoint.pt").exists())  # which is saved before
    time.sleep(0.5)
    run.signal(signal.SIGTERM)
    return run.outcome()


@fault("signals", "SIGTERM while the pictures are drawn")
def _(place: Place) -> Outcome:
    run = place.train(iterations=2)
    run.until(lambda: (run.folder / "result.json").exists())
    run.signal(signal.SIGTERM)
    return run.outcome()


@fault("signals", "SIGTERM while the scenes are written")
def _(place: Place) -> Outcome:
    scenes = place.root / "new-scenes"
    run = place.train("--source", "", "--target", "", "--scenes", str(scenes))
    run.until(lambda: len(list(scenes.glob("gta5/images/*.png"))) > 3)
    run.signal(signal.SIGTERM)
    return run.outcome().keeping(f"{len(list(scenes.rglob('*.png')))} whole files, completed by the next run")


@fault("signals", "SIGTERM to evaluate.py")
def _(place: Place) -> Outcome:
    target = place.scenes(val=400)[1]
    run = place.script(
        "evaluate.py", str(place.root / "ended"), "--target", f"cityscapes:{target}", "--json", "/tmp/x.json"
    )
    run.until(lambda: "images of val" in run.said())
    run.signal(signal.SIGTERM)
    return run.outcome()


# disks


@fault("disks", "full when a checkpoint is written")
def _(place: Place) -> Outcome:
    run = place.train(iterations=500, disk=16).until(lambda: (place.disk / "run" / "checkpoint.pt").exists())
    place.fill(leave=100_000)
    return run.outcome()


@fault("disks", "full when metrics are written")
def _(place: Place) -> Outcome:
    run = place.train("--save-every", "3", iterations=500, disk=64)
    run.until(lambda: (place.disk / "run" / "checkpoint.pt").exists())
    size = (run.folder / "metrics.jsonl").stat().st_size
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (size, size))
    return run.outcome()


@fault("disks", "full when the pictures are drawn")
def _(place: Place) -> Outcome:
    run = place.train(iterations=2, disk=32)
    run.until(lambda: (run.folder / "result.json").exists())
    place.fill()
    return run.outcome()


@fault("disks", "full when predictions are written")
def _(place: Place) -> Outcome:
    place.mount(1)
    place.fill()
    words = [
        str(place.root / "ended"),
        str(place.root / "scenes" / "gta5" / "images"),
        "--out",
        str(place.disk / "out"),
    ]
    return place.script("predict.py", *words).outcome()


@fault("disks", "a folder that an unprivileged user cannot write to")
def _(place: Place) -> Outcome:
    (place.root / "closed").mkdir(mode=0o555)
    return place.train(user="nobody", out=place.root / "closed" / "run").outcome()


@fault("disks", "resuming in a folder that an unprivileged user cannot write to")
def _(place: Place) -> Outcome:
    folder = earlier(place.root)
    subprocess.run(["chmod", "-R", "a-w", str(folder)], check=True)
    return place.resume(user="nobody").outcome()


# training that fails


@fault("training", "an absurd rate: losses are no longer finite")
def _(place: Place) -> Outcome:
    return place.train("--lr", "1e30", "--optimizer", "sgd", "--pretrain-iterations", "0", iterations=500).outcome()


@fault("training", "an absurd rate, 2 workers, two processes")
def _(place: Place) -> Outcome:
    words = ["--lr", "1e30", "--optimizer", "sgd", "--pretrain-iterations", "0"]
    return place.two(*words, torchrun=False, workers=2, iterations=500).outcome()


@fault("training", "no memory for a step")
def _(place: Place) -> Outcome:
    run = place.train("--batch-size", "200")
    run.until(run.folder.exists)
    pages = int(Path(f"/proc/{run.process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 200_000_000
    resource.prlimit(run.process.pid, resource.RLIMIT_AS, (limit, limit))
    return run.outcome()
