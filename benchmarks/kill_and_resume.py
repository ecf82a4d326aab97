"""Are runs that are killed and resumed the uninterrupted run, bit for bit?

    python benchmarks/kill_and_resume.py                        # 50 kills, and 5 of one of two processes
    python benchmarks/kill_and_resume.py --kills 2 --pairs 2 --out /tmp/few

MIC with MRM is trained on a handful of tiny embedded scenes, by turns without and with processes that load data, and
ended by SIGKILL at a random moment, every third time while a checkpoint is written, which a slow disk makes last. Then
it is resumed and compared with the run that nobody killed: student with its Rebuilder, teacher, optimisers, metrics. Of
two processes one is killed; the other must end by itself. Writes benchmarks/results/kill-and-resume.json and .md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT)]

import torch
import train_mic_mrm
from shared.provenance import made_by, provenance
from uda.runtime import files
from uda.scenes.write import write_scenes
from uda.settings import Settings
from uda.training import loop

RECIPE = dict(crop=(48, 96), mrm_grid=(6, 12), batch_size=2, threshold=0.1, warmup=0, device="cpu")
SCHEDULE = dict(pretrain_iterations=4, iterations=20, save_every=3, eval_every=10, log_every=1)
STEPS = SCHEDULE["pretrain_iterations"] + SCHEDULE["iterations"]
PATIENCE = 180.0  # seconds until a process counts as hung


def start(settings: Settings, *, slow_disk: bool = False, rank: int = 0, world: int = 1, port: int = 0) -> int:
    """Trains in a process of its own, which is forked with everything imported; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        log = os.open(f"{settings.out}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if world > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
        if slow_disk:
            sync = os.fsync
            files.os.fsync = lambda number: (time.sleep(0.1), sync(number), time.sleep(0.1))
        torch.set_num_threads(1)
        loop.report = lambda *_: None  # tables and pictures of the end, which take longer than all steps
        loop.train(settings, train_mic_mrm.train_step)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


def wait(pid: int) -> int:
    """The exit status of a process; -9 where it was killed."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    raise TimeoutError(f"process {pid} hangs")


def run(settings: Settings, world: int = 1, **options: Any) -> list[int]:
    """Starts the processes of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(settings, rank=rank, world=world, port=port, **options) for rank in range(world)]


def kill(settings: Settings, draw: random.Random, *, writing: bool, world: int = 1) -> dict[str, Any]:
    """Kills one process of a run at a random moment; says what it was doing."""
    folder = Path(settings.out)
    pids = run(settings, world, slow_disk=writing)
    part, moment = folder / "checkpoint-new.pt.tmp", draw.randrange(SCHEDULE["save_every"], STEPS - 4)
    deadline = time.monotonic() + PATIENCE
    while lines(folder) < moment or not (folder / "checkpoint.pt").exists() or (writing and not part.exists()):
        assert time.monotonic() < deadline, "it never came to the moment at which it is killed"
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.25))
    victim = pids[0] if writing else draw.choice(pids)  # the first one writes
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    statuses = [wait(pid) for pid in pids]
    assert statuses[pids.index(victim)] == -signal.SIGKILL, "it was over before it was killed"
    return {
        "statuses": statuses,
        "seconds": round(time.monotonic() - killed, 2),
        "half a checkpoint left": any((folder / name).exists() for name in (part.name, "checkpoint-new.pt")),
        "lines": lines(folder),
    }


def lines(folder: Path) -> int:
    """Of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def differences(a: Path, b: Path) -> list[str]:
    """What differs between the ends of two runs, in words."""
    x, y = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (a, b))
    found = [
        f"{part} {key}" for part in ("student", "teacher") for key in x[part] if not same(x[part][key], y[part][key])
    ]
    found += [f"{part}: other keys" for part in ("student", "teacher") if x[part].keys() != y[part].keys()]
    assert any(key.startswith("mrm.") for key in x["student"])  # the Rebuilder is among them
    found += [f"optimizer {k}" for k, (p, q) in enumerate(zip(x["optimizers"], y["optimizers"])) if not same(p, q)]
    if metrics(a) != metrics(b):
        found.append("metrics.jsonl")
    return found


def same(a: Any, b: Any) -> bool:
    """Equality bit for bit, through containers."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def metrics(folder: Path) -> list[dict[str, float]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if "seconds_per_step" not in row]


