"""One run: from the seed's shared start through self-training to one line of results.

    python benchmarks/photographs/single.py drawn-camvid "dacs+mrm" --seed 100 --camvid PATH    # prints the line

Called by run.py, which keeps the lines. The runs of one pair and seed start from the same network, trained on the
source once and kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, COMMON, SETTINGS, Arm
from data import PAIRS, ids_of, write_domain, write_weights
from torch import Tensor
from trainers import (
    ROOT,
    Run,
    Settings,
    StepFunction,
    batches,
    batches_of,
    class_iou,
    commit,
    confusion_matrix,
    dacs_step,
    device_name,
    go_on_with,
    keep,
    mean_iou,
    mic_step,
    normalise,
    one_step,
    open_run,
)

from mrm_loss import frozen_norm_stats

START = 1  # raise it whenever training on the source alone gives another network from the same settings
# settings that a start does not depend on
LATER = {"method", "iterations", "lr", "alpha", "threshold", "balance_labels", "out", "eval_every", "device"}
LATER |= {"source", "target", "encoder_weights", "scenes"}  # a place
WATCHED = 64  # target training images on which the pseudo-labels are compared with the labels


def settings_of(
    pair: str, arm: Arm, seed: int, work: Path, camvid: Path | None, idd: Path | None, **others: Any
) -> Settings:
    source, target, classes = PAIRS[pair]
    places = [f"folder:{write_domain(name, classes, camvid, idd, work)}" for name in (source, target)]
    values: dict[str, Any] = {
        "method": arm.method,
        "seed": seed,
        "source": places[1 if arm.oracle else 0],
        "target": places[1],
        "encoder_weights": str(write_weights(work)),
        "device": "cpu",
        **COMMON,
        **SETTINGS.get(pair, {}),
        **arm.settings,
        **others,
    }
    values["iterations"] = round(values["iterations"] * arm.longer)
    return Settings(**values)


def start_file(pair: str, arm: Arm, settings: Settings, work: Path) -> Path:
    """Where the start lies that all arms share whose training on the source is the same."""
    defaults = dataclasses.asdict(Settings())
    changed = {k: v for k, v in dataclasses.asdict(settings).items() if v != defaults[k]}
    earlier = {k: v for k, v in changed.items() if k not in LATER and not k.startswith(("mrm_", "mic_"))}
    ids = [ids_of(name, PAIRS[pair][2]) for name in PAIRS[pair][:2]]
    key = json.dumps([START, torch.__version__, pair, ids, arm.oracle, earlier], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return work / "starts" / f"{pair}{'-oracle' * arm.oracle}-seed{settings.seed}-{digest}.pt"


def opened(arm: Arm, settings: Settings, work: Path) -> tuple[Run, StepFunction]:
    """The trainers' run with what the arm changes, and their step function."""
    run = open_run(dataclasses.replace(settings, out=str(work / "runs" / uuid.uuid4().hex)))
    if arm.change is not None:
        arm.change(run)
    return run, mic_step if arm.method == "mic" else dacs_step


def advance(run: Run, step_function: StepFunction, stop: int) -> None:
    """Trains up to step `stop`."""
    for batch in batches(batches_of(run), run.step, stop, 0):
        one_step(run, batch, step_function)
        run.step += 1


def make_start(settings: Settings, path: Path, work: Path) -> None:
    """Trains on the source alone and keeps the network and its optimiser's state."""
    began = time.process_time()
    run, step_function = opened(Arm(), dataclasses.replace(settings, method="dacs", mrm_weight=0.0), work)
    advance(run, step_function, settings.pretrain_iterations)
    miou = mean_iou(run.evaluate()["student"])
    run.board.close()
    state = {
        "network": run.models.network.state_dict(),
        "optimizer": run.optimizers[0].state_dict(),
        "miou": miou,
        "seconds": time.process_time() - began,
    }
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def load_start(run: Run, start: dict[str, Any]) -> None:
    """The run as it is when self-training begins; the teacher starts from the same network."""
    run.models.network.load_state_dict(start["network"])
    run.models.teacher.load_state_dict(start["network"])
    go_on_with(run.optimizers[0], start["optimizer"])
    run.step = run.settings.pretrain_iterations


