from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import arms
import night
import numpy as np
import objectives
import pytest
import single
import steps
import torch
import worlds
from measure import at_masked_cells, with_target_statistics
from trainers import TRAINERS, Settings, scenes, train
from uda.data.layouts import LAYOUTS

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


def skip_without_its_library(name):
    if name.startswith("small MiT"):
        pytest.importorskip("transformers")


@pytest.mark.parametrize("name", arms.ARMS)
def test_every_arm_can_be_built(name, settings, tmp_path):
    skip_without_its_library(name)
    run = opened(name, settings, tmp_path)
    assert (run.models.student.mrm is not None) == run.settings.uses_mrm


# one arm of each kind
KINDS = {(a.method, a.changes, a.network, a.before, a.step, a.trainer): name for name, a in arms.ARMS.items()}


@pytest.mark.parametrize("name", ["dacs", "dacs+mrm", "dacs+option", "dacs+nothing-masked x1", *KINDS.values()])
def test_every_arm_runs(name, settings, starts):
    skip_without_its_library(name)
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


def test_the_encoder_alone_is_trained(settings, tmp_path):
    student = opened("encoder alone", settings, tmp_path).models.student
    feats = [torch.randn(1, 32, 12, 24, requires_grad=True), torch.randn(1, 128, 6, 12, requires_grad=True)]
    mask = torch.zeros(1, 1, 6, 12, dtype=torch.bool)
    mask[..., 2:4, 2:4] = True
    student.mrm(feats, student.network.decode, torch.zeros(1, 48, 96, dtype=torch.long), 1.0, mask=mask).backward()
    assert all(level.grad.abs().sum() > 0 for level in feats)
    assert student.mrm.rebuilder.mask_token.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in student.network.decoder.parameters())


@pytest.mark.parametrize("name", ["student features", "teacher features", "pixels"])
def test_a_regression_trains_encoder_and_rebuilder_at_masked_cells_alone(name, settings, tmp_path):
    run = opened(name, settings, tmp_path)
    student, seen = run.models.student, {}

    def inner(number, batch, models, cfg, draws):
        feats = [level.detach().requires_grad_() for level in student.network.encode(batch.target_images)]
        mask = torch.zeros(2, 1, 6, 12, dtype=torch.bool)
        mask[..., 2:4, 2:4] = True
        loss = student.mrm(feats, None, None, None, mask=mask)
        loss.backward()
        seen.update(loss=loss.item(), feats=feats)
        return {}

    images = torch.randn(2, 3, 48, 96)
    arms.ARMS[name].step(inner)(0, SimpleNamespace(target_images=images), run.models, run.settings, None)
    assert seen["loss"] > 0
    assert seen["feats"][1].grad.abs().sum() > 0
    assert student.mrm.rebuilder.mask_token.grad.abs().sum() > 0
    assert all(p.grad is None for p in student.network.decoder.parameters())
    assert student.mrm.forward.__func__ is type(student.mrm).forward


def test_masked_error_in_closed_form():
    made, expected = torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    expected[0, 1, 0, 0] = 3.0  # squared errors 1 and 4 where masked
    mask = torch.tensor([[[[True, False], [False, False]]]])
    assert objectives.masked_error(made, expected, mask).item() == 2.5
    assert objectives.masked_error(made, expected, ~mask).item() == 1.0


def test_part_of_the_batch_or_image_goes_through_mrm_alone(settings):
    seen = []
    passes = SimpleNamespace(backward=lambda *inputs, **options: seen.append((inputs, options)) or {})
    original = passes.backward
    images, labels = torch.arange(2 * 3 * 48 * 96.0).view(2, 3, 48, 96), torch.zeros(2, 48, 96)
    masked = torch.zeros(2, 1, 6, 12)

    def inner(number, batch, models, cfg, draws):
        models.passes.backward(None, "source", images, labels)
        return models.passes.backward(None, "mrm", images, labels, masked=masked)

    for cut in (steps.half_batch, steps.quarter_crop):
        models = SimpleNamespace(passes=type("Passes", (), {"backward": staticmethod(original)})())
        steps.on_part(cut)(inner)(3, None, models, settings, None)
        assert models.passes.backward is original
    whole, half, whole_again, quarter = seen
    assert whole[0][2].shape == whole_again[0][2].shape == images.shape
    assert torch.equal(half[0][2], images[:1]) and half[0][3].shape == (1, 48, 96) and len(half[1]["masked"]) == 1
    assert quarter[0][2].shape == (2, 3, 24, 48) and quarter[0][3].shape == (2, 24, 48)
    top, left = divmod(int(quarter[0][2][0, 0, 0, 0]), 96)
    assert torch.equal(quarter[0][2], images[..., top : top + 24, left : left + 48])
    assert torch.equal(quarter[1]["masked"], masked)


