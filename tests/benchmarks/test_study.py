from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import arms
import changes
import contrasts
import paired
import pytest
import report
import run as runner
import single
import torch
import worlds
from measure import at_masked_cells, with_target_statistics
from trainers import TRAINERS, Settings, scenes, train

from mrm_loss import MaskTokens


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scenes.write_scenes(folder, source=4, target=4, val=2, size=(48, 96))
    return folder


@pytest.fixture
def settings(world) -> Settings:
    """Three steps on the source, two of the method."""
    return Settings(
        method="dacs",
        source=f"gta5:{world}/gta5",
        target=f"cityscapes:{world}/cityscapes",
        crop=(48, 96),
        batch_size=2,
        pretrain_iterations=3,
        iterations=2,
        warmup=0,
        threshold=0.1,  # else nothing is trusted so early, and the losses on pseudo-labels are zero
        mrm_grid=(6, 12),
        device="cpu",
    )


def with_arm(settings: Settings, name: str) -> Settings:
    """The arm's own settings, but as small."""
    arm = arms.ARMS[name]
    kept = {key: value for key, value in arm.settings.items() if key.startswith("mrm_") and key != "mrm_grid"}
    return dataclasses.replace(settings, method=arm.method, **kept)


@pytest.mark.parametrize("name", ["dacs", "dacs+mrm", "mic+mrm"])
def test_an_arm_from_the_shared_start_is_the_run_in_one_go(name, settings, tmp_path):
    arm, cfg = arms.ARMS[name], with_arm(settings, name)
    whole = train(dataclasses.replace(cfg, out=str(tmp_path / "whole")), *TRAINERS[arm.method])

    single.make_start(arm, cfg, tmp_path / "start.pt")
    run, step_function = single.open_run(arm, cfg, tmp_path / "arm")
    single.load_start(run, torch.load(tmp_path / "start.pt", weights_only=True))
    single.advance(run, step_function, run.total)

    assert run.step == whole.step == 5
    for kind in ("student", "teacher"):
        ours, theirs = (getattr(r.models, kind).state_dict() for r in (run, whole))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    states = [[o.state_dict()["state"] for o in r.optimizers] for r in (run, whole)]
    assert all(torch.equal(a, b) for a, b in zip(*(torch.utils._pytree.tree_leaves(state) for state in states)))


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    return tmp_path_factory.mktemp("starts")


def test_every_arm_can_be_built(settings, tmp_path):
    for k, name in enumerate(arms.ARMS):
        run = opened(name, settings, tmp_path / str(k))
        assert (run.models.student.mrm is not None) == run.settings.uses_mrm


# one arm of each kind
KINDS = {(arm.method, arm.changes, arm.network, arm.step): name for name, arm in arms.ARMS.items()}


@pytest.mark.parametrize("name", ["dacs", "dacs+mrm", "dacs+vector", "dacs+nothing-masked x1", *KINDS.values()])
def test_every_arm_runs(name, settings, starts):
    arm, cfg = arms.ARMS[name], with_arm(settings, name)
    path = single.start_file(arm, cfg, starts)
    if not path.exists():
        single.make_start(arm, cfg, path)
    result = single.run_arm(arm, cfg, torch.load(path, weights_only=True))
    assert 0 <= result["student"] <= 100
    assert result["student, target statistics"] != result["student"]
    assert [entry["step"] for entry in result["curve"]] == [2]
    kinds = {"own", "filled", "blank"} if cfg.uses_mrm and cfg.mrm_mask_ratio > 0.01 else {"own"}
    assert set(result["masked"]) == kinds - (set() if cfg.mrm_rebuild else {"blank"})


def test_no_start_is_shared_by_other_networks_or_schedules(settings, tmp_path):
    def start(name, **others):
        return single.start_file(arms.ARMS[name], dataclasses.replace(settings, **others), tmp_path)

    assert start("dacs") == start("dacs+mrm", mrm_weight=1.0, iterations=7) == start("dacs+local")
    others = [start("dacs"), start("dacs", seed=1), start("dacs", pretrain_iterations=4), start("mic")]
    assert len({*others, start("global encoder"), start("context-free decoder")}) == 6


