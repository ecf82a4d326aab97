"""VFM-UDA's trainer as a whole: its step, its teacher, resuming, two processes, wrong settings."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_mic_mrm
import train_vfm_mrm
from torch import Tensor
from uda.checkpoints.loading import load_networks
from uda.selftraining.draws import Draws
from uda.settings import Settings, load_settings, preset_values
from uda.training.loop import train
from uda.training.optimizers import optimizers_of, rate_factor
from uda.training.run import Run, batches_of, one_step

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPT = str(EXAMPLES / "train_vfm_mrm.py")


@pytest.fixture
def vfm(settings) -> Settings:
    return dataclasses.replace(settings, method="vfm", encoder="small_vit", decoder="light")


def run_to_the_end(settings: Settings) -> Run:
    return train(settings, train_vfm_mrm.train_step, train_vfm_mrm.after_step)


@pytest.mark.parametrize("decoder", ["light", "daformer"])
def test_a_step(vfm, decoder):
    cfg = dataclasses.replace(vfm, decoder=decoder, pretrain_iterations=0, scale_jitter=0.1, threshold=0.055)
    run = Run(cfg)
    losses = one_step(run, batches_of(run)[0], train_vfm_mrm.train_step)
    assert set(losses) == {"source", "mixed", "trust", "masked", "mrm"}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    assert all(p.grad is not None for p in run.models.student.parameters())
    assert run.models.network.encoder.mask_token.grad.abs().max() > 0


def test_an_encoder_without_tokens(settings):
    """Pyramids get MIC's blocks of pixels in place of hidden patches."""
    run = Run(dataclasses.replace(settings, method="vfm", pretrain_iterations=0))
    losses = one_step(run, batches_of(run)[0], train_vfm_mrm.train_step)
    assert losses["masked"] > 0


def test_a_vision_transformer_in_the_other_trainers(settings):
    cfg = dataclasses.replace(settings, method="mic", encoder="small_vit", decoder="light", pretrain_iterations=0)
    run = Run(cfg)
    losses = one_step(run, batches_of(run)[0], train_mic_mrm.train_step)
    assert set(losses) == {"source", "mixed", "trust", "masked", "mrm"}
    assert [n for n, p in run.models.student.named_parameters() if p.grad is None] == ["network.encoder.mask_token"]


class Spy(Draws):
    """Notes what each random choice was asked for."""

    def __init__(self, settings: Settings, step: int) -> None:
        super().__init__(settings, step)
        self.asked: dict[str, Tensor] = {}

    def weak_colours(self, purpose: str, images: Tensor) -> Tensor:
        self.asked[f"weak {purpose}"] = images
        return super().weak_colours(purpose, images)

    def colours(self, purpose: str, images: Tensor) -> Tensor:
        self.asked[f"strong {purpose}"] = images
        return super().colours(purpose, images)

    def hidden(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        self.asked["hidden"] = super().hidden(images, grid)
        return self.asked["hidden"]


def test_which_image_gets_which_colours(vfm):
    """As in VFM-UDA's code: the source that is mixed and the target that is masked are not jittered weakly before."""
    cfg = dataclasses.replace(vfm, pretrain_iterations=0, mic_mask_ratio=0.7, batch_size=8)
    run = Run(cfg)
    batch, draws = batches_of(run)[0], Spy(cfg, 0)
    train_vfm_mrm.train_step(0, batch, run.models, cfg, draws)
    pasted = draws.pasted(batch.source_labels, per_image=False)[:, None]
    assert torch.equal(draws.asked["weak source"], batch.source_images)
    assert torch.equal(draws.asked["weak target"], batch.target_images)
    assert torch.equal(draws.asked["strong masked"], batch.target_images)
    assert torch.equal(draws.asked["strong mixed"] * pasted, batch.source_images * pasted)
    assert not torch.equal(draws.asked["strong mixed"] * ~pasted, batch.target_images * ~pasted)
    assert draws.asked["hidden"].float().mean().item() == pytest.approx(0.7, abs=0.03)


def test_the_source_loss_is_a_mean_over_labelled_pixels(vfm):
    cfg = dataclasses.replace(vfm, method="source-only", pretrain_iterations=0)
    run = Run(cfg)
    batch, network = batches_of(run)[0], run.models.network
    batch.source_labels[:, :, :50] = 255
    losses = train_vfm_mrm.train_step(0, batch, run.models, cfg, Draws(cfg, 0))
    images = Draws(cfg, 0).weak_colours("source", batch.source_images)
    expected = torch.nn.functional.cross_entropy(network.predict(images), batch.source_labels, ignore_index=255)
    torch.testing.assert_close(losses["source"], expected.detach())


def test_the_teacher_follows_at_the_end_of_a_step(vfm):
    """Parameters and BatchNorm's statistics, by 1/2 after the first step, by 1/3 after the second."""
    run = Run(dataclasses.replace(vfm, pretrain_iterations=0))
    run.after_step = train_vfm_mrm.after_step
    data = batches_of(run)
    for step, share in enumerate((1 / 2, 1 / 3)):
        seen = {}
        predict = run.models.teacher.predict

        def spy(images: Tensor, predict=predict, seen=seen) -> Tensor:
            logits = predict(images)
            seen["state"] = copy.deepcopy(run.models.teacher.state_dict())
            return logits

        run.models.teacher.predict = spy
        one_step(run, data[step], train_vfm_mrm.train_step)
        run.step += 1
        student = run.models.network.state_dict()
        for key, value in run.models.teacher.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value, (1 - share) * seen["state"][key] + share * student[key], msg=key)
        del run.models.teacher.predict