@pytest.mark.parametrize("name", ["pretrained rebuilder+mrm", "frozen rebuilder+mrm"])
def test_the_rebuilder_is_trained_before_and_the_network_is_not(name, settings, tmp_path):
    run = opened(name, settings, tmp_path)
    student = run.models.student
    network = {key: value.clone() for key, value in student.network.state_dict().items()}
    rebuilder = {key: value.clone() for key, value in student.mrm.state_dict().items()}
    arms.ARMS[name].before(run)
    assert all(torch.equal(network[key], value) for key, value in student.network.state_dict().items())
    assert any(not torch.equal(rebuilder[key], value) for key, value in student.mrm.state_dict().items())
    assert student.network.training and all(p.requires_grad for p in student.network.parameters())
    assert all(p.grad is None for p in student.parameters())
    assert {p.requires_grad for p in student.mrm.parameters()} == {name.startswith("pretrained")}


def test_the_small_mit_has_the_small_encoders_levels():
    pytest.importorskip("transformers")
    network = SimpleNamespace(encoder=None)
    arms.ARMS["small MiT"].network(network)
    levels = network.encoder(torch.randn(1, 3, 48, 96))
    assert [tuple(level.shape) for level in levels] == [(1, 32, 12, 24), (1, 128, 6, 12)]
    assert network.encoder.level_rows(48) == [12, 6]


def test_a_pass_in_every_second_step():
    seen, mrm = [], object()
    models = SimpleNamespace(student=SimpleNamespace(mrm=mrm))
    step = steps.every(2)(lambda number, batch, models, cfg, draws: seen.append(models.student.mrm) or {})
    for number in range(-1, 4):
        step(number, None, models, None, None)
        assert models.student.mrm is mrm
    assert seen == [None, mrm, None, mrm, None]


def test_unmixed_is_the_augmented_target(settings):
    draws, labels = steps.Unmixed(settings, 0), torch.randint(9, (2, 4, 4))
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


@pytest.mark.parametrize("name", ["dacs+option", "dacs+vector"])
def test_without_rebuilding_is_measured_as_what_fills(name, settings, tmp_path):
    run = opened(name, settings, tmp_path)
    student = run.models.student
    assert type(student.mrm.rebuilder) is MaskTokens
    _, masked = at_masked_cells(student.network, student.mrm, run.validation, len(run.models.classes), run.settings)
    assert list(masked) == ["own", "filled"]
    assert masked["own"] != masked["filled"]


def test_the_vector_is_bare(settings, tmp_path):
    """One per level in every masked cell, small as it was drawn, and trained."""
    run = opened("dacs+vector", settings, tmp_path)
    mrm = run.models.student.mrm
    levels = [torch.randn(2, 32, 12, 24), torch.randn(2, 128, 6, 12)]
    filled = mrm.rebuild(levels, torch.ones(2, 1, 6, 12, dtype=torch.bool))[0]
    sum(level.sum() for level in filled).backward()
    for level, vector in zip(filled, mrm.rebuilder.projectors):
        torch.testing.assert_close(level, vector.token[None, :, None, None].expand_as(level))
        assert 0.01 < vector.token.std() < 0.03
        assert vector.token.grad.all()
    assert mrm.rebuilder.mask_token.grad is None


@pytest.mark.parametrize("name", ["dacs", "dacs+mrm"])
def test_both_pages_train_dacs_to_the_same_bits(name, settings, tmp_path):
    """So that an arm which only MIC's page can train has its pair in those of DACS's own."""
    arm = arms.ARMS[name]
    states = []
    for trainer in ("dacs", "mic"):
        cfg = dataclasses.replace(settings, **arm.settings)
        run, step = single.open_run(dataclasses.replace(arm, trainer=trainer), cfg, tmp_path / trainer)
        single.advance(run, step, run.total)
        states.append(run.models.student.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_measurement_leaves_the_run_as_it_was(settings, tmp_path):
    run = opened("dacs+mrm", settings, tmp_path)
    student, tokens = run.models.student, run.models.student.mrm.rebuilder.make_tokens
    before = {key: value.clone() for key, value in student.state_dict().items()}
    twice = [
        at_masked_cells(student.network, student.mrm, run.validation, len(run.models.classes), run.settings)
        for _ in range(2)
    ]
    assert twice[0][1] == twice[1][1]
    adapted = with_target_statistics(student.network, run.target, 2)
    assert student.mrm.rebuilder.make_tokens == tokens
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


def test_night_is_dark_lit_and_labelled_as_the_street(tmp_path, monkeypatch):
    monkeypatch.setattr(night, "COUNTS", {"train": 2, "val": 2})
    monkeypatch.setattr(worlds.scenes, "write_scenes", lambda folder: None)
    world = worlds.write_world("night", tmp_path)
    layout, _, root = world["target"].partition(":")
    train, val = (LAYOUTS[layout](Path(root), split)[0] for split in ("train", "val"))
    assert len(train) == len(val) == 2
    assert not any(sample.label.exists() for sample in train) and all(sample.label.exists() for sample in val)
    image, labels = night.night_scene("val", 1)
    again, _ = night.night_scene("val", 1)
    assert (image == again).all() and (image != night.night_scene("train", 1)[0]).any()
    nights = [night.night_scene("train", index) for index in range(8)]
    days = [scenes.scene(0, "train", index, (96, 192)) for index in range(8)]
    dark, bright = (np.mean([image[labels == 23].mean() for image, labels in found]) for found in (nights, days))
    assert dark < 0.6 * bright  # the sky
    assert max(image.max() for image, _ in nights) > 230  # a light
    assert {7, 11, 23, 26} <= set(np.unique(labels))
