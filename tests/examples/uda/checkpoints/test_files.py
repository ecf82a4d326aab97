"""The two last checkpoints of a run."""

from __future__ import annotations

import os

import pytest
import torch
from uda.checkpoints import files
from uda.checkpoints.files import CHECKPOINT, DAMAGED, PREVIOUS, read_checkpoint, set_damaged_aside, write_checkpoint


def state(step):
    return {"step": step, "student": {"w": torch.full((100,), float(step))}}


def test_the_last_two_are_kept(tmp_path):
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, state(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, CHECKPOINT]
    found, path = read_checkpoint(tmp_path)
    assert (found["step"], path.name) == (3, CHECKPOINT)
    assert torch.load(tmp_path / PREVIOUS, weights_only=True)["step"] == 2


def test_a_torn_one_is_named_and_the_one_before_used(tmp_path, capsys):
    for step in (1, 2):
        write_checkpoint(tmp_path, state(step))
    os.truncate(tmp_path / CHECKPOINT, 300)
    assert read_checkpoint(tmp_path)[0]["step"] == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and CHECKPOINT in err and "step 1" in err
    os.truncate(tmp_path / PREVIOUS, 300)
    with pytest.raises(ValueError, match=f"{CHECKPOINT}.*; .*{PREVIOUS}"):
        read_checkpoint(tmp_path)


def test_a_damaged_one_does_not_take_the_place_of_the_good_one(tmp_path):
    for step in (1, 2):
        write_checkpoint(tmp_path, state(step))
    os.truncate(tmp_path / CHECKPOINT, 300)
    set_damaged_aside(tmp_path)
    write_checkpoint(tmp_path, state(2))
    os.truncate(tmp_path / CHECKPOINT, 300)
    assert read_checkpoint(tmp_path)[0]["step"] == 1
    assert (tmp_path / DAMAGED).exists()


def test_none_yet(tmp_path):
    with pytest.raises(FileNotFoundError, match="none saved yet"):
        read_checkpoint(tmp_path)


def test_a_kill_at_any_moment_leaves_a_whole_one(tmp_path, monkeypatch):
    """Every call to the system that changes a file is the last one in turn."""
    write_checkpoint(tmp_path, state(1))
    moments = 0
    while True:
        countdown = [moments]

        def dying(real, countdown=countdown):
            def call(*args, **options):
                if countdown[0] == 0:
                    raise SystemError("killed")
                countdown[0] -= 1
                return real(*args, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("replace", "fsync"):
                patch.setattr(files.os, name, dying(getattr(os, name)))
            try:
                write_checkpoint(tmp_path, state(2))
            except SystemError:
                pass
            else:
                break
        assert read_checkpoint(tmp_path)[0]["step"] in (1, 2)
        moments += 1
    assert moments >= 4
    assert read_checkpoint(tmp_path)[0]["step"] == 2
