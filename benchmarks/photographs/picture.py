"""Draws what the networks of runs see in some validation images, beside the network that all of them start from.

    python benchmarks/photographs/picture.py drawn-camvid dacs "dacs+mrm" --seed 201 --camvid PATH --out FILE.png

The runs must have been made by run.py with the same --work. `--maps-only` leaves out the photographs and their labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import ARMS
from data import PAIRS
from single import add_places, given, network_file, opened, settings_of, start_file
from trainers import colourise, predict_ids, save_panel


def draw(args: argparse.Namespace) -> None:
    arm = ARMS[args.arms[0]]
    settings = settings_of(args.pair, arm, args.seed, args.work, args.camvid, args.idd, **given(args.set))
    # title of a column -> weights of its network
    columns = {"source only": torch.load(start_file(args.pair, arm, settings, args.work), weights_only=True)["network"]}
    for name in args.arms:
        columns[name] = torch.load(network_file(args.pair, name, args.seed, args.work), weights_only=True)
    run, _ = opened(arm, settings, args.work)
    run.board.close()
    domain, classes = run.validation, run.models.classes
    assert domain is not None
    network = run.models.network.eval()
    rows: list[dict[str, Any]] = [{} for _ in range(args.images)]
    places = np.linspace(0, len(domain) - 1, args.images + 2).astype(int)[1:-1].tolist()
    for title, weights in columns.items():
        network.load_state_dict(weights)
        for row, index in zip(rows, places):
            pixels, labels = domain.with_labels(index)
            if not args.maps_only and not row:
                row["photograph"] = pixels.permute(1, 2, 0).numpy()
                row["labels"] = colourise(labels.numpy(), classes.colours)
            size = (labels.shape[0], labels.shape[1])
            ids = predict_ids(network, pixels, size, run.device).numpy()
            row[title] = colourise(ids, classes.colours)
    save_panel(rows, {name: colour / 255 for name, colour in zip(classes.names, classes.colours)}, args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", choices=list(PAIRS), metavar="PAIR")
    parser.add_argument("arms", nargs="+", choices=list(ARMS), metavar="ARM")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--maps-only", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("panel.png"))
    add_places(parser)
    draw(parser.parse_args())


if __name__ == "__main__":
    main()
