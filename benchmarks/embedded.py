"""Trains the methods with and without MRM on the embedded street scenes, paired by seed, and makes the table.

    python benchmarks/embedded.py                            # 3 seeds, 16 arms: about four hours on 2 cores
    python benchmarks/embedded.py --arms dacs dacs+mrm --seeds 4 5 --name more-seeds

Runs that have ended are kept and not run again; interrupted ones go on. The runs of one seed see the same data, mixes
and augmentations. Writes benchmarks/results/NAME.json, NAME.md and, where dacs+mrm is among the arms, NAME.png: the
pictures of its first run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shared.provenance import ROOT, commit, made_by, provenance

ARMS = {
    "source-only": ["train_dacs_mrm.py", "--method", "source-only"],
    "dacs": ["train_dacs_mrm.py", "--mrm-weight", "0"],
    "dacs+mrm": ["train_dacs_mrm.py"],
    # the control: the same pass over augmented target images, with nothing masked and so nothing rebuilt
    "dacs+nothing-masked": ["train_dacs_mrm.py", "--mrm-mask-ratio", "1e-9"],
    "dacs+mrm-mixed": ["train_mic_mrm.py", "--method", "dacs", "--mrm-on", "mixed"],
    "daformer": ["train_mic_mrm.py", "--method", "daformer", "--mrm-weight", "0"],
    "daformer+mrm": ["train_mic_mrm.py", "--method", "daformer"],
    "hrda": ["train_mic_mrm.py", "--method", "hrda", "--mrm-weight", "0"],
    "hrda+mrm": ["train_mic_mrm.py", "--method", "hrda"],
    "mic": ["train_mic_mrm.py", "--mrm-weight", "0"],
    "mic+mrm": ["train_mic_mrm.py"],
    "mic+mrm-mixed": ["train_mic_mrm.py", "--mrm-on", "mixed"],
    "mic+mrm-masked": ["train_mic_mrm.py", "--mrm-on", "masked"],
    # on a small vision transformer instead of the small convolutional network
    "vfm": ["train_vfm_mrm.py", "--mrm-weight", "0"],
    "vfm+mrm": ["train_vfm_mrm.py"],
}
# what each arm is compared with
BASE = {"dacs": "source-only"} | {f"{name}+mrm": name for name in ("dacs", "daformer", "hrda", "mic", "vfm")}
BASE |= {"dacs+nothing-masked": "dacs", "dacs+mrm-mixed": "dacs"}
BASE |= {"mic+mrm-mixed": "mic", "mic+mrm-masked": "mic"}


def run_arm(name: str, seed: int, folder: Path) -> str:
    """One training in a process of its own, with one thread, so that numbers do not depend on the cores.

    Returns what went wrong, which must not keep the other runs from theirs.
    """
    out = folder / f"{name}-seed{seed}"
    if (out / "result.json").exists():
        return ""
    script, *flags = ARMS[name]
    flags += ["--seed", str(seed), "--out", str(out), "--scenes", str(folder / "scenes")]
    if (out / "checkpoint.pt").exists():
        flags = ["--resume", str(out)]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}-seed{seed}.commit").write_text(commit())
    with (folder / f"{name}-seed{seed}.log").open("w") as log:
        command = [sys.executable, str(ROOT / "examples" / script), *flags]
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)
    if done.returncode:
        return f"{name} with seed {seed} failed; see {log.name}"
    print(f"{name} seed {seed}: {json.loads((out / 'result.json').read_text())['miou']}", flush=True)
    return ""


def collect(folder: Path, arms: list[str], seeds: list[int]) -> dict[str, Any]:
    """The results of all arms and seeds with what is needed to run them again."""
    runs = {arm: [json.loads((folder / f"{arm}-seed{s}" / "result.json").read_text()) for s in seeds] for arm in arms}
    commits = {arm: [(folder / f"{arm}-seed{s}.commit").read_text().strip() for s in seeds] for arm in arms}
    first = runs[arms[0]][0]
    ran = {"machine": f"{first['device']}, {first['threads']} thread per run", "torch": first["torch"]}
    return {
        **provenance(),
        **ran,
        "seeds": seeds,
        "arms": {
            arm: {
                "command": " ".join(ARMS[arm]),
                "commits": commits[arm],
                "student": [run["miou"]["student"] for run in results],
                "teacher": [run["miou"]["teacher"] for run in results],
                "iou": [run["iou"]["student"] for run in results],
            }
            for arm, results in runs.items()
        },
    }


def table(results: dict[str, Any]) -> str:
    """Mean and standard deviation over seeds, and the difference to each arm's baseline, paired by seed."""
    lines = ["| method | student mIoU | teacher mIoU | difference, paired by seed |", "|---|---|---|---|"]
    arms = results["arms"]
    for name, arm in arms.items():
        difference = ""
        base = BASE.get(name)
        if base in arms:
            deltas = [a - b for a, b in zip(arm["student"], arms[base]["student"])]
            difference = f"{spread(deltas, signed=True)} over {base} ({', '.join(f'{d:+.2f}' for d in deltas)})"
        lines.append(f"| {name} | {spread(arm['student'])} | {spread(arm['teacher'])} | {difference} |")
    seeds = ", ".join(map(str, results["seeds"]))
    note = f"Seeds {seeds}; mean ± standard deviation; each run's own commit is in the JSON file."
    return "\n".join([*lines, "", note, "", made_by(results), ""])


def spread(values: list[float], signed: bool = False) -> str:
    mean = f"{statistics.mean(values):+.2f}" if signed else f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--name", default="embedded", help="of the result files in benchmarks/results")
    parser.add_argument("--folder", type=Path, default=Path("runs/embedded"), help="of the runs")
    parser.add_argument("--parallel", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    args = parser.parse_args()

    sys.path.insert(0, str(ROOT / "examples"))
    from uda.scenes.write import write_scenes

    write_scenes(args.folder / "scenes")
    with ThreadPoolExecutor(args.parallel) as pool:
        jobs = [(arm, s) for s in args.seeds for arm in args.arms]
        failures = [failure for failure in pool.map(lambda job: run_arm(*job, args.folder), jobs) if failure]
    if failures:
        raise SystemExit("\n".join(failures))
    results = collect(args.folder, args.arms, args.seeds)
    out = ROOT / "benchmarks" / "results"
    out.mkdir(exist_ok=True)
    (out / f"{args.name}.json").write_text(json.dumps(results, indent=2) + "\n")
    (out / f"{args.name}.md").write_text(table(results))
    if "dacs+mrm" in args.arms:
        shutil.copy(args.folder / f"dacs+mrm-seed{args.seeds[0]}" / "panel.png", out / f"{args.name}.png")
    print(table(results))


if __name__ == "__main__":
    main()
