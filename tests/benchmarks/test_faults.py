"""A few rows of the table of faults; benchmarks/faults/table.py makes all of them."""

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
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_some_faults(tmp_path):
    rows = ["`--threshold 2`", "the last checkpoint is torn", "as the checkpoint of", "between its last checkpoint"]
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "faults" / "table.py"),
        "--out",
        str(tmp_path),
        "--only",
        *rows,
    ]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, capture_output=True, timeout=580
    )
    faults = json.loads((tmp_path / "faults.json").read_text())["faults"]
    assert len(faults) == len(rows), done.stdout + done.stderr
    for row in faults:  # a busy machine may be slow
        assert set(row["problems"]) <= {"slow"}, row
        assert row["left"] == 0 and row["line"]
    assert "4 faults." in (tmp_path / "faults.md").read_text()
