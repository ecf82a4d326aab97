"""Holds the trainers against the published code of DAFormer, HRDA and MIC: equal numbers, and a step of each timed.

    python benchmarks/official_mic.py PATH/TO/MIC                  # the papers' sizes, batch 1: 20 minutes on 2 cores
    python benchmarks/official_mic.py PATH/TO/MIC --rounds 0       # equal numbers alone: under a minute
    python benchmarks/official_mic.py PATH/TO/MIC --encoder mit_b0 --crop 64 --name tiny

PATH/TO/MIC is a checkout of github.com/lhoyer/MIC; nothing of it is here. It needs mmcv 1.3.7 and a few packages more,
which examples/official_mic/README.md lists, and runs on today's PyTorch as it is.

Equal numbers: MRM is added to a copy of the checkout by examples/official_mic/mrm.patch; then its loss and all its
gradients in one training step are compared with our trainer's, with the same weights, images and masks, in float64.

Times: one training step without MRM, of the checkout as it is and of ours, with the same weights, batch and optimiser,
in an order drawn anew each round. Each measurement has a process of its own, in which a first step is not timed; its
peak memory is the process's. Writes benchmarks/results/official-mic-NAME.json and .md.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from shared.measuring import timed
from shared.official_tree import arguments, build, patched_copy
from shared.provenance import ROOT, made_by, provenance

sys.path.insert(0, str(ROOT / "examples"))

from uda.runtime.meter import peak_memory

COMPARED = ("daformer", "hrda", "mic")
TIMED = ("daformer", "mic")
SIDES = ("official", "ours")
MEASURED = ("seconds", "peak_memory_mib")
PARTS = ("loss", "encoder", "decoder", "Rebuilder")


def compare(checkout: Path) -> list[dict[str, Any]]:
    """Errors of MRM's loss and gradients, one row per method."""
    from shared.official_equality import differences

    with tempfile.TemporaryDirectory() as folder:
        copy = patched_copy(checkout, Path(folder))
        return [{"method": method} | differences(copy, method) for method in COMPARED]