def opened(name, settings, tmp_path):
    return single.open_run(arms.ARMS[name], with_arm(settings, name), tmp_path / name)[0]


def test_mask_only_knows_nothing_of_what_is_visible(settings, tmp_path):
    student = opened("dacs+mask-only", settings, tmp_path).models.student
    feats = [[torch.randn(1, 32, 12, 24), torch.randn(1, 128, 6, 12)] for _ in range(2)]
    mask = torch.zeros(1, 1, 6, 12, dtype=torch.bool)
    mask[..., 2:4, 2:4] = True
    (fine, coarse), (other_fine, other_coarse) = (student.mrm.rebuild(levels, mask)[0] for levels in feats)
    assert torch.equal(coarse[..., 2:4, 2:4], other_coarse[..., 2:4, 2:4])
    assert torch.equal(fine[..., 4:8, 4:8], other_fine[..., 4:8, 4:8])
    assert torch.equal(coarse[..., 0, 0], feats[0][1][..., 0, 0])
    vector = coarse[0, :, 2, 2]
    assert torch.equal(coarse[0, :, 2:4, 2:4], vector[:, None, None].expand(-1, 2, 2))


def test_local_differs_from_mrm_by_its_blocks_alone(settings, tmp_path):
    whole, local = (
        opened(name, settings, tmp_path).models.student.mrm.state_dict() for name in ("dacs+mrm", "dacs+local")
    )
    left_out = whole.keys() - local.keys()
    assert left_out and all(".blocks." in key for key in left_out)
    assert local.keys() <= whole.keys()
    assert all(torch.equal(local[key], whole[key]) for key in local)


def test_the_loss_on_masked_cells_alone_ignores_the_others(settings, tmp_path):
    student = opened("dacs+mrm, masked alone", settings, tmp_path).models.student
    feats = [torch.randn(1, 32, 12, 24, requires_grad=True), torch.randn(1, 128, 6, 12)]
    mask = torch.zeros(1, 1, 6, 12, dtype=torch.bool)
    mask[..., :3, :] = True
    labels = torch.randint(9, (1, 48, 96))
    changed = labels.clone()
    changed[:, 24:] = (changed[:, 24:] + 1) % 9  # where nothing is masked

    def loss(y):
        student.eval()
        return student.mrm(feats, student.network.decode, y, torch.ones(1, 48, 96), mask=mask).item()

    assert loss(labels) == loss(changed) > 0
    changed[:, :24] = (changed[:, :24] + 1) % 9
    assert loss(labels) != loss(changed)


def test_the_decoder_alone_is_trained(settings, tmp_path):
    student = opened("decoder alone", settings, tmp_path).models.student
    feats = [torch.randn(1, 32, 12, 24, requires_grad=True), torch.randn(1, 128, 6, 12, requires_grad=True)]
    mask = torch.zeros(1, 1, 6, 12, dtype=torch.bool)
    student.mrm(feats, student.network.decode, torch.zeros(1, 48, 96, dtype=torch.long), mask=mask).backward()
    assert feats[0].grad is None
    assert student.network.decoder.classify.weight.grad.abs().sum() > 0


def test_a_pass_in_every_second_step():
    seen, mrm = [], object()
    models = SimpleNamespace(student=SimpleNamespace(mrm=mrm))
    step = changes.every(2)(lambda number, batch, models, cfg, draws: seen.append(models.student.mrm) or {})
    for number in range(-1, 4):
        step(number, None, models, None, None)
        assert models.student.mrm is mrm
    assert seen == [None, mrm, None, mrm, None]


def test_unmixed_is_the_augmented_target(settings):
    draws, labels = changes.Unmixed(settings, 0), torch.randint(9, (2, 4, 4))
    assert not draws.pasted(labels).any()


