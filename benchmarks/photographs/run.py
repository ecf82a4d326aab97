"""Runs what is missing of the queue, in its order, and keeps one line per run in results/runs.jsonl.

    python benchmarks/photographs/run.py --camvid PATH --idd PATH                 # all, one run per core at a time
    python benchmarks/photographs/run.py --camvid PATH --idd PATH --pairs camvid-idd --arms dacs dacs+mrm --seeds 0
    python benchmarks/photographs/run.py --list                                   # what is missing

Links to the data, weights, drawn scenes and the starts that runs share are made below --work by the run that first
needs them. A run is one process with one thread; what was interrupted is run again from its start. A run that has its
line is not run again: delete the line to do so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from arms import ARMS, QUEUE
from data import PAIRS
from single import add_places, file_name

RESULTS = Path(__file__).parent / "results" / "runs.jsonl"
SINGLE = Path(__file__).with_name("single.py")

# one thread; the process keeps its memory, in large pages, in place of giving it back after every pass: a fifth of a
# step's time, with the same numbers
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "THP_MEM_ALLOC_ENABLE": "1"}
ENVIRONMENT |= {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**28),
}

Job = tuple[str, str, int]  # pair, arm, seed


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def missing(lines: list[dict[str, Any]], pairs: list[str], arms: list[str], seeds: list[int]) -> list[Job]:
    """What has no line yet: of these pairs, arms and seeds, or of the queue where one of the three is not named."""
    if pairs and arms and seeds:
        jobs = [(pair, arm, seed) for pair in pairs for seed in seeds for arm in arms]
    else:
        jobs = [(pair, arm, seed) for pair, names, numbers in QUEUE for seed in numbers for arm in names]
        jobs = [(p, a, s) for p, a, s in jobs if p in (pairs or [p]) and a in (arms or [a]) and s in (seeds or [s])]
    done = {(line["pair"], line["arm"], line["seed"]) for line in lines}
    return [job for job in dict.fromkeys(jobs) if job not in done]


class Runner:
    """Runs jobs, several at a time."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.writing = args, threading.Lock()

    def __call__(self, job: Job) -> str:
        """Returns what went wrong, which must not keep the other runs from theirs."""
        pair, arm, seed = job
        log = self.args.work / "logs" / f"{file_name(pair, arm, seed)}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            done = subprocess.run(
                self.words(job), env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=file, text=True
            )
        if done.returncode:
            last = (log.read_text().splitlines() or [""])[-1]
            return f"{pair}, {arm}, seed {seed}: failed with {done.returncode}: {last}; see {log}"
        line = json.loads(done.stdout.splitlines()[-1])
        with self.writing:
            print(f"{time.strftime('%H:%M')} {pair}, {arm}, seed {seed}: {line['student']:.2f}", flush=True)
            self.args.results.parent.mkdir(parents=True, exist_ok=True)
            with self.args.results.open("a") as results:
                results.write(json.dumps(line) + "\n")
        return ""

    def words(self, job: Job) -> list[str]:
        pair, arm, seed = job
        words = [sys.executable, str(SINGLE), pair, arm, "--seed", str(seed), "--work", str(self.args.work)]
        for option in ("camvid", "idd"):
            path = getattr(self.args, option)
            words += [f"--{option}", str(path)] if path else []
        return [*words, "--set", *self.args.set]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=[], metavar="PAIR")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=[], metavar="ARM")
    parser.add_argument("--seeds", nargs="+", type=int, default=[])
    add_places(parser)
    parser.add_argument("--parallel", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--list", action="store_true", help="what is missing, and stop")
    args = parser.parse_args()
    if args.set and args.results == RESULTS:
        raise SystemExit("--set: expected --results beside it, so that runs of other settings have a file of their own")

    jobs = missing(read_lines(args.results), args.pairs, args.arms, args.seeds)
    if args.list:
        print(*(f"{seed:4d}  {pair:14s} {arm}" for pair, arm, seed in jobs), f"{len(jobs)} runs", sep="\n")
        return
    with ThreadPoolExecutor(args.parallel) as pool:
        failures = list(filter(None, pool.map(Runner(args), jobs)))
    if failures:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main()
