from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import train_mic_mrm
from uda.training.loop import train


def test_a_dry_run_says_what_it_found_and_leaves_nothing(settings, capsys):
    cfg = dataclasses.replace(settings, method="mic", dry_run=True)
    train(cfg, train_mic_mrm.Student, train_mic_mrm.train_step)
    printed = capsys.readouterr().out
    named = [line.split()[0] for line in printed.splitlines() if line[:1].strip()]
    steps = ["losses", "memory", "step", "loading", "ready"]
    data = ["source", "labels", "target", "validation"]
    assert named == ["run", "device", *data, "network", "weights", "Rebuilder", *steps]
    for words in ("6 images, the first of 48 x 96", "road", ", mrm ", "0.2 M parameters", "GiB at the peak"):
        assert words in printed
    assert all(len(line) <= 100 for line in printed.splitlines())
    assert not Path(settings.out).exists()


def test_a_dry_run_does_what_comes_after_a_step(settings):
    steps = []
    cfg = dataclasses.replace(settings, dry_run=True)
    train(cfg, train_mic_mrm.Student, train_mic_mrm.train_step, lambda step, *_: steps.append(step))
    assert steps and min(steps) > 0


def test_a_dry_run_ends_at_what_is_wrong(settings, capsys):
    def diverging(*args):
        losses = train_mic_mrm.train_step(*args)
        return losses | {"mixed": losses["mixed"] * torch.nan}

    with pytest.raises(ValueError, match="dry run: expected finite losses, got mixed nan"):
        train(dataclasses.replace(settings, dry_run=True), train_mic_mrm.Student, diverging)
    assert "ready" not in capsys.readouterr().out