def trial(place: Path, base: Settings, number: int, workers: int, world: int) -> dict[str, Any]:
    """One run, killed, resumed and compared."""
    draw, writing = random.Random(1000 * world + number), number % 3 == 0
    out = place / f"killed{number}-of{world}"
    settings = dataclasses.replace(base, workers=workers, out=str(out))
    done = kill(settings, draw, writing=writing, world=world)
    statuses = [wait(pid) for pid in run(dataclasses.replace(settings, resume=settings.out), world)]
    whole = place / f"whole-of{world}"
    found = differences(whole, out) if not any(statuses) else [f"resuming ended with {statuses}"]
    shutil.rmtree(out)
    return {"workers": workers, "processes": world, "writing": writing, **done, "differs": found}


def trials(place: Path, base: Settings, count: int, world: int, jobs: int) -> list[dict[str, Any]]:
    """So many of them, several at once."""
    whole = dataclasses.replace(base, out=str(place / f"whole-of{world}"))
    if count and any(wait(pid) for pid in run(whole, world)):
        sys.exit(Path(f"{whole.out}.log").read_text())
    pids = []
    for job in range(jobs):
        pids.append(os.fork())
        if pids[-1] == 0:
            try:
                for number in range(job, count, jobs):
                    one = trial(place, base, number, 2 * (number % 2), world)
                    (place / f"of{world}-{number}.json").write_text(json.dumps(one))
                    print(f"{number + 1} of {count}: {one}", flush=True)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
    for pid in pids:
        os.waitpid(pid, 0)
    return [json.loads((place / f"of{world}-{number}.json").read_text()) for number in range(count)]


def table(results: dict[str, Any]) -> str:
    lines = [
        "| processes | workers | killed | while a checkpoint was written | bit-identical after resuming |",
        "|" + "---|" * 5,
    ]
    trials = results["trials"]
    for world, workers in sorted({(t["processes"], t["workers"]) for t in trials}):
        those = [t for t in trials if (t["processes"], t["workers"]) == (world, workers)]
        writing = sum(t["writing"] for t in those)
        left = sum(t["half a checkpoint left"] for t in those)
        equal = sum(not t["differs"] for t in those)
        lines.append(
            f"| {world} | {workers} | {len(those)} | {writing} ({left} left half of one) | {equal} of {len(those)} |"
        )
    slowest = max((t["seconds"] for t in trials if t["processes"] > 1), default=0.0)
    lines += ["", f"Of two processes, the other ended by itself within {slowest} s."] if slowest else []
    return "\n".join([*lines, "", made_by(results), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="runs of one process (default: 50)")
    parser.add_argument("--pairs", type=int, default=5, help="runs of two processes (default: 5)")
    parser.add_argument("--jobs", type=int, default=2, help="of them at a time (default: 2)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    args = parser.parse_args()
    results: dict[str, Any] = provenance() | {"trials": []}
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        source, target = write_scenes(place / "scenes", source=6, target=6, val=3, size=(48, 96))
        base = Settings(source=f"gta5:{source}", target=f"cityscapes:{target}", **RECIPE, **SCHEDULE)
        for world, count in ((1, args.kills), (2, args.pairs)):
            results["trials"] += trials(place, base, count, world, args.jobs)
    (args.out / "kill-and-resume.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.out / "kill-and-resume.md").write_text(table(results))
    print(table(results))
    sys.exit(any(one["differs"] for one in results["trials"]))


if __name__ == "__main__":
    main()
