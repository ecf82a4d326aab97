"""mIoU of a checkpoint: one of our runs, or a released file of DAFormer, HRDA, MIC (MiT encoders) or VFM-UDA.

python examples/evaluate.py runs/mic+mrm-seed0                                    # on the run's own target validation
python examples/evaluate.py runs/mic+mrm-seed0 --target acdc:PATH --save pictures
python examples/evaluate.py iter_40000.pth --target cityscapes:PATH               # a released file; no mmcv needed
python examples/evaluate.py iter_40000.pth --target cityscapes:PATH --classes synthia13 --which teacher
torchrun --nproc-per-node=2 examples/evaluate.py runs/mic+mrm-seed0               # each process takes its share

Prints IoU per class and mIoU, over the classes that are labelled or predicted, and writes them as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from uda.checkpoints.evaluation import (
    SUBSETS,
    class_iou,
    evaluate,
    iou_table,
    mean_in_words,
    mean_iou,
    save_prediction,
)
from uda.checkpoints.loading import WHICH, Loaded, add_arguments, load_networks, pixels
from uda.data.domain import Domain, open_domain
from uda.data.labels import CITYSCAPES_NAMES
from uda.runtime.command import command
from uda.runtime.processes import from_first, rank_and_world, start_processes
from uda.scenes.write import write_scenes


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Evaluates as the command line says; returns what is written as JSON."""
    args = make_parser().parse_args(words)
    device = start_processes(args.device)
    first = rank_and_world()[0] == 0
    loaded = load_networks(args.checkpoint, WHICH if args.which == "both" else (args.which,))
    size = tuple(args.size) if args.size else loaded.size
    window = loaded.window if args.window is None else args.window
    domain = open_domain(target_of(loaded, args.target), args.split, size if size and all(size) else None)
    classes = subset_of(loaded, domain, args.classes)
    domain.check_labels()
    out = Path(args.json) if args.json else default_json(loaded.path)
    pictures = Path(args.save) if args.save else None
    # the others wait: a process that is ahead must not write the pictures that the check then finds
    from_first(lambda: refuse_to_overwrite([out, pictures] if pictures else [out], args.overwrite))
    if first:
        print(f"{loaded}\n{domain.spec}: {len(domain)} images of {args.split}")

    confusions = {}
    for name, network in loaded.networks.items():
        keep = saver(pictures / name, domain, loaded) if pictures else None
        confusions[name] = evaluate(network.to(device), domain, len(loaded.names), device, name, window, keep)
        network.cpu()
    result = {
        "checkpoint": str(loaded.path),
        "target": domain.spec,
        "split": args.split,
        "images": len(domain),
        "size": domain.size,
        "window": window,
        **scores(confusions, loaded.names, classes),
        "torch": torch.__version__,
        "device": str(device),
    }
    if first:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(iou_table(confusions, loaded.names, classes))
        print(mean_in_words(confusions, loaded.names, classes))
        print(f"results: {out}" + (f"; pictures: {pictures}" if pictures else ""))
    return result


def target_of(loaded: Loaded, target: str) -> str:
    """LAYOUT:PATH of the domain to evaluate on; the run's own where none is given."""
    settings = loaded.settings
    if target:
        return target
    if settings is None:
        raise ValueError(f"{loaded.path}: released files bring no target along; give --target LAYOUT:PATH")
    if settings.target:
        return settings.target
    from_first(lambda: write_scenes(Path(settings.scenes)))
    return f"cityscapes:{settings.scenes}/cityscapes"


def subset_of(loaded: Loaded, domain: Domain, name: str) -> list[int]:
    """The classes that the mean is taken over.

    Raises:
        ValueError: the domain has other classes than the network, or the subset's are not among them.
    """
    if domain.classes.names != loaded.names:
        raise ValueError(f"{domain.spec}: expected the network's classes {loaded.names}, got {domain.classes.names}")
    if name == "all":
        return list(range(len(loaded.names)))
    if loaded.names != CITYSCAPES_NAMES:
        raise ValueError(f"--classes {name}: expected Cityscapes' 19 classes, got {loaded.names}")
    return SUBSETS[name]


def scores(confusions: dict[str, Tensor], names: list[str], classes: list[int]) -> dict[str, Any]:
    """mIoU and IoU by network, IoU by class; `labelled` are the classes that have a labelled pixel.

    A class that is predicted and not labelled counts as 0 in a network's mean (see `mean_iou`) and is in its `iou`.

    Raises:
        ValueError: none of the classes has a labelled pixel.
    """
    seen = next(iter(confusions.values())).sum(1) > 0
    labelled = [names[k] for k in classes if seen[k]]
    if not labelled:
        raise ValueError(f"expected labelled pixels of {', '.join(names[k] for k in classes)}, found none")
    ious = {name: class_iou(confusion) for name, confusion in confusions.items()}
    return {
        "classes": [names[k] for k in classes],
        "labelled": labelled,
        "miou": {name: mean_iou(confusion, classes) for name, confusion in confusions.items()},
        "iou": {name: {names[k]: iou[k].item() for k in classes if not iou[k].isnan()} for name, iou in ious.items()},
    }


def saver(folder: Path, domain: Domain, loaded: Loaded) -> Callable[[int, Tensor], None]:
    """Writes predictions below a folder, in the tree of the images."""

    def save(index: int, predicted: Tensor) -> None:
        image = domain.samples[index].image
        save_prediction(folder / image.relative_to(domain.root).with_suffix(""), predicted, loaded.colours)

    return save


def default_json(checkpoint: Path) -> Path:
    """evaluation.json in a run's folder, NAME-evaluation.json beside a released file."""
    name = "evaluation.json" if checkpoint.name == "checkpoint.pt" else f"{checkpoint.stem}-evaluation.json"
    return checkpoint.with_name(name)


def refuse_to_overwrite(paths: list[Path], overwrite: bool) -> None:
    """Finds out before hours of work whether the results can be written.

    Raises:
        FileExistsError: one of them exists, and `overwrite` is not set.
        PermissionError: the folder of the first, which is made where it is missing, cannot be written to.
    """
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; give another --json or --save, or --overwrite")
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    if not os.access(paths[0].parent, os.W_OK):
        raise PermissionError(f"{paths[0].parent}: expected a folder that can be written to; give another --json")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add = parser.add_argument
    add("--target", default="", metavar="LAYOUT:PATH", help="labelled domain to evaluate on (default: the run's own)")
    add("--split", default="val", help="train or val, where the layout has splits (default: val)")
    add("--which", default="both", choices=(*WHICH, "both"), help="networks to evaluate, where there are both")
    add("--classes", default="all", choices=tuple(SUBSETS), help="classes that mIoU is taken over (default: all)")
    size = (
        "frame that images, not labels, are resized to fit; 0 0: none (default: the run's; released files: the paper's)"
    )
    add("--size", type=pixels, nargs=2, metavar=("ROWS", "COLS"), help=size)
    add("--save", default="", metavar="FOLDER", help="write predictions there, as train ids and coloured")
    add("--json", default="", metavar="FILE", help="where results go (default: evaluation.json beside the checkpoint)")
    return parser


if __name__ == "__main__":
    command(main)
