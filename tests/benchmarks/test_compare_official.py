from __future__ import annotations

import json
import subprocess
import sys

import pytest
from shared.provenance import ROOT


@pytest.mark.slow
def test_equal_to_the_plain_rebuilder(tmp_path):
    script = ROOT / "benchmarks" / "compare_official.py"
    command = [sys.executable, str(script), "--repeats", "1", "--batch-size", "1", "--device", "cpu"]
    done = subprocess.run([*command, "--out", str(tmp_path)], text=True, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "compare-plain-cpu.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["DAFormer", "DeepLabV2"]
    assert all(row["error"] < 1e-9 and row["ms"].keys() == {"theirs", "ours"} for row in rows)
    assert done.stdout.count("| ours |") == 2
