"""benchmarks/photographs: the queue, the intervals, what arms change, and a row from end to end."""

# ruff: noqa: E402 (the folder is made known to Python first)
from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "photographs"
sys.path.insert(0, str(FOLDER))

pytest.importorskip("timm", reason="the network's encoder")
pytest.importorskip("segmentation_models_pytorch", reason="the network's encoder")

import changes
import data
import prepare
import report
import run
import single
import trainers
from arms import ARMS, QUEUE
from paired import paired
from uda.selftraining.draws import Draws
from uda.settings import parse

from mrm_loss import MRM


def street(path: Path, label: Path, size: tuple[int, int], classes: int, seed: int) -> None:
    """A made-up image whose colours follow its labels, and its label file."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(classes, size=(6, 8)), np.ones((size[0] // 6, size[1] // 8))).astype(np.uint8)
    colours = np.stack([labels * 20, 255 - labels * 20, labels * 10], axis=-1).astype(np.uint8)
    for file, content in ((path, colours), (label, labels)):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content).save(file)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    """CamVid and IDD-Lite with a handful of images, and random weights in place of ImageNet's."""
    import timm

    root = tmp_path_factory.mktemp("photographs")
    for part in ("train", "val", "test"):
        for number in range(8):
            name = f"0006R0_{number}.png"
            street(root / "CamVid" / part / name, root / "CamVid" / f"{part}annot" / name, (120, 160), 12, number)
    for split in ("train", "val"):
        for number in range(4):
            image = root / "idd" / "leftImg8bit" / split / "1" / f"{number}_image.jpg"
            label = root / "idd" / "gtFine" / split / "1" / f"{number}_label.png"
            street(image, label, (114, 160), 7, number)
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    (root / "work").mkdir()
    torch.save({k: v for k, v in state.items() if not k.startswith("classifier.")}, root / "work" / "lite0.pth")
    return {"camvid": root / "CamVid", "idd": root / "idd", "work": root / "work"}


def settings(places, name: str, **others) -> trainers.Settings:
    small = {"pretrain_iterations": 2, "iterations": 3, "warmup": 0, "threshold": 0.1, "rare_min_pixels": 0}
    return single.settings_of(
        "camvid-idd", ARMS[name], 0, places["work"], places["camvid"], places["idd"], **(small | others)
    )


@pytest.mark.parametrize("name", ["dacs+mrm", "dacs", "dacs, balanced+mrm"])
def test_the_trainers_command_has_the_settings_of_the_row(name, places, monkeypatch):
    cfg = settings(places, name)
    monkeypatch.setattr(sys, "argv", ["train_dacs_mrm.py", *prepare.words_of(cfg)])
    parsed = parse("", ("dacs", "source-only"), ("target",))
    assert parsed == dataclasses.replace(cfg, device="auto")


@pytest.mark.slow
def test_balancing_changes_the_mixed_pass_alone(places):
    losses = []
    for name in ("dacs", "dacs, balanced"):
        opened, step = single.opened(ARMS[name], settings(places, name, threshold=0.15), places["work"])
        single.advance(opened, step, 2)
        batch = trainers.batches_of(opened)[2]
        losses.append(step(0, batch, opened.models, opened.settings, Draws(opened.settings, 2)))
    plain, balanced = losses
    assert balanced["source"] == plain["source"]
    assert balanced["trust"] == plain["trust"]
    assert 0 < plain["trust"] < 1
    assert float(balanced["mixed"]) != float(plain["mixed"])


@pytest.mark.slow
def test_a_row_from_the_two_folders(places, tmp_path):
    words = [
        sys.executable,
        str(FOLDER / "run.py"),
        "--pairs",
        "camvid-idd",
        "--arms",
        "dacs",
        "dacs+mrm",
        "source only",
        "--seeds",
        "7",
    ]
    words += ["--parallel", "1", "--results", str(tmp_path / "runs.jsonl")]
    where = [word for option, path in places.items() for word in (f"--{option}", str(path))]
    words += where
    few = ["pretrain_iterations=2", "iterations=3", "eval_every=2", "rare_min_pixels=0"]
    subprocess.run([*words, "--set", *few], check=True)
    lines = run.read_lines(tmp_path / "runs.jsonl")
    assert [line["arm"] for line in lines] == ["dacs", "dacs+mrm", "source only"]
    assert len({line["start"] for line in lines}) == 1, "one network that all start from"
    assert [line["teacher"] is None for line in lines] == [False, False, True]
    assert [point["step"] for point in lines[0]["curve"]] == [2, 3]
    assert set(lines[0]["iou"]) == set(lines[0]["curve"][-1]["labels"]["classes"]) == set(data.SEVEN)
    assert str(places["work"]) not in json.dumps(lines)
    assert report.tables(lines).startswith("# Results")
    drawn = [sys.executable, str(FOLDER / "picture.py"), "camvid-idd", "dacs", "dacs+mrm", "--seed", "7"]
    drawn += ["--out", str(tmp_path / "panel.png"), "--images", "2", *where]
    subprocess.run([*drawn, "--set", *few], check=True)
    assert Image.open(tmp_path / "panel.png").width > 0
    assert "0 runs" in subprocess.run([*words, "--list"], check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.change])