def test_the_global_encoder_starts_as_the_local_one_and_sees_everything(settings, tmp_path):
    network, plain = (
        opened(name, settings, tmp_path).models.student.network.eval() for name in ("global encoder", "dacs")
    )
    image = torch.randn(1, 3, 48, 96)
    assert torch.equal(network.encode(image)[1], plain.encode(image)[1])
    torch.nn.init.ones_(network.encoder.stage[1].norm.weight)
    image.requires_grad_()
    network.encode(image)[1][0, 0, 0, 0].backward()
    assert image.grad[..., -8:, -8:].abs().sum() > 0


def test_the_vector_is_measured_as_what_fills(settings, tmp_path):
    run = opened("dacs+vector", settings, tmp_path)
    student = run.models.student
    assert type(student.mrm.rebuilder) is MaskTokens
    _, masked = at_masked_cells(student.network, student.mrm, run.validation, len(run.models.classes), run.settings)
    assert list(masked) == ["own", "filled"]
    assert masked["own"] != masked["filled"]


def test_measurement_leaves_the_run_as_it_was(settings, tmp_path):
    run = opened("dacs+mrm", settings, tmp_path)
    student, tokens = run.models.student, run.models.student.mrm.rebuilder.rebuild_tokens
    before = {key: value.clone() for key, value in student.state_dict().items()}
    twice = [
        at_masked_cells(student.network, student.mrm, run.validation, len(run.models.classes), run.settings)
        for _ in range(2)
    ]
    assert twice[0][1] == twice[1][1]
    adapted = with_target_statistics(student.network, run.target, 2)
    assert student.mrm.rebuilder.rebuild_tokens == tokens
    assert student.training and student.network.training
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
    assert any(not torch.equal(a, b) for a, b in zip(adapted.buffers(), student.network.buffers()))


def test_the_world_of_one_grey_is_drawn_so_and_the_others_as_before():
    palette = scenes.SOURCE.palette
    with worlds.drawn_as("one grey"):
        changed = scenes.SOURCE.palette
        assert changed["sidewalk"] == changed["kerb"] == changed["road"] == (palette["road"][0], 0.0)
        assert changed["building"] == palette["building"]
        assert scenes.TARGET.palette["sidewalk"] == scenes.TARGET.palette["road"]
    with worlds.drawn_as("street"):
        assert scenes.SOURCE.palette is palette


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062047), (2, 4.3026527), (3, 3.1824463), (5, 2.5705818), (11, 2.2009852)]
)
def test_quantiles_of_students_t(freedom, quantile):
    assert paired.t_quantile(freedom) == pytest.approx(quantile, abs=1e-7)


def test_the_interval_of_paired_differences():
    result = paired.paired({3: 4.0, 1: 2.0, 2: 6.0, 9: 0.0}, {1: 1.0, 2: 2.0, 3: 3.0, 7: 0.0})
    assert result.seeds == [1, 2, 3]
    assert result.differences == [1.0, 4.0, 1.0]
    assert result.mean == 2.0
    assert result.half == pytest.approx(4.3026527 * math.sqrt(3) / math.sqrt(3))  # standard deviation sqrt(3), n = 3
    assert math.isnan(paired.paired({1: 1.0}, {1: 0.0}).half)


def test_what_an_interval_says():
    def said(low, high):
        return contrasts.verdict(paired.Paired([1, 2], [low, high], (low + high) / 2, (high - low) / 2))

    assert said(0.1, 0.9) == "above 0"
    assert said(0.1, 0.4) == "above 0, within ±0.5"
    assert said(-0.4, 0.4) == "not shown, within ±0.5"
    assert said(-0.1, 0.9) == "not shown"
    assert said(-2.0, -1.0) == "below 0"


def canned(arm, seed, student, **others):
    masked = {kind: {"accuracy": student + 20, "miou": student} for kind in ("own", "filled", "blank")}
    masked = {"own": masked["own"]} if arm in ("dacs", "mic") else masked
    line = {"arm": arm, "seed": seed, "student": student, "teacher": student, "student, target statistics": student}
    line |= {"masked": masked, "seconds": 100.0, "start": f"dacs-seed{seed}-a", "start student": 30.0, "commit": "c"}
    return line | {"start seconds": 60.0, "torch": "2", "machine": "m", "settings": {"scenes": "street"}} | others


