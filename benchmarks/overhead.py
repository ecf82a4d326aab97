"""What MRM costs per training step, against the same step without it.

    python benchmarks/overhead.py --quick                                 # embedded size, under 2 minutes on 2 cores
    python benchmarks/overhead.py --preset paper --device cuda            # the papers' networks and crops
    python benchmarks/overhead.py --preset paper --batch-size 1 --repeats 0 --arms baseline mrm    # on a CPU

Steps of all arms alternate in one process, on one network, with one batch, through the trainers' own step function:
"baseline" without MRM, "again" the same once more (the benchmark's own noise), "mrm" as in the paper, "mixed" and
"masked" on features that the step has anyway, and "floor" with the Rebuilder replaced by the identity, which nothing
that sends target features through encoder and decoder can undercut. Overheads are medians of per-round ratios with
95 % bootstrap intervals. Peak memory is that of one step in a process of its own.
Writes benchmarks/results/overhead-NAME.json, .md and .png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import train_mic_mrm
from overhead_report import overhead, plot, table
from uda.datasets import Batch
from uda.draws import Draws
from uda.models import Models, optimizers_of
from uda.networks import Encoder
from uda.settings import Settings, preset_values

METHODS = ("dacs", "daformer", "hrda", "mic")
ARMS = ("baseline", "again", "mrm", "floor", "mixed", "masked")
STEP = 100  # far enough for the teacher's average to be in use


class IdentityRebuilder(nn.Module):
    """Takes MRM's place and gives features back as they are."""

    loss_weight = 1.0

    def rebuild(self, feats: Any, mask: Tensor) -> tuple[Any, Tensor]:
        return feats, mask


class Bench:
    """One method's networks, batch and optimisers, and its step in any arm."""

    def __init__(self, settings: Settings, num_classes: int = 19) -> None:
        self.device = torch.device(settings.device)
        # a rate of zero keeps the weights, so that every arm works on the same network; random ones cost the same
        self.settings = dataclasses.replace(settings, lr=0.0, mrm_lr=0.0, encoder_weights="")
        without_distance = dataclasses.replace(self.settings, fd_weight=0.0)
        self.models = Models(without_distance, num_classes, train_mic_mrm.Student, self.device)
        if self.settings.fd_weight > 0:
            self.models.imagenet = Encoder(settings.encoder).eval().requires_grad_(False).to(self.device)
        self.mrm = self.models.student.mrm
        network, mrm = optimizers_of(self.settings, self.models.student)
        self.optimizers = {"network": network, "mrm": mrm}
        self.batch = synthetic_batch(self.settings, num_classes).to(self.device)

    def step(self, arm: str) -> None:
        student = self.models.student
        student.mrm = {"baseline": None, "again": None, "floor": IdentityRebuilder()}.get(arm, self.mrm)
        on = arm if arm in ("mixed", "masked") else "target"
        cfg = dataclasses.replace(self.settings, mrm_on=on)
        used = [self.optimizers["network"], *([self.optimizers["mrm"]] if student.mrm is self.mrm else [])]
        for optimizer in used:
            optimizer.zero_grad()
        train_mic_mrm.train_step(STEP, self.batch, self.models, cfg, Draws(cfg, STEP))
        for optimizer in used:
            optimizer.step()
        synchronize(self.device)

    def split(self) -> dict[str, Callable[[], Any]]:
        """The parts of the extra pass, to be timed one after another in this order."""
        network, images = self.models.student.network, self.batch.target_images
        draws, state = Draws(self.settings, STEP), {}
        masks = [draws.masked(name, images) for name in ("a", "b")]
        labels = torch.zeros(len(images), *images.shape[-2:], dtype=torch.long, device=self.device)

        def encode() -> None:
            state["feats"] = network.encode(images, draws.box("mrm", network, images))

        def rebuild() -> None:
            each = iter(masks)
            state["rebuilt"] = network.rebuild(state["feats"], lambda levels: self.mrm.rebuild(levels, next(each))[0])

        def decode_and_loss() -> None:
            state["loss"] = network.loss(state["rebuilt"], labels)

        return {
            "encoder": encode,
            "Rebuilder": rebuild,
            "decoder and loss": decode_and_loss,
            "backward": lambda: state["loss"].backward(),
        }


