from __future__ import annotations

import json
import subprocess
import sys

import pytest
from shared.provenance import ROOT


@pytest.mark.slow
def test_modes_are_measured(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "modes.py"), "--device", "cpu", "--out", str(tmp_path)]
    command += ["--modes", "fp32", "bf16", "image by image, checkpointing", "--batch-size", "2"]
    done = subprocess.run([*command, "--rounds", "1", "--steps", "1", "--warmup", "1"], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    modes = json.loads((tmp_path / "modes-mic-small-cpu.json").read_text())["modes"]
    assert list(modes) == ["fp32", "bf16", "image by image, checkpointing"]
    assert all(len(row["seconds"]) == 1 and row["seconds"][0] > 0 and row["peak"] > 100 for row in modes.values())
    assert "| bf16 |" in (tmp_path / "modes-mic-small-cpu.md").read_text()


def test_differences_of_losses():
    from modes_losses import WINDOW, difference

    fp32 = [{"source": 2.0} for _ in range(2 * WINDOW)]
    assert difference(fp32, fp32, "source") == 0
    assert difference([{"source": 2.2} for _ in fp32], fp32, "source") == pytest.approx(10)
    swinging = [{"source": 2.0 + (-1) ** i} for i in range(len(fp32))]
    assert difference(swinging, fp32, "source") == pytest.approx(0)
