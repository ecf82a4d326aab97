"""How many images per second a worker loads at the papers' sizes, and how many workers feed a training step.

    python benchmarks/loading.py                   # a few minutes on one core
    python benchmarks/loading.py --samples 2 --steps 2      # tries whether it works

Writes images of the real sizes into a temporary folder, in the layouts of GTA5 (1052 x 1914) and Cityscapes
(1024 x 2048): embedded scenes, enlarged, with the noise of a camera, so that PNG files are as large and as slow to
decode as the data sets' (about 2.3 MB each). Batches are then loaded by the trainers' own code, in one process with one
thread, as a worker does it. Parts are medians: "decode" reads images and labels as they are, "resize" is what it takes
longer with the recipe's frames, "crop" is all that is left of a batch: class statistics looked up, crops drawn again
where they show too little, flips, normalisation. Colour augmentation is not loading, it runs on the device.

What lies outside the crop is decoded and resized too. PNG files can only be decoded from their start; and to resize the
crop's window alone would not give the same bytes, since bilinear weights are computed in float32 from the position in
the whole image: "resize" is the most that it could save.

Files lie in the system's cache: a disk or network that is slower than decoding comes on top.
Writes benchmarks/results/loading.json and .md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from shared.provenance import made_by, provenance

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from uda.data.batches import Batches
from uda.data.class_statistics import class_statistics
from uda.data.domain import Domain, open_domain
from uda.data.rare_class import RareClassSampler
from uda.scenes.write import write_scenes
from uda.settings import Settings, preset_values

SIZES = {"gta5": (1052, 1914), "cityscapes": (1024, 2048)}
NOISE = 1.0  # standard deviation in grey levels; gives files of about 2.3 MB
STEP_SECONDS = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0)  # of a training step, for the table of workers


def write_real_sizes(root: Path, samples: int) -> None:
    """Both data sets, drawn small and enlarged in place."""
    folders = dict(zip(SIZES, write_scenes(root, source=samples, target=samples, val=1, size=(132, 240))))
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        for path in sorted(folders[name].glob("**/*.png")):
            picture = Image.open(path)
            ids = picture.mode != "RGB"
            enlarged = picture.resize(size[::-1], Image.Resampling.NEAREST if ids else Image.Resampling.BICUBIC)
            if not ids:
                noisy = np.array(enlarged) + rng.normal(0, NOISE, (*size, 3))
                enlarged = Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))
            enlarged.save(path)


def batches_of(root: Path, method: str) -> tuple[Batches, Settings]:
    """As a run of the paper preset has them."""
    settings = Settings(**{"method": method} | preset_values("paper", method, source="gta5:"))
    source = open_domain(f"gta5:{root / 'gta5'}", size=settings.source_size)
    target = open_domain(f"cityscapes:{root / 'cityscapes'}", size=settings.target_size)
    rare = None
    if settings.rare_classes:
        pixels = class_statistics(source, root / "cache")
        rare = RareClassSampler(pixels, settings.rare_temperature, settings.rare_min_pixels)
    data = Batches(
        source,
        target,
        settings.crop,
        settings.batch_size,
        seed=0,
        margins=settings.margins,
        margins_of_image=settings.margins_of_image,
        rare=rare,
        min_crop_ratio=settings.rare_min_crop_ratio,
    )
    return data, settings


def measure(root: Path, method: str, steps: int) -> dict[str, Any]:
    """Seconds per sample of either domain by part, and per batch."""
    data, settings = batches_of(root, method)
    parts: dict[str, list[float]] = {}

    def timed(name: str, part: Callable[[], Any]) -> None:
        began = time.perf_counter()
        part()
        parts.setdefault(name, []).append(time.perf_counter() - began)

    as_they_are = {"source": replace(data.source, size=None), "target": replace(data.target, size=None)}
    resized = {"source": data.source, "target": data.target}

    def read(domain: Domain, name: str, index: int) -> None:
        if name == "source":
            domain.labelled(index)
        else:
            domain.pixels(index)

    data[0]  # files into the system's cache
    for step in range(steps):
        timed("batch", lambda step=step: data[step + 1])
        for name in ("source", "target"):
            index = step % len(resized[name])
            timed(f"{name} decode", lambda name=name, index=index: read(as_they_are[name], name, index))
            timed(f"{name} both", lambda name=name, index=index: read(resized[name], name, index))
    medians = {name: statistics.median(values) for name, values in parts.items()}
    found: dict[str, Any] = {"method": method, "crop": settings.crop, "batch_size": settings.batch_size}
    for name in ("source", "target"):
        found[f"{name}_decode"] = medians[f"{name} decode"]
        found[f"{name}_resize"] = max(medians[f"{name} both"] - medians[f"{name} decode"], 0.0)
    found["batch"] = medians["batch"]
    reading = sum(medians[f"{name} both"] for name in ("source", "target"))
    found["rest"] = max(medians["batch"] / settings.batch_size - reading, 0.0)  # of a source and a target sample
    return found


def workers(batch_seconds: float, step_seconds: float) -> int:
    """Processes that load a batch in the time of a step, each at the pace of one alone on its core."""
    return math.ceil(batch_seconds / step_seconds)


def table(results: dict[str, Any]) -> str:
    lines = [
        "| recipe | source: decode, resize | target: decode, resize | the rest | batch | images/s per worker |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        ms = {key: f"{1000 * row[key]:.0f} ms" for key in row if isinstance(row[key], float)}
        lines.append(
            f"| {row['method']}, crops {row['crop'][0]} | {ms['source_decode']}, {ms['source_resize']} | "
            f"{ms['target_decode']}, {ms['target_resize']} | {ms['rest']} | {ms['batch']} | "
            f"{2 * row['batch_size'] / row['batch']:.1f} |"
        )
    steps = " | ".join(f"{seconds:g} s" for seconds in STEP_SECONDS)
    lines += ["", f"| workers that keep up with a step of | {steps} |", "|---" * (1 + len(STEP_SECONDS)) + "|"]
    for row in results["rows"]:
        needed = " | ".join(str(workers(row["batch"], seconds)) for seconds in STEP_SECONDS)
        lines.append(f"| {row['method']}, batch {row['batch_size']} + {row['batch_size']} | {needed} |")
    sizes = ", ".join(f"{name} {size:.1f} MB" for name, size in results["megabytes"].items())
    return "\n".join([*lines, "", f"Image files: {sizes} on average. {made_by(results)}"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--methods", nargs="+", choices=("dacs", "daformer", "hrda", "mic"), default=["daformer", "mic"]
    )
    parser.add_argument("--samples", type=int, default=8, help="images of each data set that are written")
    parser.add_argument("--steps", type=int, default=40, help="batches that are measured")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result files")
    args = parser.parse_args()
    torch.set_num_threads(1)  # as in a worker
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_real_sizes(root, args.samples)
        images = {"gta5": "gta5/images/*.png", "cityscapes": "cityscapes/leftImg8bit/train/*/*.png"}
        megabytes = {
            name: statistics.mean(path.stat().st_size for path in root.glob(pattern)) / 1e6
            for name, pattern in images.items()
        }
        results = {**provenance(), "megabytes": megabytes, "steps": args.steps}
        results["rows"] = [measure(root, method, args.steps) for method in args.methods]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "loading.json").write_text(json.dumps(results, indent=2) + "\n")
    (args.out / "loading.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