def test_rates_of_every_parameter():
    """5e-5 times the root of a batch of 8 on the head, a tenth on the encoder, decay 0.01 everywhere; the schedule."""
    network = pytest.importorskip("uda.networks").build_network("small_vit", "light", 19)
    settings = Settings(**(preset_values("paper", "vfm") | {"method": "vfm", "mrm_weight": 0.0}))
    (optimizer,) = optimizers_of(settings, network, None)
    names = {p: name for name, p in network.named_parameters()}
    found = {names[p]: (g["initial_lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert set(found) == set(names.values())
    for name, (rate, decay) in found.items():
        assert rate == pytest.approx(1.4142135623730951e-4 * (0.1 if name.startswith("encoder.") else 1.0)), name
        assert decay == 0.01
    factors = {0: 1e-3, 1: 1e-3 + 0.999 / 1499, 1499: 1.0, 1500: 0.9625, 20_000: 0.5, 39_999: 1 / 40_000}
    assert {step: rate_factor(step, settings) for step in factors} == pytest.approx(factors, rel=1e-12)


def test_a_resumed_run_is_the_uninterrupted_run(vfm, tmp_path):
    whole = run_to_the_end(vfm)
    calls = []

    def interrupted(*args):
        calls.append(args[0])
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_vfm_mrm.train_step(*args)

    cut = dataclasses.replace(vfm, out=str(tmp_path / "cut"))
    with pytest.raises(SystemExit, match="interrupted at step 4 of 6; go on with --resume"):
        train(cut, interrupted, train_vfm_mrm.after_step)
    resumed = dataclasses.replace(load_settings(tmp_path / "cut" / "settings.json"), resume=cut.out)
    again = run_to_the_end(resumed)
    a, b = (torch.load(run.folder / "checkpoint.pt", weights_only=True) for run in (whole, again))
    for part in ("student", "teacher"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][key], b[part][key]) for key in a[part])
    loaded = load_networks(whole.folder)
    assert set(loaded.networks) == {"student", "teacher"}


def test_arms_pair_by_seed(vfm, tmp_path):
    """Without MRM the first steps are those with it: the same data, mixes and augmentations."""
    rows = []
    for weight in (0.0, 2.0):
        run = run_to_the_end(dataclasses.replace(vfm, mrm_weight=weight, out=str(tmp_path / f"run{weight}")))
        rows.append([json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()])
    baseline, with_mrm = ([row for row in arm if "source" in row] for arm in rows)
    for a, b in zip(baseline[:3], with_mrm[:3]):
        assert a == {key: b[key] for key in a}
    assert with_mrm[2]["mrm"] > 0
    assert baseline[-1]["source"] != with_mrm[-1]["source"]


def launch(*words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(words, env=env, text=True, capture_output=True, timeout=240)


def words(cfg: Settings) -> list[str]:
    options = [
        "--source",
        cfg.source,
        "--target",
        cfg.target,
        "--out",
        cfg.out,
        "--crop",
        "48",
        "96",
        "--log-every",
        "1",
    ]
    options += ["--batch-size", "2", "--pretrain-iterations", "1", "--iterations", "2", "--threshold", "0.1"]
    return [*options, "--mrm-grid", "6", "12", "--device", "cpu"]


@pytest.mark.slow
def test_the_script_in_two_processes(vfm):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = launch(*torchrun, SCRIPT, *words(vfm))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nmIoU  ") == 1
    assert {"student", "teacher"} == set(json.loads((Path(vfm.out) / "result.json").read_text())["miou"])
    assert load_networks(vfm.out).settings.encoder == "small_vit"


@pytest.mark.slow
def test_an_unreachable_hub_is_one_line(vfm, tmp_path, monkeypatch):
    pytest.importorskip("timm", minversion="1.0.20")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    encoder = ["--encoder", "vit_small_patch14_dinov2.lvd142m", "--encoder-weights", "hub"]
    done = launch(sys.executable, SCRIPT, *words(vfm), *encoder)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the weights of vit_small_patch14_dinov2.lvd142m could not be fetched")
    assert "--encoder-weights FILE" in last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--decoder", "deeplabv2"], "--decoder: expected light or daformer with --encoder small_vit"),
        (["--hrda"], "this trainer has one resolution; use train_mic_mrm.py"),
        (["--encoder", "vit_giant"], "--encoder: expected small, or a name of"),
        (["--encoder-weights", "nowhere.pth"], "--encoder-weights: expected a file, found none at nowhere.pth"),
        (["--scale-jitter", "1"], "--scale-jitter: expected a number of at least 0 and below 1"),
        (["--fd-weight", "0.1"], "--fd-weight: vfm has no feature distance"),
    ],
)
def test_wrong_settings(options, message, monkeypatch, capsys):
    from uda.settings import parse

    pytest.importorskip("timm")
    monkeypatch.setattr(sys, "argv", ["train_vfm_mrm.py", *options])
    with pytest.raises(SystemExit):
        parse("", ("vfm", "source-only"), mrm_on=("target",))
    assert message in capsys.readouterr().err