def synthetic_batch(settings: Settings, num_classes: int) -> Batch:
    """Noise images and blocky labels of the training crop's size."""
    generator = torch.Generator().manual_seed(0)
    size, n = settings.crop, settings.batch_size
    images = [torch.randn(n, 3, *size, generator=generator) for _ in range(2)]
    blocks = torch.randint(num_classes, (n, 1, 4, 8), generator=generator).float()
    labels = nn.functional.interpolate(blocks, size, mode="nearest")[:, 0].long()
    return Batch(images[0], labels, images[1], torch.ones(n, *size))


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def settings_for(method: str, args: argparse.Namespace) -> Settings:
    values = preset_values(args.preset, method) | {"method": method, "preset": args.preset, "device": args.device}
    if args.batch_size:
        values["batch_size"] = args.batch_size
    return Settings(**values)


def measure(method: str, args: argparse.Namespace) -> dict[str, Any]:
    """Times, parts and memory of one method."""
    bench = Bench(settings_for(method, args))
    arms = [arm for arm in args.arms if arm != "masked" or method == "mic"]
    alone = {arm: step_alone(method, arm, args) for arm in arms if arm in ("baseline", "mrm") or args.repeats == 0}
    seconds = rounds(bench, arms, args) if args.repeats else {arm: [alone[arm][0]] for arm in arms}
    return {
        "method": method,
        "network": f"{bench.settings.encoder}, {bench.settings.decoder}{', HRDA' if bench.settings.hrda else ''}",
        "crop": list(bench.settings.crop),
        "batch_size": bench.settings.batch_size,
        "parameters": sum(p.numel() for p in bench.models.student.network.parameters()),
        "rebuilder_parameters": sum(p.numel() for p in bench.mrm.parameters()),
        "seconds": seconds,
        "split_ms": split_times(bench, max(args.repeats, 1)),
        "peak_memory_mib": {arm: memory for arm, (_, memory) in alone.items()},
    }


def rounds(bench: Bench, arms: list[str], args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of one step per arm and round, in an order drawn anew each round."""
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for round_ in range(args.warmup + args.repeats):
        for arm in random.Random(round_).sample(arms, len(arms)):
            start = time.perf_counter()
            bench.step(arm)
            if round_ >= args.warmup:
                seconds[arm].append(time.perf_counter() - start)
    return seconds


def split_times(bench: Bench, repeats: int) -> dict[str, float]:
    """Median milliseconds of the parts of the extra pass."""
    parts: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, part in bench.split().items():
            start = time.perf_counter()
            part()
            synchronize(bench.device)
            parts.setdefault(name, []).append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(values) for name, values in parts.items()}


def step_alone(method: str, arm: str, args: argparse.Namespace) -> tuple[float, float]:
    """Seconds and peak MiB of the first step of a process of its own: allocated on CUDA, resident on the CPU."""
    command = [sys.executable, __file__, "--alone", method, arm, "--preset", args.preset, "--device", args.device]
    command += ["--batch-size", str(args.batch_size)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return float(printed[-2]), float(printed[-1])


def print_alone(method: str, arm: str, args: argparse.Namespace) -> None:
    bench = Bench(settings_for(method, args))
    start = time.perf_counter()
    bench.step(arm)
    seconds = time.perf_counter() - start
    if bench.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(bench.device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
    print(seconds, peak / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("small", "paper"), default="small")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--batch-size", type=int, default=0, help="0: the preset's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument(
        "--repeats", type=int, default=20, help="measured rounds; 0: one step per arm, in a process of its own"
    )
    parser.add_argument("--warmup", type=int, default=2, help="rounds that are not measured")
    parser.add_argument("--quick", action="store_true", help="9 rounds at the embedded size")
    parser.add_argument("--name", default="", help="of the result files; empty: PRESET-DEVICE")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result files")
    parser.add_argument("--alone", nargs=2, metavar=("METHOD", "ARM"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        return print_alone(*args.alone, args)
    if args.quick:
        args.preset, args.repeats, args.warmup = "small", 9, 1

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.processor() or "CPU"
    results = {
        "machine": f"{device}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
        "repeats": args.repeats,
        "rows": [],
    }
    for method in args.methods:
        results["rows"].append(measure(method, args))
        print(f"{method}: MRM {overhead(results['rows'][-1], 'mrm')[0]:+.1f} %", flush=True)
    stem = args.out / f"overhead-{args.name or f'{args.preset}-{args.device}'}"
    args.out.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    stem.with_suffix(".md").write_text(table(results))
    plot(results, stem.with_suffix(".png"))
    print(table(results))


if __name__ == "__main__":
    main()