@torch.no_grad()
def watch_labels(run: Run) -> dict[str, Any]:
    """Pseudo-labels on some target training images against the labels, in percent; of the teacher, if there is one.

    accuracy: of all labelled pixels. sure: of those at which the teacher is confident. trust: the share of these.
    classes: accuracy by the label's class.
    """
    has_teacher, classes = run.settings.has_teacher(run.step), run.models.classes
    teacher = run.models.teacher if has_teacher else run.models.network.eval()
    indices = sorted({i * len(run.target) // WATCHED for i in range(WATCHED)})
    total = sure_total = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    sure_pixels = pixels = 0
    size = run.settings.batch_size
    with frozen_norm_stats(teacher):
        for some in (indices[i : i + size] for i in range(0, len(indices) - size + 1, size)):
            images, labels = zip(*(run.target.labelled(i) for i in some))
            probabilities = teacher.predict(normalise(torch.stack(images).float() / 255)).softmax(1)
            confidence, predicted = probabilities.max(1)
            truth, sure = torch.stack(labels).long(), confidence >= run.settings.threshold
            total = total + confusion_matrix(truth, predicted, len(classes))
            sure_total = sure_total + confusion_matrix(torch.where(sure, truth, 255), predicted, len(classes))
            sure_pixels, pixels = sure_pixels + int(sure.sum()), pixels + sure.numel()
    run.models.network.train()
    recall = 100 * total.diag() / total.sum(1)
    return {
        "accuracy": accuracy(total),
        "sure": accuracy(sure_total),
        "trust": round(sure_pixels / pixels, 4),
        "classes": {name: round(v, 2) for name, v in zip(classes.names, recall.tolist()) if v == v},
    }


def accuracy(confusion: Tensor) -> float | None:
    pixels = int(confusion.sum())
    return round(100 * int(confusion.diag().sum()) / pixels, 3) if pixels else None


def file_name(pair: str, name: str, seed: int) -> str:
    """Of a run's files, without the ending."""
    return f"{pair}-{name.replace(' ', '-')}-seed{seed}"


def network_file(pair: str, name: str, seed: int, work: Path) -> Path:
    """Where the network of a run is kept at its end, for picture.py."""
    return work / "networks" / f"{file_name(pair, name, seed)}.pt"


def run_arm(arm: Arm, settings: Settings, start: dict[str, Any], work: Path, kept: Path) -> dict[str, Any]:
    """Trains an arm to its end and keeps the network; what it reached there and on the way."""
    began, busy, curve = time.perf_counter(), time.process_time(), []
    run, step_function = opened(arm, settings, work)
    load_start(run, start)
    trained, whole = 0.0, run.validation
    assert whole is not None
    some = dataclasses.replace(whole, samples=whole.samples[::8])  # what is looked at on the way
    keep(some)
    for stop in [*range(run.step + settings.eval_every, run.total, settings.eval_every), run.total]:
        before = time.process_time()
        advance(run, step_function, stop)
        trained += time.process_time() - before
        run.validation = whole if stop == run.total else some
        confusions = run.evaluate()
        means = {name: round(mean_iou(confusion), 3) for name, confusion in confusions.items()}
        curve.append({"step": run.step - settings.pretrain_iterations} | means | {"labels": watch_labels(run)})
    run.board.close()
    kept.parent.mkdir(parents=True, exist_ok=True)
    torch.save(run.models.network.state_dict(), kept)
    iou = class_iou(confusions["student"]).tolist()
    return {
        "student": curve[-1]["student"],
        "teacher": curve[-1].get("teacher"),
        "iou": {name: round(v, 2) for name, v in zip(run.models.classes.names, iou) if v == v},
        "curve": curve,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu seconds": round(time.process_time() - busy, 1),
        "training seconds": round(trained, 1),
    }


def digest(state: dict[str, Tensor]) -> str:
    whole = hashlib.sha256()
    for name in sorted(state):
        whole.update(state[name].numpy().tobytes())
    return whole.hexdigest()[:12]


def line_of(pair: str, name: str, settings: Settings, work: Path) -> dict[str, Any]:
    """What results/runs.jsonl holds of a run."""
    path = start_file(pair, ARMS[name], settings, work)
    with alone(path.with_suffix(".lock")):
        if not path.exists():
            make_start(settings, path, work)
    start, checked_out = torch.load(path, weights_only=True), commit()
    result = run_arm(ARMS[name], settings, start, work, network_file(pair, name, settings.seed, work))
    return {
        "arm": name,
        "pair": pair,
        "seed": settings.seed,
        "commit": checked_out,
        **result,
        "start": digest(start["network"]),
        "start student": round(start["miou"], 3),
        "start seconds": round(start["seconds"], 1),
        "machine": f"{device_name(settings.device)}, {torch.get_num_threads()} thread",
        "torch": torch.__version__,
        "settings": dataclasses.asdict(settings) | {"source": "", "target": "", "encoder_weights": "lite0"},
    }


def add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--camvid", type=Path, help="CamVid's folder, with train/ and trainannot/")
    parser.add_argument("--idd", type=Path, help="IDD-Lite's folder idd20k_lite")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "photographs", help="links, weights and starts")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings, in JSON; to try")


def given(words: list[str]) -> dict[str, Any]:
    """Settings by --set."""
    values = {name: json.loads(text) for name, text in (word.split("=", 1) for word in words)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time, the others wait: for a file that whoever comes first makes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", choices=list(PAIRS), metavar="PAIR")
    parser.add_argument("arm", choices=list(ARMS), metavar="ARM")
    parser.add_argument("--seed", type=int, default=0)
    add_places(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)  # so that numbers do not depend on the cores
    with alone(args.work / "lock"):
        cfg = settings_of(args.pair, ARMS[args.arm], args.seed, args.work, args.camvid, args.idd, **given(args.set))
    print(json.dumps(line_of(args.pair, args.arm, cfg, args.work)))


if __name__ == "__main__":
    main()
