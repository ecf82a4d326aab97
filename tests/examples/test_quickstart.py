"""The notebook: its cells run one after the other.

After a change: `pip install nbclient ipykernel` and, in examples/, `jupyter execute --inplace quickstart.ipynb`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"
CELLS = [cell for cell in json.loads(PATH.read_text())["cells"] if cell["cell_type"] == "code"]
SOURCES = ["".join(cell["source"]) for cell in CELLS]


@pytest.mark.slow
def test_it_runs(monkeypatch, capsys):
    """In a few steps instead of all; how far they get is for the committed run to show."""
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.chdir(PATH.parent)
    code = "\n".join(SOURCES)
    assert "STEPS, BATCH = (96, 192), 200, 4" in code
    names: dict[str, object] = {}
    exec(compile(code.replace("200, 4", "3, 2"), PATH.name, "exec"), names)
    scores = [float(line.split("mIoU ")[1].split()[0]) for line in capsys.readouterr().out.splitlines()]
    assert len(scores) == 2
    assert all(math.isfinite(score) and score > 0 for score in scores)
    # masked pixels are drawn grey, and the others are as they were
    assert 0 < names["masked"].mean() < 1
    assert names["rows"][0][2].shape == names["rows"][0][0].shape
    assert not (names["rows"][0][2] == names["rows"][0][0]).all()
