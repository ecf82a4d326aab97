"""The curves of a run."""

import builtins
import json
import shlex
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from uda.training import report as report_module
from uda.training.report import draw_curves, report, save_panel, smooth, what_next
from uda.training.run import Run


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


def test_files_are_there_before_anything_is_printed(settings, monkeypatch):
    run = Run(settings)
    run.log(source=1.0)

    def fail(*_, **__):
        raise OSError("nobody reads")

    monkeypatch.setattr(builtins, "print", fail)
    with pytest.raises(OSError, match="nobody reads"):
        report(run, {"student": torch.eye(19, dtype=torch.int64)})
    for name in ("result.json", "curves.png", "panel.png"):
        assert (run.folder / name).stat().st_size > 0


@pytest.mark.parametrize("name", ["木", "🚲", "$a_$", "$ and $", "_sky", "\\frac{"])
def test_any_name_stands_below_the_panel(tmp_path, monkeypatch, name):
    """It is no formula, it is not left out, and no warning is shown for each character that the font lacks."""
    monkeypatch.setattr(plt, "close", lambda figure: None)
    picture = np.zeros((4, 6, 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_panel([{"image": picture}], {name: np.zeros(3)}, tmp_path / "panel.png")
    assert [text.get_text() for text in plt.gcf().legends[0].get_texts()] == [name]
    assert (tmp_path / "panel.png").stat().st_size > 0


@pytest.mark.parametrize("folder", ["runs/a", "my runs/straße's", "runs/$HOME; ls"])
def test_commands_to_copy_reach_the_folder(monkeypatch, tmp_path, folder):
    monkeypatch.setattr(report_module, "EXAMPLES", tmp_path / "the examples")
    for line, script in zip(what_next(Path(folder), True).splitlines(), ("evaluate.py", "predict.py"), strict=True):
        words = shlex.split(line.removeprefix("next: "))
        assert words[0] == "python" and words[2] == folder
        assert Path(words[1]).resolve() == (tmp_path / "the examples" / script).resolve()
