"""Whole runs on an NVIDIA GPU: stopped and resumed, evaluated there and on the CPU, with every saving."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
import torch
import train_mic_mrm
from short_runs import losses, on_two_resolutions, stopped_at_step_4
from uda.training.loop import train

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PRECISIONS = [{}, {"precision": "bf16"}, {"precision": "fp16"}]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def settings(settings):
    """MIC on two resolutions, on the GPU."""
    return on_two_resolutions(settings, method="mic", device="cuda", eval_every=3, save_every=3)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_stopped_run_goes_on(settings, tmp_path, precision):
    """As it would have gone, but for the order in which a GPU adds up."""
    whole, half = (dataclasses.replace(settings, out=str(tmp_path / name), **precision) for name in ("whole", "half"))
    expected = losses(train(whole, train_mic_mrm.train_step))
    with pytest.raises(RuntimeError, match="stopped"):
        train(half, stopped_at_step_4)
    again = train(dataclasses.replace(half, resume=half.out), train_mic_mrm.train_step)
    found = losses(again)
    assert len(found) == len(expected) == 6
    for a, b in zip(found, expected):
        assert a == pytest.approx(b, rel=0.1, abs=1e-2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_run_is_evaluated_on_either_device(settings, tmp_path, precision):
    run = train(dataclasses.replace(settings, **precision), train_mic_mrm.train_step)
    written = json.loads((run.folder / "result.json").read_text())["miou"]
    for device in ("cuda", "cpu"):
        result = evaluate.main([str(run.folder), "--json", str(tmp_path / f"{device}.json"), "--device", device])
        assert result["miou"] == pytest.approx(written, abs=0.05)


def test_the_script_with_every_saving(settings):
    """bf16, checkpointed, batches from two processes; the GPU is found by itself."""
    words = ["--source", settings.source, "--target", settings.target, "--out", settings.out]
    words += ["--crop", "48", "96", "--pretrain-iterations", "2", "--iterations", "2", "--precision", "bf16"]
    words += ["--checkpoint-activations", "--workers", "2"]
    command = [sys.executable, str(EXAMPLES / "train_mic_mrm.py"), *words]
    done = subprocess.run(command, env=os.environ, text=True, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads((Path(settings.out) / "result.json").read_text())["device"] == "cuda:0"
    assert "mIoU" in done.stdout


def test_a_dry_run_tells_the_gpus_memory(settings, capsys):
    train(dataclasses.replace(settings, dry_run=True), train_mic_mrm.train_step)
    printed = " ".join(capsys.readouterr().out.split())
    assert "device cuda:0, fp32" in printed
    assert "on the device" in printed
