"""Runs what is missing of the study, in the order of PLAN.md, and keeps one line per run in results/runs.jsonl.

    python benchmarks/study/run.py                                     # everything, one run per core at a time
    python benchmarks/study/run.py --arms dacs dacs+mrm --seeds 21 22  # these alone, of the queue or not
    python benchmarks/study/run.py --list                              # what is missing
    python benchmarks/study/run.py --seconds 3600                      # starts no run after an hour

A run is one process with one thread, on a GPU too (`--device cuda`); runs that are compared with each other should have
run on one device. What was interrupted is run again from its start; a run that has its line is not run again: delete
the line to do so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from arms import ARMS, QUEUE
from single import prepare
from trainers import ROOT

RESULTS = Path(__file__).parent / "results" / "runs.jsonl"
SINGLE = Path(__file__).with_name("single.py")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def missing(lines: list[dict[str, Any]], arms: list[str], seeds: list[int]) -> list[tuple[str, int]]:
    """Arms and seeds without a line, a seed's arms before the next seed's; all of the queue where none are named."""
    done = {(line["arm"], line["seed"]) for line in lines}
    blocks = [("", arms or list(ARMS), seeds)] if arms and seeds else QUEUE
    jobs = [(arm, seed) for _, names, numbers in blocks for seed in numbers for arm in names]
    chosen = [(arm, seed) for arm, seed in jobs if arm in (arms or ARMS) and seed in (seeds or [seed])]
    return [job for job in dict.fromkeys(chosen) if job not in done]


class Runner:
    """Runs jobs, several at a time; runs that share a start wait until one of them has made it."""

    def __init__(self, results: Path, work: Path, device: str, short: bool, seconds: float) -> None:
        self.results, self.work, self.device, self.short = results, work, device, short
        self.deadline = time.monotonic() + seconds
        self.writing, self.starting = threading.Lock(), defaultdict[Path, threading.Lock](threading.Lock)

    def __call__(self, job: tuple[str, int]) -> str:
        """Returns what went wrong, which must not keep the other runs from theirs."""
        name, seed = job
        if time.monotonic() > self.deadline:
            return ""
        with self.writing:  # one writes the scenes
            _, start = prepare(name, seed, self.work, self.device, self.short)
        with self.starting[start]:
            if not start.exists() and (failed := self.call(name, seed, "--start").returncode):
                return f"{name}, seed {seed}: the start failed with {failed}"
        done = self.call(name, seed)
        if done.returncode:
            return f"{name}, seed {seed}: failed with {done.returncode}; see {self.log(name, seed)}"
        line = json.loads(done.stdout.splitlines()[-1])
        with self.writing:
            print(f"{time.strftime('%H:%M')} {name}, seed {seed}: {line['student']:.2f}", flush=True)
            if not self.short:
                self.results.parent.mkdir(parents=True, exist_ok=True)
                with self.results.open("a") as file:
                    file.write(json.dumps(line) + "\n")
        return ""

    def call(self, name: str, seed: int, *flags: str) -> subprocess.CompletedProcess[str]:
        options = ["--seed", str(seed), "--work", str(self.work), "--device", self.device]
        words = [sys.executable, str(SINGLE), name, *options, *flags]
        path = self.log(name, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as log:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            return subprocess.run(
                words + ["--try"] * self.short, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def log(self, name: str, seed: int) -> Path:
        return self.work / "logs" / f"{name.replace(' ', '-')}-seed{seed}.log"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=[], metavar="ARM")
    parser.add_argument("--seeds", nargs="+", type=int, default=[])
    parser.add_argument("--parallel", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, which so many runs share")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no run after so many")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "study", help="scenes, starts and logs")
    parser.add_argument("--list", action="store_true", help="what is missing, and stop")
    parser.add_argument("--try", action="store_true", dest="short", help="20 steps of everything; no line is kept")
    args = parser.parse_args()

    jobs = missing(read_lines(args.results), args.arms, args.seeds)
    if args.list:
        print(*(f"{seed:4d}  {arm}" for arm, seed in jobs), f"{len(jobs)} runs", sep="\n")
        return
    runner = Runner(args.results, args.work, args.device, args.short, args.seconds)
    with ThreadPoolExecutor(args.parallel) as pool:
        failures = list(filter(None, pool.map(runner, jobs)))
    if failures:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main()
