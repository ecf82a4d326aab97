"""Draws the README's picture of the method from a trained run: real features, masked and rebuilt.

    python examples/train_dacs_mrm.py --seed 1
    python benchmarks/method_picture.py runs/dacs+mrm-seed1

Features are those of the coarsest level, projected on the three directions in which they vary most. The picture has a
ground of its own, so that it can be read on light and dark pages. Writes benchmarks/results/method.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from shared.provenance import ROOT
from torch import Tensor

sys.path.insert(0, str(ROOT / "examples"))

from uda.checkpoints.loading import load_networks
from uda.data.domain import open_domain
from uda.data.labels import colourise
from uda.data.transforms import normalise
from uda.runtime.rng import generator
from uda.training.models import mrm_of

INK, SOFT, GROUND, ACCENT = "#1f2933", "#7b8794", "#f7f5f0", "#c2410c"
IMAGE, WIDTH, HEIGHT, PITCH = (1.9, 0.95), 15.3, 3.3, 3.17  # inches


@torch.no_grad()
def stages(run: str, index: int) -> dict[str, np.ndarray]:
    """Pictures (h, w, 3) in [0, 1] of what MRM makes of one validation image."""
    loaded = load_networks(run)
    student, teacher, settings = loaded.networks["student"], loaded.networks["teacher"], loaded.settings
    if settings is None or not settings.uses_mrm:
        raise SystemExit(f"{run}: expected a run with MRM")
    mrm: Any = mrm_of(settings, student)
    saved = torch.load(loaded.path, weights_only=True)["student"]
    mrm.load_state_dict({key.removeprefix("mrm."): v for key, v in saved.items() if key.startswith("mrm.")})
    domain = open_domain(settings.target or f"cityscapes:{settings.scenes}/cityscapes", "val")
    image = domain.image(index)
    x = normalise(image)[None]
    feats = student.encode(x)
    rebuilt, mask = mrm.rebuild(feats, generator=generator(settings.seed, "picture", index))
    colour = projection(feats[-1])
    hidden = torch.nn.functional.interpolate(mask.float(), feats[-1].shape[-2:])[0, 0].bool().numpy()
    masked = colour(feats[-1])
    masked[hidden] = 0.82

    def predicted(logits: Tensor) -> np.ndarray:
        logits = torch.nn.functional.interpolate(logits, x.shape[-2:], mode="bilinear")
        return colourise(logits[0].argmax(0).numpy(), loaded.colours) / 255

    return {
        "target image": image.permute(1, 2, 0).numpy(),
        "features": colour(feats[-1]),
        "40 % masked": masked,
        "rebuilt": colour(rebuilt[-1]),
        "prediction": predicted(student.decode(rebuilt)),
        "pseudo-label": predicted(teacher.predict(x)),
    }


def projection(level: Tensor) -> Any:
    """A function from a level (1, C, h, w) to colours (h, w, 3), along the level's three principal directions."""
    cells = level[0].flatten(1).T  # (h * w, C)
    mean = cells.mean(0)
    _, _, directions = torch.linalg.svd(cells - mean, full_matrices=False)
    low, high = np.percentile(((cells - mean) @ directions[:3].T).numpy(), (2, 98), axis=0)

    def colour(other: Tensor) -> np.ndarray:
        values = ((other[0].flatten(1).T - mean) @ directions[:3].T).numpy()
        shown = np.clip((values - low) / (high - low), 0, 1) * 0.8 + 0.1
        return shown.reshape(*other.shape[-2:], 3)

    return colour


def draw(pictures: dict[str, np.ndarray], path: Path) -> None:
    figure = plt.figure(figsize=(WIDTH, HEIGHT), facecolor=GROUND)
    canvas = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, HEIGHT))
    canvas.set_axis_off()
    width, height = IMAGE
    places = {name: (0.35 + i * PITCH, 1.85) for i, name in enumerate(list(pictures)[:5])}
    places["pseudo-label"] = (places["prediction"][0], 0.3)
    for name, picture in pictures.items():
        left, bottom = places[name]
        axes = figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT))
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_color(SOFT)
        canvas.text(left + width / 2, bottom + height + 0.1, name, ha="center", va="bottom", color=INK, fontsize=12.5)

    def box(x: float, y: float, text: str, colour: str = INK, width: float = 0.94, height: float = 0.5) -> None:
        patch = FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.09", lw=1.3,
            edgecolor=colour, facecolor="white", zorder=3,
        )  # fmt: skip
        canvas.add_patch(patch)
        canvas.text(x, y, text, ha="center", va="center", color=colour, fontsize=11, zorder=4, linespacing=1.1)

    def arrow(start: tuple[float, float], end: tuple[float, float], style: str = "-|>", colour: str = INK) -> None:
        canvas.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=13, lw=1.4, color=colour))

    row = [places[name] for name in list(pictures)[:5]]
    middle = 1.85 + height / 2
    words = ["encoder", "mask", "two\nblocks", "decoder"]
    for (left, _), (right, _), word in zip(row, row[1:], words):
        start, end = left + width, right
        arrow((start + 0.05, middle), (end - 0.04, middle))
        box((start + end) / 2, middle, word, ACCENT if word in ("mask", "two\nblocks") else INK)
    # the teacher sees the whole image
    low = 0.3 + height / 2
    under = places["target image"][0] + width / 2
    canvas.plot([under, under], [1.78, low], color=INK, lw=1.4, solid_capstyle="round")
    arrow((under, low), (places["pseudo-label"][0] - 0.05, low))
    box(6.6, low, "teacher: moving average of encoder and decoder", width=3.9)
    # the loss between prediction and pseudo-label
    centre = places["prediction"][0] + width / 2
    arrow((centre, 1.8), (centre, 1.52), "<|-|>", ACCENT)
    canvas.text(centre - 0.12, 1.66, "cross-entropy", ha="right", va="center", color=ACCENT, fontsize=11.5)
    figure.savefig(path, dpi=110, facecolor=GROUND)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run with MRM on the embedded scenes")
    parser.add_argument("--image", type=int, default=53, help="number of the validation image")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "method.png")
    args = parser.parse_args()
    draw(stages(args.run, args.image), args.out)
    print(args.out)


if __name__ == "__main__":
    main()
