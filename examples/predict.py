"""Classes of every pixel of one's own images, from a run or a released file of DAFormer, HRDA, MIC or VFM-UDA.

python examples/predict.py runs/mic+mrm-seed0 street.jpg --out predictions
python examples/predict.py runs/mic+mrm-seed0 photos/ --out predictions --overlay      # all images below the folder
python examples/predict.py iter_40000.pth photos/ --out predictions --size 0 0          # at the images' own size

For each image NAME, of the image's own size: NAME_labelTrainIds.png holds the train ids, NAME_colour.png the classes'
colours, NAME_overlay.png both in one picture. Images are read as in training, upright as viewers show them (EXIF
orientation), and resized for the network to fit the frame that it is evaluated at; predictions are resized back.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from uda.checkpoints.evaluation import predict_ids, prediction_files, save_prediction
from uda.checkpoints.loading import WHICH, add_arguments, load_networks, pixels, size_and_window
from uda.data.domain import fit, fitted
from uda.data.images import read_rgb
from uda.data.listing import images_below
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
    size, window = size_and_window(loaded, args)
    Image.MAX_IMAGE_PIXELS = args.max_pixels // 2  # above which Pillow warns; it refuses twice as many
    device = start_processes(args.device)
    network = loaded.networks[args.which].to(device)

    failed = 0
    for base, path in progress(jobs.items(), len(jobs), unit="image"):
        try:
            picture = read_rgb(path)
            own = (picture.shape[0], picture.shape[1])
            x = fit(torch.from_numpy(picture).permute(2, 0, 1), size)
            predicted = predict_ids(network, x, own, device, window).cpu()
        except (ValueError, FileNotFoundError) as error:  # unreadable; the message names the file
            problem = str(error)
        except RuntimeError as error:  # of torch: too small for the encoder, or too large for the memory
            rows, cols = fitted(own, size) if size else own
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
    if out.resolve() in (source.resolve(), *source.resolve().parents):
        raise ValueError(f"--out: expected another folder than that of the images and those above it, got {out}")
    jobs: Jobs = {}
    for path in images_below(source, dead_links=True):
        if out.resolve() in path.resolve().parents:
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


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add = parser.add_argument
    add("images", help="an image, or a folder whose images are taken with those of its subfolders")
    add("--out", required=True, metavar="FOLDER", help="where predictions go, in the tree of the images")
    add("--overlay", action="store_true", help="write the colours over the image too, half transparent")
    add("--which", default="student", choices=WHICH, help="network to predict with (default: student)")
    most = "refuse images of more pixels (default: Pillow's own, 179 million; every class takes 4 bytes a pixel)"
    add("--max-pixels", type=pixels, default=2 * (Image.MAX_IMAGE_PIXELS or 0), metavar="N", help=most)
    return parser


if __name__ == "__main__":
    command(lambda: 1 if main() else 0)
