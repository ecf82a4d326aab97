"""Holds `mrm_loss.Rebuilder` against the authors' released file: equal numbers, and time side by side.

    python benchmarks/compare_official.py PATH/TO/rebuilder.py    # of github.com/Wenlve-Zhou/MRM; needs timm
    python benchmarks/compare_official.py                         # against plain_rebuilder.py, the same arithmetic
    python benchmarks/compare_official.py --compile               # ours compiled as well; minutes on a CPU

The authors' file is yours to fetch; nothing of it is here. Of mmseg it uses one function, which has a stand-in where
mmseg is not installed. Both get the same weights, features and mask; outputs and gradients are compared in float64,
forward plus backward is timed in float32 with all of them alternating. Memory is what autograd keeps from forward to
backward, beside the parameters and features. Writes benchmarks/results/compare-official-DEVICE.json and .md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import random
import statistics
import sys
import time
import types
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
PLAIN = ROOT / "benchmarks" / "shared" / "plain_rebuilder.py"
sys.path.insert(0, str(ROOT / "tests" / "helpers"))
from official_rebuilder import from_official
from shared.provenance import made_by, provenance

from mrm_loss import Rebuilder, random_mask

# their configuration, our channels, and sizes of the levels at a 512 crop
VARIANTS: dict[str, tuple[dict[str, Any], list[int], list[int]]] = {
    "DAFormer": (
        {"type": "DAFormerHead", "in_channels": [64, 128, 320, 512], "in_index": [0, 1, 2, 3]},
        [64, 128, 320, 512],
        [128, 64, 32, 16],
    ),
    "DeepLabV2": ({"type": "DLV2Head", "in_channels": 2048, "in_index": 3}, [2048], [64]),
}


def load_official(path: Path) -> types.ModuleType:
    """The authors' file as a module."""
    try:
        import mmseg.ops  # noqa: F401
    except ImportError:
        package, ops = types.ModuleType("mmseg"), types.ModuleType("mmseg.ops")
        ops.resize = lambda input, size, mode, align_corners=None: F.interpolate(input, size, None, mode, align_corners)
        sys.modules |= {"mmseg": package, "mmseg.ops": ops}
    spec = importlib.util.spec_from_file_location("official", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"{path}: expected the authors' rebuilder.py, found no such file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pair:
    """Both Rebuilders with the same weights, the features of a batch, and one mask."""

    def __init__(self, official: types.ModuleType, name: str, batch: int, device: str) -> None:
        config, channels, sizes = VARIANTS[name]
        torch.manual_seed(0)
        with contextlib.redirect_stdout(io.StringIO()):  # theirs prints its configuration
            self.theirs: nn.Module = official.Rebuilder(config).to(device)
        self.ours = Rebuilder(channels).to(device)
        self.ours.load_state_dict(from_official(self.theirs.state_dict()))
        self.modules = {"theirs": self.theirs, "ours": self.ours}
        self.mask = random_mask(batch, device=device)
        kept = {dtype: (~self.mask).to(dtype) for dtype in (torch.float32, torch.float64)}  # 1 = keep
        official.generate_mask = lambda shape, device, mask_ratio: kept[self.feats[0].dtype]
        self.feats = [torch.randn(batch, c, s, s, device=device) for c, s in zip(channels, sizes)]
        self.weights = [torch.randn_like(f) for f in self.feats]

    def run(self, arm: str) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
        """Outputs, gradients of the features, and gradients of the parameters."""
        feats = [f.detach().requires_grad_() for f in self.feats]
        module = self.modules[arm]
        outs = module(feats)[: len(feats)] if arm == "theirs" else module(feats, self.mask)[0]
        module.zero_grad()
        torch.autograd.backward(outs, self.weights)
        grads = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        return outs, [f.grad for f in feats], grads

    def worst_error(self) -> float:
        """Of any output or gradient, relative to its standard deviation, in float64."""
        for module in (self.theirs, self.ours):
            module.double()
        self.feats, self.weights = ([t.double() for t in ts] for ts in (self.feats, self.weights))
        (outs, grads, params), (outs_, grads_, params_) = self.run("theirs"), self.run("ours")
        params = from_official(params)
        assert params.keys() == params_.keys(), params.keys() ^ params_.keys()
        pairs = [*zip(outs, outs_), *zip(grads, grads_), *((params[name], params_[name]) for name in params)]
        return max(((a - b).abs().max() / a.std().clamp(min=1e-12)).item() for a, b in pairs)

    def kept_mib(self, arm: str) -> float:
        """MiB that autograd keeps from forward to backward, without parameters and features."""
        module = self.modules[arm]
        free = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *module.buffers(), *self.feats]}
        kept: dict[int, int] = {}

        def keep(t: Tensor) -> Tensor:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            self.run(arm)
        return sum(size for address, size in kept.items() if address not in free) / 2**20

    def milliseconds(self, repeats: int) -> dict[str, float]:
        """Median of forward plus backward, the arms in an order drawn anew each round."""
        seconds: dict[str, list[float]] = {arm: [] for arm in self.modules}
        for round_ in range(repeats + 2):
            for arm in random.Random(round_).sample(list(seconds), len(seconds)):
                start = time.perf_counter()
                self.run(arm)
                if self.mask.device.type != "cpu":
                    getattr(torch, self.mask.device.type).synchronize()
                if round_ >= 2:
                    seconds[arm].append(time.perf_counter() - start)
        return {arm: 1000 * statistics.median(values) for arm, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?", default=PLAIN, help="the authors' rebuilder.py")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="also time ours under torch.compile")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result files")
    args = parser.parse_args()
    official = load_official(args.path)
    results = provenance(args.device) | {"batch_size": args.batch_size, "rounds": args.repeats, "rows": []}
    stem = args.out / f"compare-{'plain' if args.path == PLAIN else 'official'}-{args.device}"
    for name in VARIANTS:
        pair = Pair(official, name, args.batch_size, args.device)
        kept = {arm: pair.kept_mib(arm) for arm in pair.modules}
        if args.compile:
            pair.modules["ours, compiled"] = torch.compile(pair.ours)
        row = {"name": name, "kept_mib": kept, "ms": pair.milliseconds(args.repeats), "error": pair.worst_error()}
        results["rows"].append(row)
        if not row["error"] < 1e-9:
            raise SystemExit(f"{name}: outputs or gradients differ by {row['error']:.1e} of their standard deviation")
    args.out.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    stem.with_suffix(".md").write_text(table(results))
    print(table(results))


def table(results: dict[str, Any]) -> str:
    """Markdown: a row per head and Rebuilder."""
    lines = ["| head | Rebuilder | ms | times as fast | kept for the backward |", "|---|---|---|---|---|"]
    for row in results["rows"]:
        for arm, ms in row["ms"].items():
            memory = f"{row['kept_mib'][arm]:.0f} MiB" if arm in row["kept_mib"] else ""
            lines.append(f"| {row['name']} | {arm} | {ms:.0f} | {row['ms']['theirs'] / ms:.2f} | {memory} |")
    worst = max(row["error"] for row in results["rows"])
    note = f"Forward and backward of batch {results['batch_size']}, medians of {results['rounds']} rounds. Outputs and "
    note += f"gradients differ by at most {worst:.1e} of their standard deviation in float64."
    return "\n".join([*lines, "", note, "", made_by(results), ""])


if __name__ == "__main__":
    main()
