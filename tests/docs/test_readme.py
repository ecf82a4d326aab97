"""What the README tells a newcomer to type."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_script_to_paste_trains(tmp_path):
    code = re.search(r"```python\n(import torch\n.*?)```", README, re.DOTALL)
    assert code
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 20
    script = tmp_path / "script.py"
    script.write_text(code[1])
    done = subprocess.run([sys.executable, "-W", "error", script], text=True, capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert len(losses) == 10
    assert losses[-1] < losses[0]


def test_quick_start_has_two_commands():
    block = re.search(r"## Quick start\n.*?```\n(.*?)```", README, re.DOTALL)
    assert block
    commands = block[1].splitlines()
    assert len(commands) == 2
    assert "examples/train_mic_mrm.py" in commands[0]
    assert "pytest" in commands[1]
