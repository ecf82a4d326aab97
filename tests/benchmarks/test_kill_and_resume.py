"""Runs that are killed and resumed are the uninterrupted run; benchmarks/kill_and_resume.py does it fifty times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("PIL", reason="the trainers need the examples extra")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="runs are forked")
def test_two_kills_of_one_process_and_of_two(tmp_path):
    words = ["--kills", "2", "--pairs", "2", "--out", str(tmp_path)]
    command = [sys.executable, str(ROOT / "benchmarks" / "kill_and_resume.py"), *words]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads((tmp_path / "kill-and-resume.json").read_text())["trials"]
    assert [(one["processes"], one["workers"]) for one in trials] == [(1, 0), (1, 2), (2, 0), (2, 2)]
    for one in trials:
        assert one["differs"] == []
        assert -9 in one["statuses"] and 0 not in one["statuses"]
        assert one["seconds"] < 15
