"""The notebook: its cells run one after the other, and what is committed shows what they print.

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
OUTPUTS = [output for cell in CELLS for output in cell["outputs"]]


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


def test_outputs_are_those_of_one_clean_run():
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    assert {output["output_type"] for output in OUTPUTS} == {"stream", "display_data"}
    assert {output["name"] for output in OUTPUTS if output["output_type"] == "stream"} == {"stdout"}  # no warnings
    printed = "".join("".join(o["text"]) for o in OUTPUTS if o["output_type"] == "stream")
    assert printed.count("mIoU") == 2
    pictures = [output for output in OUTPUTS if output["output_type"] == "display_data"]
    assert all("image/png" in output["data"] for output in pictures)
    assert len(pictures) == 2


def test_it_is_small_enough_to_be_shown():
    assert PATH.stat().st_size < 500_000
