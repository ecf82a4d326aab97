"""What precision, torch.compile and activation checkpointing make of a step's time and memory.

    python benchmarks/modes.py                                    # MIC with MRM on the embedded scenes' network
    python benchmarks/modes.py --device cuda                      # fp16 too
    python benchmarks/modes.py --preset paper --batch-size 2      # MIC on HRDA, MiT-B5, crops of 1024

Every mode runs in processes of its own, in turn: the trainers' own step with both optimisers' updates, on one batch of
noise, after the warm-up. Times are medians over all steps of all rounds with their range; memory is the process's peak:
allocated on CUDA, else resident (compilers included). Writes benchmarks/results/modes-NAME.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from shared.overhead_steps import Bench
from shared.provenance import ROOT, made_by, provenance
from uda.runtime.meter import forget_peak, peak_memory
from uda.settings import Settings, preset_values

MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "compile": {"compile": True},
    "bf16, compile": {"precision": "bf16", "compile": True},
    "checkpointing": {"checkpoint_activations": True},
    "bf16, checkpointing": {"precision": "bf16", "checkpoint_activations": True},
}
ON_CUDA = ("fp16",)  # fp16 is emulated on CPUs


def settings_for(mode: str, args: argparse.Namespace) -> Settings:
    values = preset_values(args.preset, args.method) | {"method": args.method, "preset": args.preset}
    values |= {"batch_size": args.batch_size} if args.batch_size else {}
    return Settings(**values | {"device": args.device} | MODES[mode])


def alone(mode: str, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the steps, of the first one and the peak in MiB, of a process of its own."""
    words = ["--preset", args.preset, "--method", args.method, "--device", args.device, "--alone", mode]
    words += ["--batch-size", str(args.batch_size), "--warmup", str(args.warmup), "--steps", str(args.steps)]
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def print_alone(mode: str, args: argparse.Namespace) -> None:
    bench = Bench(settings_for(mode, args))
    bench.keep_only("mrm")
    bench.make_optimizer_states()
    seconds = []
    for number in range(args.warmup + args.steps):
        if number == args.warmup:
            forget_peak(bench.device)
        seconds.append(bench.seconds(lambda: bench.step("mrm"))[0])
    measured = {"first": seconds[0], "seconds": seconds[args.warmup :], "peak": peak_memory(bench.device) / 2**20}
    print(json.dumps(measured))


def table(results: dict[str, Any]) -> str:
    """A row per mode; relative figures are to fp32."""
    rows, images = results["modes"], results["batch_size"]
    fp32 = statistics.median(rows["fp32"]["seconds"]), rows["fp32"]["peak"]
    lines = [
        f"{results['method']} with MRM, {results['network']}, crops {results['crop'][0]} x {results['crop'][1]}, "
        f"batch {images} of each domain\n",
        "| mode | s per step (range) | images/s | time / fp32's | peak MiB | memory / fp32's | first step, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for mode, row in rows.items():
        seconds = statistics.median(row["seconds"])
        lines.append(
            f"| {mode} | {seconds:.3f} ({min(row['seconds']):.3f} to {max(row['seconds']):.3f}) | "
            f"{images / seconds:.2f} | {seconds / fp32[0]:.2f} | {row['peak']:.0f} | {row['peak'] / fp32[1]:.2f} | "
            f"{row['first']:.1f} |"
        )
    return "\n".join([*lines, "", made_by(results)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("small", "paper"), default="small")
    parser.add_argument("--method", choices=("dacs", "daformer", "hrda", "mic"), default="mic")
    parser.add_argument("--batch-size", type=int, default=0, help="0: the preset's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="default: all that the device has")
    parser.add_argument("--rounds", type=int, default=3, help="processes per mode")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of each")
    parser.add_argument("--warmup", type=int, default=3, help="steps of each before those")
    parser.add_argument("--name", default="", help="of the result files (default: METHOD-PRESET-DEVICE)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result files")
    parser.add_argument("--alone", choices=MODES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        return print_alone(args.alone, args)
    modes = args.modes or [mode for mode in MODES if args.device.startswith("cuda") or mode not in ON_CUDA]
    if min(args.rounds, args.steps, args.warmup) < 1 or "fp32" not in modes:
        parser.error("expected at least one round, step and step of warm-up, and fp32 among the modes")

    cfg = settings_for("fp32", args)
    results = provenance(args.device) | {
        "method": args.method,
        "network": f"{cfg.encoder}, {cfg.decoder}{', HRDA' if cfg.hrda else ''}",
        "crop": list(cfg.crop),
        "batch_size": cfg.batch_size,
        "modes": {},
    }
    rows: dict[str, Any] = results["modes"]
    stem = args.out / f"modes-{args.name or f'{args.method}-{args.preset}-{args.device}'}"
    args.out.mkdir(parents=True, exist_ok=True)
    for round_ in range(args.rounds):
        for mode in modes:
            measured = alone(mode, args)
            print(f"round {round_ + 1}, {mode}: {statistics.median(measured['seconds']):.3f} s", flush=True)
            row = rows.setdefault(mode, {"seconds": [], "peak": 0.0, "first": measured["first"]})
            row["seconds"] += measured["seconds"]
            row["peak"] = max(row["peak"], measured["peak"])
            stem.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    stem.with_suffix(".md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