def test_the_pass_trains_the_encoder_otherwise_than_as_published(name, places):
    gradients = []
    for some in (name, name.partition("+")[0] + "+mrm"):
        opened, step = single.opened(ARMS[some], settings(places, some, threshold=0.15), places["work"])
        batch = trainers.batches_of(opened)[2]
        losses = step(0, batch, opened.models, opened.settings, Draws(opened.settings, 2))
        assert losses["mrm"] > 0
        gradients.append(next(opened.models.network.encoder.parameters()).grad)
    assert gradients[0].isfinite().all()
    assert not torch.equal(*gradients)


@pytest.mark.slow
def test_without_its_transformer_the_rebuilder_still_rebuilds(places):
    name = "dacs, balanced+no transformer"
    opened, _ = single.opened(ARMS[name], settings(places, name), places["work"])
    whole, _ = single.opened(ARMS["dacs+mrm"], settings(places, "dacs+mrm"), places["work"])
    parts = [{key.split(".")[1] for key, _ in run.models.mrm.named_parameters()} for run in (whole, opened)]
    assert parts[0] - parts[1] == {"blocks"}
    feats = opened.models.network.encoder(torch.randn(2, 3, 96, 128))
    mask = torch.rand(2, 1, 6, 8) < 0.4
    assert all(not torch.equal(a, b) for a, b in zip(feats[:2], opened.models.mrm.rebuild(feats, mask)[0]))


def run_with(mrm) -> SimpleNamespace:
    """As much of an opened run as a change looks at."""
    return SimpleNamespace(models=SimpleNamespace(mrm=mrm))


def test_fills_leave_visible_cells_as_they_are():
    generator = torch.Generator().manual_seed(0)
    feats = [torch.randn(2, 4, 12, 16, generator=generator), torch.randn(2, 8, 6, 8, generator=generator)]
    mask = torch.rand(2, 1, 6, 8, generator=generator) < 0.4
    hidden = [mask.repeat_interleave(2, 2).repeat_interleave(2, 3), mask]
    filled = {}
    for change in (changes.zero, changes.nothing):
        mrm = MRM([4, 8], grid_size=(6, 8), embed_dim=8, num_heads=2)
        change(run_with(mrm))
        filled[change], same_mask = mrm.rebuild(feats, mask)
        assert same_mask is mask
    assert all(torch.equal(a.masked_fill(h, 0), b) for a, b, h in zip(feats, filled[changes.zero], hidden))
    assert all(torch.equal(*levels) for levels in zip(feats, filled[changes.nothing]))


def test_visible_alone_counts_no_pixel_of_a_masked_cell():
    given = []
    run = run_with(SimpleNamespace(forward=lambda *passed, mask: given.append(passed[3])))
    changes.visible_alone(run)
    mask = torch.tensor([[[[True, False]]]])
    run.models.mrm.forward(None, None, torch.zeros(1, 2, 4, dtype=torch.int64), torch.full((1, 2, 4), 0.5), mask=mask)
    assert given[0].tolist() == [[[0.0, 0.0, 0.5, 0.5]] * 2]


def test_intervals_of_shared_seeds():
    result = paired({1: 3.0, 2: 4.0, 3: 8.0, 9: 1.0}, {1: 1.0, 2: 3.0, 3: 5.0, 8: 0.0})
    assert (result.seeds, result.mean) == ([1, 2, 3], 2.0)
    assert result.half == pytest.approx(4.3027 / 3**0.5, abs=1e-3)
    eight = paired(dict(enumerate([1.0, 2, 3, 4, 5, 6, 7, 8])), dict.fromkeys(range(8), 0.0))
    assert (eight.low, eight.high) == pytest.approx((2.452, 6.548), abs=1e-3)


def test_the_queue_names_what_there_is():
    jobs = run.missing([], [], [], [])
    assert len(jobs) == len(set(jobs))
    assert all(pair in data.PAIRS and arm in ARMS for pair, arm, _ in jobs)


def test_a_run_that_has_its_line_is_not_missing():
    assert run.missing([], ["eighth-camvid"], ["dacs", "dacs+mrm"], [1, 2])[:2] == [
        ("eighth-camvid", "dacs", 1),
        ("eighth-camvid", "dacs+mrm", 1),
    ]
    line = {"pair": "eighth-camvid", "arm": "dacs", "seed": 1}
    assert ("eighth-camvid", "dacs", 1) not in run.missing([line], ["eighth-camvid"], ["dacs", "dacs+mrm"], [1, 2])
    first = QUEUE[0][0]
    assert {pair for pair, _, _ in run.missing([], [first], [], [])} == {first}


def test_a_start_is_shared_by_the_arms_of_a_seed(places):
    files = {single.start_file("camvid-idd", ARMS[name], settings(places, name), places["work"]) for name in ARMS}
    assert len(files) == 2, "one, and the oracle's"
    for changed, same in (({"lr": 1e-4}, True), ({"pretrain_lr": 1e-4}, False)):
        other = settings(places, "dacs", **changed)
        assert (single.start_file("camvid-idd", ARMS["dacs"], other, places["work"]) in files) == same