def measure(method: str, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of either side's step, one per round."""
    row: dict[str, Any] = {"method": method, "encoder": args.encoder, "crop": crop_of(method, args)}
    row |= {name: {side: [] for side in SIDES} for name in MEASURED}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"
        alone("weights", method, file, args)
        for round_ in range(args.rounds):
            for side in random.Random(round_).sample(SIDES, 2):
                measured = alone(side, method, file, args)
                for name, value in measured.items():
                    row[name][side].append(value)
                print(f"{method}, {side}: {measured['seconds']:.2f} s", flush=True)
    return row


def alone(side: str, method: str, file: Path, args: argparse.Namespace) -> dict[str, float]:
    """What `print_alone` prints, in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, str(args.checkout), "--alone", side, method, str(file)]
    command += ["--encoder", args.encoder, "--crop", str(args.crop), "--batch-size", str(args.batch_size)]
    done = subprocess.run([*command, "--device", args.device], stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def print_alone(side: str, method: str, file: Path, args: argparse.Namespace) -> None:
    device = torch.device(args.device)
    if side == "weights":
        write_weights(method, file, args)
        return print("{}")
    step = (official_step if side == "official" else our_step)(method, file, args)
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds, _ = timed(step, device)
    print(json.dumps({"seconds": seconds, "peak_memory_mib": peak_memory(device) / 2**20}))


def write_weights(method: str, file: Path, args: argparse.Namespace) -> None:
    """The network's weights, drawn by the official code, and the batch."""
    from shared.overhead_steps import synthetic_batch

    torch.manual_seed(0)
    uda, _ = build(args.checkout, method, args.encoder, crop_of(method, args))
    batch = synthetic_batch(settings_of(method, file, args), uda.num_classes)
    saved = (batch.source_images, batch.source_labels, batch.target_images, batch.target_trusted)
    torch.save({"state_dict": uda.model.state_dict(), "batch": saved}, file)


def official_step(method: str, file: Path, args: argparse.Namespace) -> Callable[[], Any]:
    uda, optimizer = build(args.checkout, method, args.encoder, crop_of(method, args))
    saved = torch.load(file, weights_only=True)
    for model in (uda.model, uda.ema_model, uda.imnet_model):
        model.load_state_dict(saved["state_dict"])
    uda.to(args.device)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # as in ours: every step works on the same network
    batch = arguments(*[t.to(args.device) for t in saved["batch"]])
    return lambda: uda.train_step(batch, optimizer)


def our_step(method: str, file: Path, args: argparse.Namespace) -> Callable[[], Any]:
    from shared.overhead_steps import Bench

    bench = Bench(settings_of(method, file, args))
    bench.keep_only("baseline")
    bench.models.imagenet.load_state_dict(bench.models.network.encoder.state_dict())
    return lambda: bench.step("baseline")


def settings_of(method: str, file: Path, args: argparse.Namespace) -> Any:
    from shared.overhead_steps import Settings
    from uda.settings import preset_values

    crop = crop_of(method, args)
    values = preset_values("paper", method) | {"method": method, "preset": "paper", "device": args.device}
    values |= {"encoder": args.encoder, "crop": (crop, crop), "batch_size": args.batch_size, "init": str(file)}
    return Settings(**values | ({"detail_crop": crop // 2} if values.get("hrda") else {}))


def crop_of(method: str, args: argparse.Namespace) -> int:
    return args.crop * (1 if method == "daformer" else 2)


def table(results: dict[str, Any]) -> str:
    """Markdown: equality, then time and memory."""
    lines = [f"| MRM in | {' | '.join(PARTS)} |", "|---|" + "---|" * len(PARTS)]
    for row in results["equality"]:
        lines.append(f"| {row['method']} | " + " | ".join(f"{row[part]:.1e}" for part in PARTS) + " |")
    lines += [
        "",
        "Errors in float64: of the loss, relative; of the gradients, relative to their standard deviation.",
        "",
    ]
    if results["steps"]:
        lines += ["| step without MRM | official | ours | ours / official | peak memory, official | ours |"]
        lines += ["|---|---|---|---|---|---|", *map(step_line, results["steps"]), ""]
        lines += [f"Medians of {results['rounds']} rounds, in brackets their range; batch {results['batch_size']}."]
    lines += [f"{made_by(results)} mmcv {results['mmcv']}; MIC {results['checkout']}."]
    return "\n".join(lines) + "\n"


def step_line(row: dict[str, Any]) -> str:
    seconds, memory = ({side: statistics.median(row[name][side]) for side in SIDES} for name in MEASURED)
    ratios = [b / a for a, b in zip(*(row["seconds"][side] for side in SIDES))]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    cells = [f"{row['method']}, {row['encoder']}, {row['crop']}", *(f"{seconds[side]:.2f} s" for side in SIDES), ratio]
    return f"| {' | '.join([*cells, *(f'{memory[side] / 1024:.2f} GiB' for side in SIDES)])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="of github.com/lhoyer/MIC")
    parser.add_argument("--rounds", type=int, default=3, help="of timed steps; 0: compare numbers alone")
    parser.add_argument("--methods", nargs="+", choices=TIMED, default=TIMED, help="whose steps are timed")
    parser.add_argument("--encoder", default="mit_b5")
    parser.add_argument("--crop", type=int, default=512, help="DAFormer's, a multiple of 32; MIC's is twice that")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--name", default="", help="of the result files (default: the device)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result files")
    parser.add_argument("--alone", nargs=3, metavar=("SIDE", "METHOD", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        side, method, file = args.alone
        return print_alone(side, method, Path(file), args)

    results = provenance(args.device) | {"rounds": args.rounds, "batch_size": args.batch_size}
    results["command"] = results["command"].replace(str(args.checkout), "PATH/TO/MIC")
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=args.checkout, capture_output=True, text=True)
    results |= {"mmcv": version("mmcv"), "checkout": head.stdout.strip(), "equality": compare(args.checkout)}
    print(*results["equality"], sep="\n", flush=True)
    results["steps"] = [measure(method, args) for method in args.methods] if args.rounds else []
    stem = args.out / f"official-mic-{args.name or args.device}"
    args.out.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    stem.with_suffix(".md").write_text(table(results))
    print(table(results))
    if not all(row[part] < 1e-9 for row in results["equality"] for part in PARTS):
        raise SystemExit("expected errors below 1e-9")


if __name__ == "__main__":
    main()
