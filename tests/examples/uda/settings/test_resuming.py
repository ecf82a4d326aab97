"""What the command line may change of a run that is gone on with."""

from __future__ import annotations

import sys

import pytest
from uda.settings import Settings, parse


@pytest.fixture
def run(tmp_path):
    (tmp_path / "settings.json").write_text(Settings(out="runs/earlier", seed=7, crop=(48, 96)).text())
    return tmp_path


def parsed(monkeypatch, run, *words):
    monkeypatch.setattr(sys, "argv", ["train.py", "--resume", str(run), *words])
    return parse(None)


def test_its_own_settings_are_used(monkeypatch, run, capsys):
    settings = parsed(monkeypatch, run, "--crop", "48", "96")  # the same again is no difference
    assert settings == Settings(out=str(run), resume=str(run), seed=7, crop=(48, 96))
    assert capsys.readouterr().out == ""


def test_some_may_change_and_are_said(monkeypatch, run, capsys):
    words = ["--workers", "3", "--device", "cpu", "--log-every", "7", "--save-every", "8", "--eval-every", "9"]
    settings = parsed(monkeypatch, run, *words)
    assert (settings.workers, settings.device, settings.eval_every) == (3, "cpu", 9)
    assert "--workers: 0 -> 3 from here on" in capsys.readouterr().out


def test_others_need_to_be_named(monkeypatch, run, capsys):
    words = ["--lr", "0.5", "--crop", "96", "96"]
    with pytest.raises(SystemExit):
        parsed(monkeypatch, run, *words)
    err = capsys.readouterr().err
    assert "the run differs: --lr 0.0005 there and 0.5 here, --crop 48 96 there and 96 96 here" in err or (
        "--crop 48 96 there and 96 96 here" in err and "--lr 0.0005 there and 0.5 here" in err
    )
    assert "--change" in err and err.count("\n") == 1
    settings = parsed(monkeypatch, run, *words, "--change", "lr", "crop")
    assert (settings.lr, settings.crop, settings.seed) == (0.5, (96, 96), 7)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--change", "speed"], "--change: expected names of settings, got 'speed'"),
        (["--change", "lr"], "--change lr: expected --lr with its new value too"),
        (
            ["--optimizer", "sgd", "--change", "optimizer"],
            "--optimizer: expected 'adamw' as the checkpoint has it, got 'sgd', which needs a new run",
        ),
        (["--mrm-width", "32", "--change", "mrm-width"], "--mrm-width: expected 64 as the checkpoint has it, got 32"),
        (["--out", "elsewhere"], "--out: expected none with --resume"),
        (["--lr", "2", "--change", "alpha", "--alpha", "0.5"], "--lr 0.0005 there and 2.0 here"),
    ],
)
def test_refused(monkeypatch, run, capsys, words, message):
    with pytest.raises(SystemExit):
        parsed(monkeypatch, run, *words)
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_traceback_concerns_settings_too(monkeypatch, run):
    with pytest.raises(ValueError, match=r"--lr 0\.0005 there and 2\.0 here"):
        parsed(monkeypatch, run, "--lr", "2", "--traceback")


@pytest.mark.parametrize("content", ["", "{half", "[]", '{"speed": 1}', '{"lr": -1}', "\x00\x01"])
def test_garbage(monkeypatch, run, capsys, content):
    (run / "settings.json").write_text(content)
    with pytest.raises(SystemExit):
        parsed(monkeypatch, run)
    err = capsys.readouterr().err
    assert "settings.json: expected the settings of a run" in err and err.count("\n") == 1


def test_change_is_for_resuming(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--change", "lr"])
    with pytest.raises(SystemExit):
        parse(None)
    assert "--change: expected with --resume alone" in capsys.readouterr().err