def test_tables_of_canned_lines():
    lines = [canned("dacs", 21, 50.0), canned("dacs+mrm", 21, 53.0), canned("dacs+mask-only", 21, 52.5)]
    lines += [canned("dacs", 22, 51.0), canned("dacs+mrm", 22, 53.0), canned("dacs+mask-only", 22, 53.5)]
    lines += [canned("dacs+mrm", 0, 60.0), canned("dacs+mask-only", 0, 50.0), canned("dacs+nothing-masked x1", 23, 1.0)]
    text = report.tables(lines)
    assert "| dacs | 2 | 50.50 ± 0.71 | 50.50 ± 0.71 | 50.50 ± 0.71 | 70.50 |  |  |" in text
    assert "| dacs+mrm - dacs+mask-only | 2 | +0.00 [-6.35, +6.35] | not shown | +0.50, -0.50 | 21 to 22 |" in text
    assert "| dacs+mrm - dacs | 2 | +2.50 [-3.85, +8.85] | not shown | +3.00, +2.00 | 21 to 22 |" in text
    assert "| dacs+mrm | dacs+mask-only | 1 | 60.00 |  | +10.00 | +10.00 |" in text
    assert "| dacs+nothing-masked | 1 | 1.00 |" in text
    assert "9 runs, 4 starts, 0.3 hours by the clock" in text
    assert "WARNING" not in text
    assert "WARNING: not one start: dacs-seed21" in report.tables(
        [*lines, canned("dacs+local", 21, 1.0, **{"start student": 29.0})]
    )
    assert "WARNING: not committed when run: c-dirty" in report.tables(
        [*lines, canned("dacs", 24, 1.0, commit="c-dirty")]
    )


def test_what_is_missing_comes_in_order_and_once():
    everything = runner.missing([], [], [])
    assert everything[:5] == [*((arm, 21) for arm in arms.MAIN), ("dacs", 22)]
    assert len(everything) == len(set(everything))
    done = [{"arm": arm, "seed": seed} for arm, seed in everything[:3]]
    assert runner.missing(done, [], []) == everything[3:]
    assert runner.missing(done, ["dacs", "mic"], [21, 7]) == [("mic", 21), ("dacs", 7), ("mic", 7)]
    assert sorted(seed for _, seed in runner.missing(done, ["dacs+local"], [])) == [0, *range(21, 33)]


def test_a_run_that_fails_leaves_no_line_and_the_next_its_own(tmp_path, monkeypatch):
    called = []

    def call(self, name, seed, *flags):
        called.append((name, *flags))
        if flags:
            starts[(name, seed)].parent.mkdir(exist_ok=True)
            starts[(name, seed)].touch()
        out = json.dumps({"arm": name, "seed": seed, "student": 1.0})
        return runner.subprocess.CompletedProcess([], int(name == "dacs+local"), stdout=out)

    starts = {(name, 1): tmp_path / "starts" / "one" for name in ("dacs", "dacs+local", "dacs+mrm")}
    monkeypatch.setattr(runner, "prepare", lambda name, seed, work, short: (None, starts[(name, seed)]))
    monkeypatch.setattr(runner.Runner, "call", call)
    run = runner.Runner(tmp_path / "results" / "runs.jsonl", tmp_path, False, 60)
    assert run(("dacs", 1)) == ""
    assert run(("dacs+local", 1)).startswith("dacs+local, seed 1: failed with 1; see ")
    assert run(("dacs+mrm", 1)) == ""
    assert called == [("dacs", "--start"), ("dacs",), ("dacs+local",), ("dacs+mrm",)]
    lines = runner.read_lines(run.results)
    assert [line["arm"] for line in lines] == ["dacs", "dacs+mrm"]
    assert runner.missing(lines, ["dacs", "dacs+local"], [1]) == [("dacs+local", 1)]
