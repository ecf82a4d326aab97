"""What the README tells a newcomer to type and to write."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from pages import ROOT, blocks, commands
from torch import nn

from mrm_loss import MRM

README, OWN_DATA = ROOT / "README.md", ROOT / "examples" / "own_data.md"
BLOCKS = {name: [b for b in blocks(README) if b.language == name] for name in ("diff", "python")}


def run(words, cwd):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, *words], text=True, capture_output=True, cwd=cwd, env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_script_to_paste_trains(tmp_path):
    code = next(block for block in BLOCKS["python"] if block.text.startswith("import"))
    (tmp_path / "script.py").write_text(code.text)
    losses = [float(line.split()[-1]) for line in run(["-W", "error", "script.py"], tmp_path).splitlines()]
    assert len(losses) == 10
    assert losses[-1] < losses[0]


def test_the_three_lines_train_encoder_decoder_and_rebuilder():
    """The diff, run with a network and losses of its reader's own."""
    (diff,) = BLOCKS["diff"]
    channels, network = [64, 128, 320, 512], nn.ModuleDict()
    network["encoder"] = nn.ModuleList(nn.Conv2d(3, c, 4 * 2**i, 4 * 2**i) for i, c in enumerate(channels))
    network["decoder"] = nn.Conv2d(sum(channels), 5, 1)

    def encoder(images):
        return [stage(images) for stage in network["encoder"]]

    def decoder(feats):
        size = feats[0].shape[-2:]
        return network["decoder"](torch.cat([nn.functional.interpolate(f, size) for f in feats], 1))

    images = torch.randn(1, 3, 512, 512)
    space = {
        "MRM": MRM,
        "device": "cpu",
        "optimizer": torch.optim.SGD(network.parameters(), lr=0.1),
        "batches": [(images, images)],
        "teacher_labels": lambda target: (torch.randint(5, (1, 64, 64)), torch.ones(1, 64, 64)),
        "supervised_loss": lambda source: torch.zeros((), requires_grad=True),
        "self_training_loss": lambda *_: 0,
        "change_colours": lambda images: 0.9 * images,
        "encoder": encoder,
        "decoder": decoder,
    }
    before = [p.clone() for p in network.parameters()]
    exec("\n".join(line[1:] for line in diff.text.splitlines()), space)
    assert all(not torch.equal(a, b) for a, b in zip(before, network.parameters()))
    assert all(p.grad is not None for p in space["mrm"].parameters())


def test_the_lines_for_rare_classes():
    """A pixel of a class with a ninth of the pixels weighs three times as much, and all of them as much as before."""
    (block,) = [b for b in BLOCKS["python"] if "rarity" in b.text]
    labels = torch.tensor([[[0] * 9 + [1]]])
    space = {"torch": torch, "pseudo_labels": labels, "weights": torch.full((1, 1, 1), 0.5)}
    exec(block.text, space)
    weights = space["weights"]
    assert weights.mean() == pytest.approx(0.5)
    assert weights[0, 0, 9] / weights[0, 0, 0] == pytest.approx(3)
    ignored = torch.cat([labels, torch.full((1, 4, 10), 255)], 1).byte()  # as PNG files give them
    again = {"torch": torch, "pseudo_labels": ignored, "weights": torch.full((1, 1, 1), 0.5)}
    exec(block.text, again)
    assert torch.allclose(again["weights"][:, :1], weights)


@pytest.mark.slow
def test_own_data(tmp_path):
    """The page's tree, classes and two commands, with a network and crops for a minute."""
    pytest.importorskip("PIL", reason="the trainers need the examples extra")
    from image_files import write

    page = blocks(OWN_DATA)
    (classes,) = (block for block in page if block.language == "json")
    for domain in ("source", "target"):
        (tmp_path / "mine" / domain).mkdir(parents=True)
        (tmp_path / "mine" / domain / "classes.json").write_text(classes.text)
    draw = np.random.default_rng(0)
    for name in ("0001", "0002"):
        pixels, ids = draw.integers(0, 255, (48, 96, 3), np.uint8), draw.integers(0, 5, (48, 96), np.uint8)
        write(tmp_path / "mine/source/images" / f"{name}.jpg", pixels)
        write(tmp_path / "mine/source/labels" / f"{name}.png", ids)
        write(tmp_path / "mine/target/images/a" / f"frame_{name}.jpg", pixels)
    write(tmp_path / "new.jpg", draw.integers(0, 255, (50, 90, 3), np.uint8))
    train, predict = next(commands(block) for block in page if block.language == "")
    smaller = "--encoder small --decoder small --encoder-weights= --crop 48 96 --rare-min-pixels 1 --workers 0"
    smaller += " --device cpu --iterations 2 --mrm-grid 6 12 --mrm-width 16 --mrm-heads 2"
    script = str(ROOT / train[1])
    printed = run([script, *train[2:], *smaller.split()], tmp_path)
    assert "nothing to evaluate on" in printed
    run([str(ROOT / predict[1]), *predict[2:]], tmp_path)
    for ending in ("_labelTrainIds.png", "_colour.png", "_overlay.png"):
        assert (tmp_path / "predictions" / f"new{ending}").is_file()
