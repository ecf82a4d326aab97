"""One run of the study: from the seed's shared start through self-training to one line of results.

    python benchmarks/study/single.py "dacs+mrm" --seed 100            # prints the line
    python benchmarks/study/single.py "dacs+mrm" --seed 100 --try      # 20 steps of everything

Called by run.py, which keeps the lines. The runs of one seed start from the same pre-trained network and optimiser
state, which is trained once; on a CPU a run that starts there is bit-identical to one that was trained in one go.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, Arm
from measure import measure, with_target_statistics
from trainers import (
    ROOT,
    TRAINERS,
    Models,
    Run,
    Settings,
    StepFunction,
    batches,
    batches_of,
    class_iou,
    commit,
    device_name,
    evaluate,
    mean_iou,
    one_step,
    own_rng,
)
from worlds import write_world

TRY = {"pretrain_iterations": 20, "iterations": 20, "eval_every": 10}
# settings that the start does not depend on
LATER = {"iterations", "alpha", "threshold", "out", "eval_every"}


def settings_of(arm: Arm, seed: int, work: Path, **others: Any) -> Settings:
    # float32 is float32 on a GPU too, so that the device is not one more thing that differs
    values: dict[str, Any] = {"method": arm.method, "tf32": False, "seed": seed}
    values |= write_world(arm.scenes, work / "scenes")
    return Settings(**(values | arm.settings | others))


def start_file(arm: Arm, settings: Settings, work: Path) -> Path:
    """Where the start lies that all arms share whose training on the source is the same."""
    values = {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in LATER and not name.startswith(("mrm_", "mic_"))
    }
    key = json.dumps([values, arm.network.__name__ if arm.network else None, commit()], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return work / "starts" / f"{arm.method}-seed{settings.seed}-{digest}.pt"


def open_run(arm: Arm, settings: Settings, folder: Path) -> tuple[Run, StepFunction]:
    """The trainer's run and step function with what the arm changes."""
    student, step_function = TRAINERS[arm.trainer or arm.method]

    def make_student(network: Any, mrm: Any) -> Any:
        if arm.network is not None:
            with own_rng(settings.seed, "changed network"):
                arm.network(network)
        with own_rng(settings.seed, "rebuilder"):
            for change in arm.changes if mrm is not None else ():
                change(mrm)
        return student(network, mrm)

    run = Run(dataclasses.replace(settings, out=str(folder)), make_student)
    return run, arm.step(step_function) if arm.step else step_function


def advance(run: Run, step_function: StepFunction, stop: int) -> None:
    """Trains up to step `stop`."""
    for batch in batches(batches_of(run), run.step, stop, run.settings.workers):
        one_step(run, batch.to(run.device), step_function)
        run.step += 1


def make_start(arm: Arm, settings: Settings, path: Path) -> None:
    """Trains on the source alone and keeps the network and its optimiser's state."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        # without MRM and what the arm makes of a step, which play no part yet
        plain = dataclasses.replace(arm, step=None)
        run, step_function = open_run(plain, dataclasses.replace(settings, mrm_weight=0.0), Path(folder) / "run")
        advance(run, step_function, settings.pretrain_iterations)
        miou = mean_iou(run.evaluate()["student"])
        run.board.close()  # it writes into the folder on its own time
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "network": run.models.student.network.state_dict(),
        "optimizer": run.optimizers[0].state_dict(),
        "miou": miou,
        "seconds": time.perf_counter() - began,
    }
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def load_start(run: Run, start: dict[str, Any]) -> None:
    """The run as it is when self-training begins; the teacher starts from the pre-trained network."""
    models: Models = run.models
    models.student.network.load_state_dict(start["network"])
    models.teacher.load_state_dict(start["network"])
    run.optimizers[0].load_state_dict(start["optimizer"])
    run.step = run.settings.pretrain_iterations


def run_arm(arm: Arm, settings: Settings, start: dict[str, Any]) -> dict[str, Any]:
    """Trains an arm to its end; what it reached there and on the way."""
    began, busy, curve = time.perf_counter(), time.process_time(), []
    with tempfile.TemporaryDirectory() as folder:
        run, step_function = open_run(arm, settings, Path(folder) / "run")
        load_start(run, start)
        if arm.before:
            arm.before(run)
        stops = range(run.step + settings.eval_every, run.total, settings.eval_every)
        for stop in [*stops, run.total]:
            advance(run, step_function, stop)
            measured, confusion = measure(run)
            curve.append({"step": run.step - settings.pretrain_iterations} | measured)
        classes = len(run.models.classes)
        adapted = with_target_statistics(run.models.student.network, run.target, settings.batch_size)
        adapted_miou = mean_iou(evaluate(adapted, run.validation, classes, run.device))
        run.board.close()
    iou = {name: round(v, 2) for name, v in zip(run.models.classes.names, class_iou(confusion).tolist()) if v == v}
    return {
        "student": curve[-1]["student"],
        "teacher": curve[-1]["teacher"],
        "student, target statistics": round(adapted_miou, 3),
        "masked": curve[-1]["masked"],
        "iou": iou,
        "curve": curve,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu seconds": round(time.process_time() - busy, 1),
    }


def prepare(name: str, seed: int, work: Path, device: str, short: bool) -> tuple[Settings, Path]:
    """Writes the scenes, if they are missing; the run's settings and its start's file, which may be missing."""
    settings = settings_of(ARMS[name], seed, work, device=device, **(TRY if short else {}))
    return settings, start_file(ARMS[name], settings, work)


def line_of(name: str, seed: int, work: Path, device: str, short: bool) -> dict[str, Any]:
    """What results/runs.jsonl holds of a run."""
    arm, (settings, path) = ARMS[name], prepare(name, seed, work, device, short)
    if not path.exists():
        make_start(arm, settings, path)
    start = torch.load(path, weights_only=True)
    result = run_arm(arm, settings, start)
    shown = dataclasses.asdict(settings) | {"source": "", "target": "", "scenes": arm.scenes}
    return {
        "arm": name,
        "seed": seed,
        "commit": commit(),
        **result,
        "start": path.stem,
        "start student": round(start["miou"], 3),
        "start seconds": round(start["seconds"], 1),
        "machine": f"{device_name(device)}, {torch.get_num_threads()} thread",
        "torch": torch.__version__,
        "settings": shown,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=list(ARMS), metavar="ARM")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "study", help="scenes and starts are kept here")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--try", action="store_true", dest="short", help="20 steps of everything")
    parser.add_argument("--start", action="store_true", help="make the start alone")
    args = parser.parse_args()
    torch.set_num_threads(1)  # so that numbers do not depend on the cores
    if args.start:
        settings, path = prepare(args.arm, args.seed, args.work, args.device, args.short)
        make_start(ARMS[args.arm], settings, path)
        return
    print(json.dumps(line_of(args.arm, args.seed, args.work, args.device, args.short)))


if __name__ == "__main__":
    main()
