"""Classes of every pixel of one's own images, from a run or a released file of DAFormer, HRDA, MIC or VFM-UDA.

python examples/predict.py runs/mic+mrm-seed0 street.jpg --out predictions
python examples/predict.py runs/mic+mrm-seed0 photos/ --out predictions --overlay      # all images below the folder
python examples/predict.py iter_40000.pth photos/ --out predictions --training-size

For each image NAME, of the image's own size: NAME_labelTrainIds.png holds the train ids, NAME_colour.png the classes'
colours, NAME_overlay.png both in one picture. Images are read upright, as viewers show them (EXIF orientation).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from uda.checkpoints.evaluation import predict_ids, prediction_files, save_prediction
from uda.checkpoints.loading import WHICH, Loaded, add_arguments, load_networks, pixels
from uda.data.domain import fitted
from uda.data.images import naming, open_image
from uda.runtime.command import command
from uda.runtime.output import progress, say
from uda.runtime.processes import start_processes

Jobs = dict[Path, Path]  # output without ending -> image


def main(words: Sequence[str] | None = None) -> int:
    """Predicts as the command line says; returns how many images could not be."""
    args = make_parser().parse_args(words)
    jobs = find_jobs(Path(args.images).expanduser(), Path(args.out).expanduser())
    if not args.overwrite:
        refuse_to_overwrite(jobs, args.overlay)
    loaded = load_networks(args.checkpoint, (args.which,))
    print(loaded)
    size = frame(loaded, args.size, args.training_size)
    window = loaded.window if args.window is None else args.window
    device = start_processes(args.device)
    network = loaded.networks[args.which].to(device)

    failed = 0
    for base, path in progress(jobs.items(), len(jobs), unit="image"):
        try:
            picture = read(path)
            x = resized(torch.from_numpy(picture).permute(2, 0, 1), size) / 255
            predicted = predict_ids(network, x, (picture.shape[0], picture.shape[1]), device, window).cpu()
        except (ValueError, FileNotFoundError) as error:  # unreadable; the message names the file
            problem = str(error)
        except RuntimeError as error:  # of torch: too small for the encoder, or too large for the memory
            rows, cols = x.shape[-2:]
            problem = f"{path}: could not be predicted at {rows} x {cols} pixels: {str(error).partition(chr(10))[0]}"
        else:
            save_prediction(base, predicted, loaded.colours, picture if args.overlay else None)
            continue
        say(problem, file=sys.stderr)
        failed += 1
    print(f"{len(jobs) - failed} of {len(jobs)} images predicted: {args.out}")
    return failed


def find_jobs(source: Path, out: Path) -> Jobs:
    """The image, or all images below the folder but those below `out`, and where their predictions go.

    Raises:
        FileNotFoundError: no such file or folder, or a folder without images.
        ValueError: two images would be written to the same files.
    """
    if source.is_file():
        return {out / source.stem: source}
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: expected an image or a folder of images, found neither")
    if source.resolve() == out.resolve():
        raise ValueError(f"--out: expected another folder than that of the images, got {out}")
    Image.init()
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    jobs: Jobs = {}
    for path in sorted(source.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        if (
            hidden
            or path.suffix.lower() not in endings
            or not path.is_file()
            or out.resolve() in path.resolve().parents
        ):
            continue
        base = out / path.relative_to(source).with_suffix("")
        if base in jobs:
            raise ValueError(f"{jobs[base]} and {path.name} would be written to the same files; rename one of them")
        jobs[base] = path
    if not jobs:
        raise FileNotFoundError(f"{source}: expected images (.png, .jpg, ...), found none")
    return jobs


def refuse_to_overwrite(jobs: Jobs, overlay: bool) -> None:
    """Raises FileExistsError where one of the files to write exists."""
    existing = [path for base in jobs for path in prediction_files(base, overlay) if path.exists()]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise FileExistsError(f"{existing[0]}{more} exist already; give another --out, or --overwrite")


def frame(loaded: Loaded, size: Sequence[int] | None, training_size: bool) -> tuple[int, int] | None:
    """The (rows, cols) that images are resized to fit; None where they stay as they are."""
    if size:
        return (size[0], size[1]) if all(size) else None
    if loaded.size and not training_size:
        rows, cols = loaded.size
        print(f"images are predicted at their own size; the network was trained on {rows} x {cols}: --training-size")
    return loaded.size if training_size else None


def read(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3), RGB, upright.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, not a whole one, or one of more than 8 bits per channel.
    """
    image = open_image(path)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{path}: expected 8 bits per channel, got mode {image.mode}")
    with naming(path):
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def resized(image: Tensor, size: tuple[int, int] | None) -> Tensor:
    """(3, H, W) bytes to float, fitted into `size` and rounded as in training."""
    if size is None:
        return image.float()
    shape = fitted((image.shape[-2], image.shape[-1]), size)
    return F.interpolate(image[None].float(), shape, mode="bilinear")[0].round_()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add = parser.add_argument
    add("images", help="an image, or a folder whose images are taken with those of its subfolders")
    add("--out", required=True, metavar="FOLDER", help="where predictions go, in the tree of the images")
    add("--overlay", action="store_true", help="write the colours over the image too, half transparent")
    add("--which", default="student", choices=WHICH, help="network to predict with (default: student)")
    sizes = parser.add_mutually_exclusive_group()
    size = "frame that images are resized to fit for the network; 0 0: none, the default"
    sizes.add_argument("--size", type=pixels, nargs=2, metavar=("ROWS", "COLS"), help=size)
    training = "the same with the frame of the network's target images, such as 512 1024"
    sizes.add_argument("--training-size", action="store_true", help=training)
    return parser


if __name__ == "__main__":
    command(lambda: 1 if main() else 0)
