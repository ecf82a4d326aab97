"""Names of classes and paths that few terminals can show: a run, its evaluation and predictions, each to its end."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ["straße $a_$", "木 🚲"]
RECIPE = "--crop 48 96 --mrm-grid 6 12 --batch-size 1 --pretrain-iterations 2 --iterations 2 --eval-every 3 --warmup 0"


@pytest.fixture
def data(scenes, tmp_path) -> Path:
    """The scenes with classes of one's own, ids 7 to 10 and 11 to 33."""
    root = tmp_path / "meine Straßen 木"
    for split in ("train", "val"):
        shutil.copytree(scenes[0], root / split)
    ids, colours = [list(range(7, 11)), list(range(11, 34))], [[200, 0, 0], [0, 200, 0]]
    classes = [{"name": n, "ids": i, "colour": c} for n, i, c in zip(NAMES, ids, colours)]
    content = {"classes": classes, "ignore": list(range(7))}
    (root / "classes.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return root


def said(script: str, *words: str, **environment: str) -> bytes:
    command = [sys.executable, str(EXAMPLES / script), *words, "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240)
    assert done.returncode == 0, done.stdout.decode(errors="replace")
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "utf-8"},
    ],
)
def test_nothing_computed_is_lost_to_its_name(data, tmp_path, environment):
    run, domain = tmp_path / "my run 木", f"folder:{data}"
    printed = said(
        "train_dacs_mrm.py", *RECIPE.split(), "--source", domain, "--target", domain, "--out", str(run), **environment
    )
    assert b"Glyph" not in printed
    for name in ("result.json", "curves.png", "panel.png", "checkpoint.pt"):
        assert (run / name).stat().st_size > 0
    assert set(json.loads((run / "result.json").read_text(encoding="utf-8"))["iou"]["student"]) <= set(NAMES)
    said("evaluate.py", str(run), **environment)
    assert json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["classes"] == NAMES
    said("predict.py", str(run), str(data / "val" / "images"), "--out", str(tmp_path / "seen 木"), **environment)
    assert len(list((tmp_path / "seen 木").glob("*_colour.png"))) == 6
    said("train_dacs_mrm.py", "--resume", str(run), **environment)
    if environment.get("PYTHONIOENCODING") == "utf-8":
        assert shlex.split(printed.decode().splitlines()[-1])[2] == str(run)
