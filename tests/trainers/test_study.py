from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

STUDY = Path(__file__).resolve().parents[2] / "benchmarks" / "study"
sys.path.insert(0, str(STUDY))

import arms
import single
from trainers import TRAINERS
from uda.run import train


@pytest.mark.parametrize("name", ["dacs", "dacs+mrm", "mic+mrm"])
def test_an_arm_from_the_shared_start_is_the_run_in_one_go(name, settings, tmp_path):
    arm = arms.ARMS[name]
    cfg = dataclasses.replace(settings, method=arm.method, pretrain_iterations=3, iterations=3, **arm.settings)
    whole = train(dataclasses.replace(cfg, out=str(tmp_path / "whole")), *TRAINERS[arm.method])

    single.make_start(arm, cfg, tmp_path / "start.pt")
    run, step_function = single.open_run(arm, cfg, tmp_path / "arm")
    single.load_start(run, torch.load(tmp_path / "start.pt", weights_only=True))
    single.advance(run, step_function, run.total)

    assert run.step == whole.step == 6
    for kind in ("student", "teacher"):
        ours, theirs = (getattr(r.models, kind).state_dict() for r in (run, whole))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    states = [[o.state_dict()["state"] for o in r.optimizers] for r in (run, whole)]
    assert str(states[0]) == str(states[1])
