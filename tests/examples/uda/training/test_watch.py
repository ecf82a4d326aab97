"""Losses that are not finite stop a run before its teacher and its checkpoints see them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import train_dacs_mrm
from torch import nn
from uda.training.loop import train
from uda.training.run import Run, batches_of, one_step
from uda.training.watch import NotFinite, Watch, check_finite, withhold


def poisoned(bad_call, name="mixed"):
    """DACS's step, one loss of which becomes NaN, with the gradients that it then has."""
    calls = []

    def step(*args):
        calls.append(args)
        losses = train_dacs_mrm.train_step(*args)
        if len(calls) == bad_call:
            losses[name] = losses[name] * torch.nan
            for p in args[2].student.parameters():
                p.grad.fill_(torch.nan)
        return losses

    return step, calls


def test_the_run_stops_before_teacher_and_checkpoint(settings):
    cfg = dataclasses.replace(settings, pretrain_iterations=0, iterations=8, save_every=2, log_every=100)
    step, calls = poisoned(5)
    with pytest.raises(
        NotFinite, match=r"^step 5: loss 'mixed' \(nan\) not finite; batch of .*\.png.*saved as"
    ) as stopped:
        train(cfg, step)
    assert "the checkpoint of step 4 is safe" in stopped.value.__notes__[0]
    assert len(calls) == 6  # it is seen at the end of the next step, when nobody has to wait for it
    models = calls[-1][2]
    for network in (models.student, models.teacher):
        assert all(p.isfinite().all() for p in network.parameters())
    folder = Path(cfg.out)
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 4
    saved = torch.load(folder / "not-finite-step5.pt", weights_only=True)
    batch = calls[4][1]
    assert saved["step"] == 5 and len(saved["files"]) == 4
    for name, value in vars(batch).items():
        assert torch.equal(saved[name], value)
    assert all(Path(file).is_file() for file in saved["files"])


def test_gradients_are_watched_too(settings):
    """A loss can be finite where its gradient is not, as that of a root at zero is."""
    cfg = dataclasses.replace(settings, pretrain_iterations=0, log_every=100)

    def step(*args):
        losses = train_dacs_mrm.train_step(*args)
        if args[0] == 1:
            next(args[2].student.parameters()).grad[0] = torch.nan
        return losses

    with pytest.raises(NotFinite, match=r"^step 2: losses are finite, their gradient is not \(nan\); batch of .*saved"):
        train(cfg, step)
    assert not (Path(cfg.out) / "checkpoint.pt").exists()


def test_a_checkpoint_waits_for_its_own_step(settings):
    cfg = dataclasses.replace(settings, pretrain_iterations=0, iterations=8, save_every=2, log_every=100)
    step, calls = poisoned(4)
    with pytest.raises(NotFinite, match=r"^step 4: "):
        train(cfg, step)
    assert len(calls) == 4
    assert torch.load(Path(cfg.out) / "checkpoint.pt", weights_only=True)["step"] == 2


def test_weights_that_are_not_finite_are_not_saved(settings):
    run = Run(settings)
    run.save()
    next(run.models.teacher.parameters()).data[0] = torch.inf
    run.step = 1
    with pytest.raises(NotFinite, match=r"step 1: the teacher's encoder.* not finite, so not saved"):
        run.save()
    assert torch.load(run.folder / "checkpoint.pt", weights_only=True)["step"] == 0
    check_finite(1, student=run.models.student)


def test_what_is_read_when(settings, tmp_path):
    watch = Watch(batches_of(Run(settings)), tmp_path)
    for step in range(3):
        assert not watch.note(step, {"source": torch.tensor(float(step))}, asked=step == 1)
        losses, asked = watch.look()
        assert losses == ({} if step == 0 else {"source": step - 1.0})
        assert asked == (step == 2)
    assert watch.look(now=True) == ({"source": 2.0}, False)
    assert watch.look(now=True) == ({}, False)


def test_an_update_is_withheld_where_a_loss_is_not_finite():
    module = nn.Linear(2, 2)
    for broken in (False, True):
        for p in module.parameters():
            p.grad = torch.full_like(p, torch.nan if broken else 3.0)
        withhold(module, torch.tensor(broken))
        assert all((p.grad == (0.0 if broken else 3.0)).all() for p in module.parameters())


def test_a_request_within_a_step_is_told_by_that_step(settings):
    """Between several processes each step until it is acted on is time that a scheduler may not give."""
    run, asked = Run(settings), []
    data = batches_of(run)
    watch = Watch(data, run.folder)

    def step(*args):
        asked.append(True)
        return train_dacs_mrm.train_step(*args)

    one_step(run, data[0], step, watch, lambda: bool(asked))
    assert watch.look(now=True)[1]
