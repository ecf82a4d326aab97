from __future__ import annotations

import sys

import numpy as np
import pytest
from image_files import write
from uda.training.report import Board


def test_scalars_and_pictures_are_shown(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    picture = write(tmp_path / "panel.png", np.zeros((4, 6, 3), np.uint8))
    board = Board(tmp_path)
    board.scalars(10, {"mrm": 1.5, "images/s": 8.0})
    board.scalars(20, {"miou_student": 40.0})
    board.picture(20, picture)
    board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {"training/mrm", "cost/images per s", "target/miou_student"}
    assert [(event.step, event.value) for event in events.Scalars("training/mrm")] == [(10, 1.5)]
    assert [(event.step, event.width) for event in events.Images("panel")] == [(20, 6)]


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    board = Board(tmp_path)
    board.scalars(1, {"mrm": 1.0})
    board.picture(1, tmp_path / "panel.png")
    board.close()
    assert not list(tmp_path.iterdir())
