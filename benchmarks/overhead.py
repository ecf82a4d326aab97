"""What MRM costs per training step, against the same step without it.

    python benchmarks/overhead.py --quick                                 # embedded size, under 2 minutes on 2 cores
    python benchmarks/overhead.py --preset paper --device cuda            # the papers' networks and crops
    python benchmarks/overhead.py --preset paper --device cpu --batch-size 1 --derive --repeats 4 --warmup 0  # 25 min
    python benchmarks/overhead.py --preset paper --methods vfm ...        # VFM-UDA; commands in examples/vfm.md

Steps of all arms alternate in one process, on one network, with one batch, through the trainers' own step function:
"baseline" without MRM, "again" the same once more (the benchmark's own noise), "mrm" as in the paper, "mask-only" with
--mrm-mask-only, "mixed" and "masked" on features that the step has anyway, and "floor" with the Rebuilder replaced by
the identity, which nothing that sends target features through encoder and decoder can undercut. With --derive only the
baseline is run; to each of its steps the separately timed parts that an arm adds are added ("mask-only", which adds
projectors and a copy of the features to the floor, is left out). With --repeats 0 only one step of "baseline", "mrm",
"mask-only" and "masked" each is run, in a process of its own.

Overheads are medians of per-round ratios with 95 % bootstrap intervals, or ranges below 6 rounds. Peak memory is that
of a step in a process of its own, with the optimisers' states: on a CPU of the first, whose time "alone" stands beside
it, on CUDA of the second. Prediction is compared with that of a network which was built without MRM and took over the
trained one's weights.
Writes benchmarks/results/overhead-NAME.json and .md.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from shared.overhead_report import overhead, table
from shared.overhead_steps import ADDED, Bench
from shared.provenance import provenance
from uda.runtime.meter import forget_peak, peak_memory
from uda.settings import Settings, preset_values

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("dacs", "daformer", "hrda", "mic")  # and vfm, where it is asked for
ARMS = ("baseline", "again", "mrm", "floor", "mask-only", "mixed", "masked")


def settings_for(method: str, args: argparse.Namespace) -> Settings:
    values = preset_values(args.preset, method) | {"method": method, "preset": args.preset, "device": args.device}
    if args.batch_size:
        values["batch_size"] = args.batch_size
    if args.encoder:
        values["encoder"] = args.encoder
    values["checkpoint_activations"] = args.checkpoint_activations
    return Settings(**values)


def measure(method: str, args: argparse.Namespace) -> dict[str, Any]:
    """Times, parts and memory of one method."""
    lacking = {"mic": (), "vfm": ("mixed", "masked")}.get(method, ("masked",))
    arms = [arm for arm in args.arms if arm not in lacking]
    alone = {arm: step_alone(method, arm, args) for arm in arms if arm in ("baseline", "mrm", "mask-only", "masked")}
    bench = Bench(settings_for(method, args))
    network = [bench.settings.encoder, bench.settings.decoder] + ["HRDA"] * bench.settings.hrda
    network += ["activations checkpointed"] * args.checkpoint_activations
    seconds, parts = rounds(bench, ["baseline"] if args.derive else arms, args)
    derived = [arm for arm in arms if arm in ADDED] if args.derive and args.repeats else []
    for arm in derived:
        added = [sum(parts[name][i] for name in ADDED[arm]) for i in range(args.repeats)]
        seconds[arm] = [a + b for a, b in zip(seconds["baseline"], added)]
    return {
        "method": method,
        "network": ", ".join(network),
        "crop": list(bench.settings.crop),
        "batch_size": bench.settings.batch_size,
        "parameters": sum(p.numel() for p in bench.models.network.parameters()),
        "rebuilder_parameters": sum(p.numel() for p in bench.mrm.parameters()),
        "seconds": seconds,
        "derived": derived,
        "parts": parts,
        "seconds_alone": {arm: seconds for arm, (seconds, _) in alone.items() if bench.device.type != "cuda"},
        "peak_memory_mib": {arm: memory for arm, (_, memory) in alone.items()},
        "inference": bench.inference(1 if args.derive else args.repeats) if args.repeats else {},
    }


def rounds(bench: Bench, arms: list[str], args: argparse.Namespace) -> tuple[dict[str, list[float]], ...]:
    """Seconds of one step per arm and round, in an order drawn anew each round, and of the parts of MRM's pass."""
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    parts: dict[str, list[float]] = {}
    for round_ in range(args.warmup + args.repeats if args.repeats else 0):
        for arm in random.Random(round_).sample(arms, len(arms)):
            took, _ = bench.seconds(lambda arm=arm: bench.step(arm))
            if round_ >= args.warmup:
                seconds[arm].append(took)
        for name, took in bench.parts().items():
            if round_ >= args.warmup:
                parts.setdefault(name, []).append(took)
    return seconds, parts


def step_alone(method: str, arm: str, args: argparse.Namespace) -> tuple[float, float]:
    """Seconds and peak MiB of one step in a process of its own: on the CPU of the first, resident in memory; on CUDA of
    the second, allocated (in the first, cuDNN tries kernels with all the memory there is)."""
    command = [sys.executable, __file__, "--alone", method, arm, "--preset", args.preset, "--device", args.device]
    command += ["--batch-size", str(args.batch_size), "--encoder", args.encoder]
    command += ["--checkpoint-activations"] * args.checkpoint_activations
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return float(printed[-2]), float(printed[-1])


def print_alone(method: str, arm: str, args: argparse.Namespace) -> None:
    bench = Bench(settings_for(method, args))
    bench.keep_only(arm)
    bench.make_optimizer_states()
    if bench.device.type == "cuda":
        bench.step(arm)
        forget_peak(bench.device)
    seconds, _ = bench.seconds(lambda: bench.step(arm))
    print(seconds, peak_memory(bench.device) / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("small", "paper"), default="small")
    parser.add_argument("--methods", nargs="+", choices=(*METHODS, "vfm"), default=METHODS)
    parser.add_argument("--encoder", default="", help="in place of the preset's")
    parser.add_argument("--checkpoint-activations", action="store_true", help="less memory, more computing")
    parser.add_argument("--batch-size", type=int, default=0, help="0: the preset's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--repeats", type=int, default=20, help="measured rounds; 0: one step an arm, alone")
    parser.add_argument("--warmup", type=int, default=2, help="rounds that are not measured")
    parser.add_argument("--derive", action="store_true", help="run the baseline and MRM's parts, add up the other arms")
    parser.add_argument("--quick", action="store_true", help="9 rounds at the embedded size")
    parser.add_argument("--name", default="", help="of the result files (default: PRESET-DEVICE, or quick-DEVICE)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result files")
    parser.add_argument("--alone", nargs=2, metavar=("METHOD", "ARM"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        return print_alone(*args.alone, args)
    if args.repeats < 0 or "baseline" not in args.arms:
        parser.error("expected --repeats of at least 0, and the baseline among the arms")
    if args.quick:
        args.preset, args.repeats, args.warmup = "small", 9, 1
        args.name = args.name or f"quick-{args.device}"

    results = provenance(args.device) | {"rounds": args.repeats, "rows": []}
    stem = args.out / f"overhead-{args.name or f'{args.preset}-{args.device}'}"
    args.out.mkdir(parents=True, exist_ok=True)
    for method in args.methods:
        results["rows"].append(measure(method, args))
        if "mrm" in args.arms and args.repeats:
            print(f"{method}: MRM {overhead(results['rows'][-1], 'mrm')[0]:+.1f} %", flush=True)
        stem.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    stem.with_suffix(".md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
