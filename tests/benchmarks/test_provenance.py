from __future__ import annotations

import json
import re

import pytest
from shared import provenance as module
from shared.provenance import ROOT, made_by, provenance

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("**/*.json"))


def test_the_command_and_its_environment(monkeypatch):
    monkeypatch.setattr(module.sys, "argv", [str(ROOT / "benchmarks" / "overhead.py"), "--name", "two words"])
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "7")
    monkeypatch.setenv("CUDA_HOME", "/usr/local/cuda")  # of no account for what runs
    origin = provenance()
    assert origin["command"] == "python benchmarks/overhead.py --name 'two words'"
    assert origin["environment"]["MALLOC_TRIM_THRESHOLD_"] == "7"
    assert "CUDA_HOME" not in origin["environment"]
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?|", origin["commit"])
    assert "MALLOC_TRIM_THRESHOLD_=7 " in made_by(origin)
    assert made_by(origin | {"note": "cut short"}) == made_by(origin) + " Note: cut short."


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_every_result_says_how_it_was_made(path):
    result = json.loads(path.read_text())
    assert result["command"].startswith(("python benchmarks/", "python examples/"))
    assert isinstance(result["environment"], dict)
    assert all(result[key] for key in ("commit", "machine", "torch", "python"))
    assert "-dirty" not in path.read_text()
