from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import train_dacs_mrm
import train_mic_mrm
from uda.data.class_statistics import count
from uda.data.domain import open_domain
from uda.training import dry_run
from uda.training.loop import train


def test_a_dry_run_says_what_it_found_and_leaves_nothing(settings, capsys):
    cfg = dataclasses.replace(settings, method="mic", dry_run=True)
    train(cfg, train_mic_mrm.train_step)
    printed = capsys.readouterr().out
    named = [line.split()[0] for line in printed.splitlines() if line[:1].strip()]
    steps = ["losses", "memory", "step", "loading", "ready"]
    data = ["source", "labels", "target", "validation"]
    assert named == ["run", "device", *data, "network", "weights", "Rebuilder", *steps]
    for words in ("6 images, the first of 48 x 96", "road", ", mrm ", "0.2 M parameters", "GiB at the peak"):
        assert words in printed
    assert all(len(line) <= 100 for line in printed.splitlines())
    assert not Path(settings.out).exists()


def test_a_dry_run_tells_masking_from_rebuilding(settings, capsys):
    cfg = dataclasses.replace(settings, method="mic", mrm_mask_only=True, dry_run=True)
    train(cfg, train_mic_mrm.train_step)
    printed = capsys.readouterr().out
    assert "mic with masking, not rebuilding, on target" in printed
    assert "mask tokens 43 k parameters, in training only" in " ".join(printed.split())
    assert "Rebuilder" not in printed


@pytest.mark.parametrize("pretrain_iterations", [2, 3])
def test_a_dry_run_sees_mrm_however_rare(settings, capsys, monkeypatch, pretrain_iterations):
    """What is said of memory and losses is of a step with it."""
    cfg = dataclasses.replace(settings, pretrain_iterations=pretrain_iterations, mrm_every=4, dry_run=True)
    seen = []

    def step(*args):
        losses = train_dacs_mrm.train_step(*args)
        seen.append("mrm" in losses)
        return losses

    monkeypatch.setattr(dry_run, "forget_peak", lambda device: seen.append("forgotten"))
    train(cfg, step)
    assert seen == ["forgotten", True, "forgotten", True, False]
    printed = capsys.readouterr().out
    assert "dacs with MRM on target in one step of 4" in printed
    assert ", mrm " in printed
    assert re.search(r"step +\S+ s in the mean, \S+ s with MRM and \S+ s without \(the first", printed)


@pytest.mark.parametrize(
    ("every", "steps", "said"),
    [
        (1, [9.0, 6.0], "6.00 s (the first 9.00 s): about 10.0 hours for 6000 steps"),
        (4, [9.0, 6.0, 2.0], "3.00 s in the mean, 6.00 s with MRM and 2.00 s without (the first 9.00 s): about 5.0 h"),
        (4, [21.0], "21.00 s with MRM (the first, later ones are faster): about 35.0 hours"),
    ],
)
def test_hours_are_those_of_the_mean_step(settings, every, steps, said):
    cfg = dataclasses.replace(settings, mrm_every=every, iterations=6000)
    assert said in dict(dry_run.times(cfg, 0.1, steps))["step"]


def test_a_dry_run_ends_at_what_is_wrong(settings, capsys):
    def diverging(*args):
        losses = train_mic_mrm.train_step(*args)
        return losses | {"mixed": losses["mixed"] * torch.nan}

    with pytest.raises(ValueError, match="dry run: expected finite losses, got mixed nan"):
        train(dataclasses.replace(settings, dry_run=True), diverging)
    assert "ready" not in capsys.readouterr().out


def test_a_dry_run_of_a_run_to_resume_reads_its_checkpoint(settings, capsys):
    """And leaves the run as it is."""
    train(settings, train_mic_mrm.train_step)
    folder = Path(settings.out)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    again = dataclasses.replace(settings, resume=settings.out, dry_run=True)
    train(again, train_mic_mrm.train_step)
    assert f"checkpoint  {folder / 'checkpoint.pt'}," in capsys.readouterr().out.replace("\n            ", " ")
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("checkpoint.pt", "checkpoint-previous.pt"):
        (folder / name).write_bytes(before["checkpoint.pt"][:1000])
    with pytest.raises(ValueError, match=r"checkpoint\.pt: could not be read as a whole file of tensors"):
        train(again, train_mic_mrm.train_step)


def test_a_dry_run_has_what_follows_a_step(settings):
    """The teacher's average, of which VFM-UDA's is one."""
    seen = []
    cfg = dataclasses.replace(settings, dry_run=True)
    train(cfg, train_mic_mrm.train_step, lambda *args: seen.append(args[0]))
    assert seen and set(seen) == {1}


def test_a_dry_run_reads_the_statistics_of_rare_class_sampling(settings, scenes, tmp_path, capsys):
    """Those that lie beside the data: sound, without a class, of another form."""
    root = tmp_path / "gta5"
    shutil.copytree(scenes[0], root)
    domain = open_domain(f"gta5:{root}")
    counts = count(domain, range(len(domain)))
    files = [sample.label.name for sample in domain.samples]
    cfg = dataclasses.replace(settings, source=f"gta5:{root}", rare_classes=True, rare_min_pixels=10, dry_run=True)

    def tried(entries):
        (root / "sample_class_stats.json").write_text(json.dumps(entries))
        train(cfg, train_dacs_mrm.train_step)
        return " ".join(capsys.readouterr().out.split())

    sound = [{**{str(k): n for k, n in pixels.items()}, "file": file} for pixels, file in zip(counts, files)]
    assert "rare class sampling has the statistics of 6 files" in tried(sound)
    said = tried([{"file": file} for file in files])
    assert re.search(r"sample_class_stats\.json: says 0 pixels of .*; not used, delete it", said)
    assert "all 6 label files are read before a first run" in said
    with pytest.raises(ValueError, match=r"sample_class_stats\.json: expected the statistics of DAFormer's"):
        tried([{"0": 3}])
