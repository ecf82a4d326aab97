"""Faults in the middle of a run: data, processes, signals, disks, training itself."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

from place import Place, earlier
from runs import ENDED, Outcome, Started, fault

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
                run = place.train(workers=workers, iterations=500).until(steps=3)
                for path in run.data.glob(f"gta5/{kind}/*.png"):
                    act(path)
                return run.outcome()

            fault(f"data, {workers} workers", f"{what} in the middle of the run")(provoke)


data_faults()


def never_answers(place: Place, workers: int) -> Outcome:
    """A named pipe that nobody writes to takes as long as a lost file server."""
    run = place.train(workers=workers, iterations=500).until(steps=3)
    for path in run.data.glob("gta5/images/*.png"):
        path.unlink()
        os.mkfifo(path)
    time.sleep(3)
    run.signal(signal.SIGTERM)
    return run.outcome()


for workers in (0, 2):
    what = "images that a file server does not answer for, then SIGTERM"
    fault(f"data, {workers} workers", what)(partial(never_answers, workers=workers))


# shared memory


@fault("shared memory", "too small for a batch, 2 workers")
def _(place: Place) -> Outcome:
    return place.train("--crop", "144", "192", workers=2, shared_memory="1500k").outcome()


@fault("shared memory", "too small for the batches that 2 workers load ahead")
def _(place: Place) -> Outcome:
    return place.train("--crop", "144", "192", workers=2, iterations=500, shared_memory="5m").outcome()


@fault("shared memory", "the same, `--dry-run`")
def _(place: Place) -> Outcome:
    return place.train("--crop", "144", "192", "--dry-run", workers=2, shared_memory="5m").outcome()


@fault("shared memory", "a process that loads data gets a bus error, as a page that cannot be had leads to it")
def _(place: Place) -> Outcome:
    run = place.train(workers=2, iterations=500).until(steps=3)
    os.kill(run.children()[0], signal.SIGBUS)
    return run.outcome()


# output


CLASSES = {
    "classes": [
        {"name": "straße $a_$", "ids": list(range(7, 11)), "colour": [200, 0, 0]},
        {"name": "木", "ids": list(range(11, 34)), "colour": [0, 200, 0]},
    ],
    "ignore": list(range(7)),
}


def own_classes(place: Place) -> Path:
    """The scenes of the source as somebody's own data, with names of classes that few terminals can show."""
    data = place.root / "straße 木 data"
    for split in ("train", "val"):
        shutil.copytree(place.scenes()[0], data / split)
    (data / "classes.json").write_text(json.dumps(CLASSES), encoding="utf-8")
    return data


def printed(run: Started) -> Outcome:
    """Of a run that goes on to its end and leaves all its files, whatever it could print."""
    outcome = run.outcome()
    files = ("result.json", "curves.png", "panel.png")
    whole = outcome.status == 0 and all((run.folder / name).exists() for name in files)
    outcome.line = outcome.line or "nothing, there is no place for it"
    return outcome.keeping(f"{ENDED}; {', '.join(files)}" if whole else outcome.kept)


@fault("output", "class names and paths that the terminal's encoding lacks")
def _(place: Place) -> Outcome:
    place.environment |= {"PYTHONIOENCODING": "ascii"}
    data = own_classes(place)
    words = ["--source", f"folder:{data}", "--target", f"folder:{data}"]
    return printed(place.train(*words, iterations=2, out=place.root / "straße 木"))


@fault("output", "whoever reads it goes away (`| head -n 1`)")
def _(place: Place) -> Outcome:
    return printed(place.train(iterations=2, output="2>&1 | head -n 1"))


@fault("output", "the disk that it goes to is full")
def _(place: Place) -> Outcome:
    return printed(place.train(iterations=2, output="> /dev/full 2>&1"))


# processes and signals


@fault("processes", "a process that loads data is killed")
def _(place: Place) -> Outcome:
    run = place.train(workers=2, iterations=500).until(steps=3)
    os.kill(run.children()[0], signal.SIGKILL)
    return run.outcome()


@fault("processes", "the run is killed between its last checkpoint and its end, and resumed")
def _(place: Place) -> Outcome:
    run = place.train(iterations=2)
    run.until(lambda: (run.folder / "result.json").exists())  # the final evaluation's line is there
    run.signal(signal.SIGKILL, group=True)
    run.wait()
    outcome = place.resume(folder=run.folder).outcome()
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    times = sum("miou_student" in row and row["step"] == 3 for row in rows)
    return outcome.keeping(f"{ENDED}; the final evaluation's line {'once' if times == 1 else f'LEFT {times} times'}")


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
    run = place.two(torchrun=True, workers=2, iterations=500).until(steps=3)
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
        "evaluate.py",
        str(place.root / "ended"),
        "--target",
        f"cityscapes:{target}",
        "--json",
        str(place.root / "x.json"),
    )
    run.until(lambda: "images of val" in run.said())
    run.signal(signal.SIGTERM)
    return run.outcome()


# disks


@fault("disks", "full when a checkpoint is written")
def _(place: Place) -> Outcome:
    run = place.train(iterations=500, disk=16).until(steps=3)  # past the evaluation of step 1
    place.fill(leave=100_000)
    return run.outcome()


@fault("disks", "full when metrics are written")
def _(place: Place) -> Outcome:
    run = place.train("--save-every", "500", iterations=500, disk=64)
    run.until(steps=3)  # past the evaluation of step 1
    place.fill()
    with (run.folder / "metrics.jsonl").open("ab") as file:  # what is left of its last block
        file.write(b"\n" * (-file.tell() % 4096))
    return run.outcome()


@fault("disks", "full when the pictures are drawn")
def _(place: Place) -> Outcome:
    run = place.train(iterations=2, disk=32)
    run.until(lambda: (run.folder / "result.json").exists())
    place.fill()
    return run.outcome()


@fault("disks", "full when predictions are written")
def _(place: Place) -> Outcome:
    place.scenes()
    place.mount(1)
    place.fill()
    words = [
        str(place.root / "ended"),
        str(place.root / "scenes" / "gta5" / "images"),
        "--out",
        str(place.disk / "out"),
    ]
    return place.script("predict.py", *words).outcome()


@fault("disks", "a folder that the user may not write to")
def _(place: Place) -> Outcome:
    (place.root / "closed").mkdir(mode=0o555)
    return place.train(user_rights=True, out=place.root / "closed" / "run").outcome()


@fault("disks", "resuming in a folder that the user may not write to")
def _(place: Place) -> Outcome:
    folder = earlier(place.root)
    subprocess.run(["chmod", "-R", "a-w", str(folder)], check=True)
    return place.resume(user_rights=True).outcome()


# training that fails


@fault("training", "an absurd rate: losses are no longer finite")
def _(place: Place) -> Outcome:
    words = ["--lr", "1e30", "--optimizer", "sgd", "--pretrain-iterations", "0"]
    return place.train(*words, iterations=500).until(steps=1).outcome()


@fault("training", "an absurd rate, 2 workers, two processes")
def _(place: Place) -> Outcome:
    words = ["--lr", "1e30", "--optimizer", "sgd", "--pretrain-iterations", "0"]
    return place.two(*words, torchrun=False, workers=2, iterations=500).until(steps=1).outcome()


@fault("training", "no memory for a step")
def _(place: Place) -> Outcome:
    run = place.train("--batch-size", "200")
    run.until(run.folder.exists)
    pages = int(Path(f"/proc/{run.process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 200_000_000
    resource.prlimit(run.process.pid, resource.RLIMIT_AS, (limit, limit))
    return run.outcome()
