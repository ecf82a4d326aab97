from __future__ import annotations

import json
import subprocess
import sys

import loading
import pytest
from shared.provenance import ROOT


@pytest.mark.parametrize(("batch", "step", "expected"), [(0.4, 0.5, 1), (0.5, 0.5, 1), (0.6, 0.5, 2), (2.0, 0.1, 20)])
def test_workers_load_a_batch_in_the_time_of_a_step(batch, step, expected):
    assert loading.workers(batch, step) == expected


@pytest.mark.slow
def test_a_short_measurement(tmp_path):
    script = ROOT / "benchmarks" / "loading.py"
    command = [sys.executable, str(script), "--methods", "daformer", "--samples", "1", "--steps", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], text=True, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "loading.json").read_text())
    assert all(1.8 < size < 3.5 for size in results["megabytes"].values())
    (row,) = results["rows"]
    assert row["crop"] == [512, 512]
    assert 0 < row["source_decode"] < row["batch"]
    table = (tmp_path / "loading.md").read_text()
    assert "| daformer, batch 2 + 2 |" in table
    assert f"| {2 * 2 / row['batch']:.1f} |" in table
