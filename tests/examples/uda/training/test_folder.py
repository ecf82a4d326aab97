"""A run's folder: nobody else's, and resumed without a line twice."""

from __future__ import annotations

import json

import pytest
from uda.settings import Settings
from uda.training import folder
from uda.training.folder import keep_metrics, lock, make_folder, other_processes


def test_two_runs_at_the_same_moment_get_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [make_folder(Settings()).name for _ in range(3)] == ["mic+mrm-seed0", "mic+mrm-seed0-2", "mic+mrm-seed0-3"]
    arms = [{"mrm_weight": 0.0}, {"mrm_mask_only": True}]
    assert [make_folder(Settings(**arm)).name for arm in arms] == ["mic-seed0", "mic+mask-only-seed0"]
    named = Settings(out="here")
    make_folder(named)
    with pytest.raises(FileExistsError, match="here exists; give another --out, or go on with it: --resume here"):
        make_folder(named)


def test_a_run_is_gone_on_with_by_one_process(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    monkeypatch.setattr(folder, "LOCK_WAIT", 0.1)
    first = lock(tmp_path)
    with pytest.raises(FileExistsError, match=r"is being trained by process \d+"):
        lock(tmp_path)
    first.close()
    lock(tmp_path).close()


def test_lines_that_are_written_again_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "source": 1.0} for step in range(1, 7)]
    rows += [{"step": 4, "miou_student": 3.0}, {"step": 6, "miou_student": 5.0}, {"step": 6, "seconds_per_step": 1.0}]
    text = "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["step"]))

    path.write_text(text + '{"step": 6, "sou')
    assert keep_metrics(path, 4, total=6) == {4}
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert kept == [*rows[:4], rows[6]]

    path.write_text(text)
    assert keep_metrics(path, 6, total=6) == {4}  # the final evaluation is made again, for the report
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row for row in kept if row["step"] == 6] == [rows[5]]


def test_another_number_of_processes_is_explained():
    assert other_processes(None, 2, 2) == other_processes(1, 2, 4) == ""
    assert other_processes(4, 2, 8).endswith("goes on with 1: the same 8 images of each domain per step")
    text = other_processes(4, 2, 2)
    assert text.startswith("saved by 4 processes, goes on with 1: 2 images of each domain per step in place of 8")
    assert "--batch-size 8 --change batch-size" in text
