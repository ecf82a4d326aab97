"""What MRM costs per training step, against the same step without it.

    python benchmarks/overhead.py --quick                                 # embedded size, under 2 minutes on 2 cores
    python benchmarks/overhead.py --preset paper --device cuda            # the papers' networks and crops
    python benchmarks/overhead.py --preset paper --methods mic --batch-size 1 --repeats 1

Steps of all arms alternate in one process, on one network, with one batch, through the trainers' own step function:
"baseline" without MRM, "again" the same once more (the benchmark's own noise), "mrm" as in the paper, "mixed" and
"masked" on features that the step has anyway, and "floor" with the Rebuilder replaced by the identity, which nothing
that sends target features through encoder and decoder can undercut. Overheads are medians of per-round ratios with
95 % bootstrap intervals. Writes benchmarks/results/overhead-NAME.json, .md and .png.
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
    """Rounds of one step per arm, in an order drawn anew each round."""
    bench = Bench(settings_for(method, args))
    arms = [arm for arm in ARMS if arm != "masked" or method == "mic"]
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for round_ in range(args.warmup + args.repeats):
        for arm in random.Random(round_).sample(arms, len(arms)):
            start = time.perf_counter()
            bench.step(arm)
            if round_ >= args.warmup:
                seconds[arm].append(time.perf_counter() - start)
    parts: dict[str, list[float]] = {}
    for _ in range(args.repeats):
        for name, part in bench.split().items():
            start = time.perf_counter()
            part()
            synchronize(bench.device)
            parts.setdefault(name, []).append(time.perf_counter() - start)
    return {
        "method": method,
        "network": f"{bench.settings.encoder}, {bench.settings.decoder}{', HRDA' if bench.settings.hrda else ''}",
        "crop": list(bench.settings.crop),
        "batch_size": bench.settings.batch_size,
        "parameters": sum(p.numel() for p in bench.models.student.network.parameters()),
        "rebuilder_parameters": sum(p.numel() for p in bench.mrm.parameters()),
        "seconds": seconds,
        "split_ms": {name: 1000 * statistics.median(values) for name, values in parts.items()},
        "peak_memory_mib": {arm: peak_memory(method, arm, args) for arm in ("baseline", "mrm")},
    }


def peak_memory(method: str, arm: str, args: argparse.Namespace) -> float:
    """Of a process of its own that does nothing else, in MiB: allocated on CUDA, resident on the CPU."""
    command = [sys.executable, __file__, "--peak-of", method, arm, "--preset", args.preset, "--device", args.device]
    command += ["--batch-size", str(args.batch_size)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def print_peak(method: str, arm: str, args: argparse.Namespace) -> None:
    bench = Bench(settings_for(method, args))
    bench.step(arm)
    if bench.device.type == "cuda":
        print(torch.cuda.max_memory_allocated(bench.device) / 2**20)
    else:
        unit = 1 if platform.system() == "Darwin" else 1024
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def overhead(row: dict[str, Any], arm: str) -> tuple[float, float, float]:
    """Median of the per-round ratios to the baseline, minus one, in percent, and its 95 % bootstrap interval."""
    ratios = [100 * (a / b - 1) for a, b in zip(row["seconds"][arm], row["seconds"]["baseline"])]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[50], medians[-51]


def table(results: dict[str, Any]) -> str:
    """Markdown: a row per method and arm, then the split of the extra pass."""
    lines = [
        "| method | network, crop, batch | arm | ms per step | images/s | overhead (95 % interval) | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        what = f"{row['network']}, {row['crop'][0]} x {row['crop'][1]}, {row['batch_size']}"
        for arm, seconds in row["seconds"].items():
            median = statistics.median(seconds)
            cost = "" if arm == "baseline" else "{:+.1f} % ({:+.1f} to {:+.1f})".format(*overhead(row, arm))
            memory = f"{row['peak_memory_mib'][arm]:.0f} MiB" if arm in row["peak_memory_mib"] else ""
            speed = f"{1000 * median:.0f} | {2 * row['batch_size'] / median:.1f}"
            lines.append(f"| {row['method']} | {what} | {arm} | {speed} | {cost} | {memory} |")
    lines += ["", "| method | Rebuilder parameters | " + " | ".join(results["rows"][0]["split_ms"]) + " | (ms)"]
    lines += ["|---" * (2 + len(results["rows"][0]["split_ms"])) + "|"]
    for row in results["rows"]:
        parts = " | ".join(f"{ms:.0f}" for ms in row["split_ms"].values())
        lines.append(f"| {row['method']} | {row['rebuilder_parameters'] / 1e6:.2f} M | {parts} |")
    return "\n".join([*lines, "", f"{results['machine']}; torch {results['torch']}; commit {results['commit']}.", ""])


def plot(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    arms = [arm for arm in ARMS if arm != "baseline"]
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for i, arm in enumerate(arms):
        rows = [(x, overhead(row, arm)) for x, row in enumerate(results["rows"]) if arm in row["seconds"]]
        at = [x + (i - 2) * 0.16 for x, _ in rows]
        errors = [[m - low for _, (m, low, _) in rows], [high - m for _, (m, _, high) in rows]]
        axes.bar(at, [m for _, (m, _, _) in rows], 0.15, yerr=errors, label=arm, error_kw={"elinewidth": 1})
    axes.set_xticks(range(len(results["rows"])), [row["method"] for row in results["rows"]])
    axes.set(ylabel="overhead per step (%)", title="Training time, relative to the same step without MRM")
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=len(arms))
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("small", "paper"), default="small")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--batch-size", type=int, default=0, help="0: the preset's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=20, help="measured rounds")
    parser.add_argument("--warmup", type=int, default=2, help="rounds that are not measured")
    parser.add_argument("--quick", action="store_true", help="7 rounds at the embedded size")
    parser.add_argument("--name", default="", help="of the result files; empty: PRESET-DEVICE")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result files")
    parser.add_argument("--peak-of", nargs=2, metavar=("METHOD", "ARM"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_of:
        return print_peak(*args.peak_of, args)
    if args.quick:
        args.preset, args.repeats, args.warmup = "small", 7, 1

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
