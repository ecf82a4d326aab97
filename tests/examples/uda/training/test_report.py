"""The curves of a run."""

import json

import matplotlib.pyplot as plt
import pytest
from uda.training.report import draw_curves, smooth


def test_losses_on_the_left_and_every_miou_on_the_right(tmp_path, monkeypatch):
    rows = [
        {"step": 10, "source": 2.0, "mrm": 1.5, "trust": 0.1},
        {"step": 20, "source": 1.0, "mrm": 1.0, "trust": 0.2},
        {"step": 20, "miou_student": 30.0, "miou13_student": 35.0},
        {"step": 20, "seconds_per_step": 0.1},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(plt, "close", lambda figure: None)
    draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", first_step=0)
    left, right = plt.gcf().axes
    assert {line.get_label(): list(line.get_xdata()) for line in left.lines} == {"mrm": [10, 20], "source": [10, 20]}
    assert {line.get_label(): list(line.get_ydata()) for line in right.lines} == {
        "student": [30],
        "miou13 student": [35],
    }
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_smoothing_has_no_bias_at_its_start():
    assert smooth([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    assert smooth([1.0, 0.0])[1] == pytest.approx(0.9 / 1.9)
