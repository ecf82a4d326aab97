"""Whether half precision, torch.compile and the like train as float32 does: 200 steps of each from the same start.

    python benchmarks/modes_losses.py                 # MIC with MRM on the embedded scenes

Every mode trains with the same data, mixes and masks. Two runs that differ in a rounding drift apart step by step, in
float32 too; how far is the yardstick: float32 once more from weights that were moved by half a unit in their last place
of float32, and of bfloat16. The threshold of pseudo-labels is 0.7, else their losses are nearly zero so early.
Differences are those of the losses' means over windows of 20 steps: their root mean square, relative to float32's mean
loss. Writes benchmarks/results/modes-losses-DEVICE.json and .md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from shared.provenance import ROOT, made_by, provenance
from torch import Tensor, nn

sys.path.insert(0, str(ROOT / "examples"))

import train_mic_mrm
from uda.settings import Settings, preset_values
from uda.training.run import Run, batches_of, one_step

STEPS, PRETRAINING, WINDOW = 200, 100, 20
MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp32, weights moved in their last place": {},
    "fp32, weights moved in bfloat16's last place": {},
    "fp32, another seed": {"seed": 1},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "compile": {"compile": True},
    "bf16, compile": {"precision": "bf16", "compile": True},
    "checkpointing": {"checkpoint_activations": True},
}
MOVED = {"fp32, weights moved in their last place": 2.0**-24, "fp32, weights moved in bfloat16's last place": 2.0**-9}


def losses_of(mode: str, args: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """Every loss of every step."""
    values = preset_values("small", args.method) | {"method": args.method, "device": args.device, "scenes": args.scenes}
    values |= {"pretrain_iterations": PRETRAINING, "iterations": STEPS - PRETRAINING, "out": str(folder / mode)}
    values["threshold"] = 0.7
    run = Run(Settings(**values | MODES[mode]))
    move(run.models.student, MOVED.get(mode, 0.0))
    data, losses = batches_of(run), []
    for run.step in range(args.steps):
        found = one_step(run, data[run.step].to(run.device), train_mic_mrm.train_step)
        losses.append({name: float(f"{loss.item():.6g}") for name, loss in found.items()})
    return losses


@torch.no_grad()
def move(module: nn.Module, by: float) -> None:
    """Every weight times 1 + by or 1 - by, at random."""
    gen = torch.Generator().manual_seed(0)
    for p in module.parameters():
        signs = torch.randint(2, p.shape, generator=gen).to(p) * 2 - 1
        p.mul_(1 + by * signs)


def difference(losses: list[dict[str, float]], fp32: list[dict[str, float]], name: str) -> float:
    """Root mean square of the differences of a loss's window means, in percent of its mean."""
    a, b = (windows([step[name] for step in run if name in step]) for run in (losses, fp32))
    return (100 * (a - b).square().mean().sqrt() / b.mean()).item()


def windows(values: list[float]) -> Tensor:
    """Means over windows of the steps, the last of them first filled."""
    return torch.stack([chunk.mean() for chunk in torch.tensor(values, dtype=torch.float64).split(WINDOW)])


def table(results: dict[str, Any]) -> str:
    runs = results["modes"]
    fp32 = runs["fp32"]
    names = [name for name in fp32[-1] if name != "trust"]
    last = {name: windows([step[name] for step in fp32 if name in step])[-1].item() for name in names}
    lines = [
        "Difference from float32 in %, in brackets its loss over the last steps.\n",
        "| mode | " + " | ".join(f"{name} ({last[name]:.3f})" for name in names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for mode, run in runs.items():
        cells = ["" if mode == "fp32" else f"{difference(run, fp32, name):.2g}" for name in names]
        lines.append(f"| {mode} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", made_by(results)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=("dacs", "daformer", "hrda", "mic"), default="mic")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--scenes", default="data/scenes", help="folder of the embedded scenes")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result files")
    args = parser.parse_args()
    if "fp32" not in args.modes or args.steps <= PRETRAINING:
        parser.error(f"expected fp32 among the modes, and more than {PRETRAINING} steps")
    results = provenance(args.device) | {"steps": args.steps, "pretraining": PRETRAINING, "modes": {}}
    stem = args.out / f"modes-losses-{args.device}"
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for mode in args.modes:
            results["modes"][mode] = losses_of(mode, args, Path(folder))
            stem.with_suffix(".json").write_text(json.dumps(results) + "\n")
            stem.with_suffix(".md").write_text(table(results))
            print(f"{mode}: {len(results['modes'][mode])} steps", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
