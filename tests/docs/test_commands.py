"""Every command on the pages is one that the scripts accept."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import subprocess
import sys
import warnings

import pytest
from pages import PAGES, ROOT, Block, blocks, commands

pytest.importorskip("PIL", reason="the scripts need the examples extra")

COMMANDS = [block for page in PAGES for block in blocks(page) if block.language == ""]
INLINE = r"`(python examples/[^`]+)`"  # in tables
COMMANDS += [Block(page, "", line) for page in PAGES for line in re.findall(INLINE, page.read_text(encoding="utf-8"))]
SCRIPTS = [block for page in PAGES for block in blocks(page) if block.language == "bash"]
RUN_ELSEWHERE = ("pip install mrm-loss", "python3 -m venv .venv")  # the latter by .ci/run, to the letter
TOOLS = ("git", "pip", "cd", "ruff", "mypy", "bash", "tensorboard", "jupyter")


class Accepted(BaseException):  # which no script takes for an error of its own
    pass


@pytest.fixture
def placeholders(tmp_path, monkeypatch):
    """A working folder in which what the pages name is there."""
    from uda.settings import Settings

    for name in ("PATH", "mine/source", "mine/target"):
        (tmp_path / name).mkdir(parents=True)
    for run in ("mic+mrm-seed0", "dacs+mrm-seed0", "mine"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        settings = Settings(method=run.partition("+")[0].replace("mine", "mic"))
        (tmp_path / "runs" / run / "settings.json").write_text(settings.text())
    monkeypatch.chdir(tmp_path)


def script_of(words: list[str]) -> list[str]:
    """The script and its arguments, without environment variables, torchrun and python; [] where there is none."""
    for i, word in enumerate(words):
        if word.endswith(".py") and "=" not in word:
            return words[i:]
    return []


def accept(words: list[str], monkeypatch) -> None:
    """Runs a script up to where its arguments, and a trainer's settings, have been found right."""
    script = ROOT / words[0]
    assert script.is_file(), f"{words[0]}: no such script"
    parse_args = argparse.ArgumentParser.parse_args

    def stop(*args, **kwargs):
        raise Accepted

    if script.name.startswith("train_"):
        import uda.training.loop

        monkeypatch.setattr(uda.training.loop, "train", stop)
    else:
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self, *a: stop(parse_args(self, *a)))
    monkeypatch.setattr(sys, "argv", [str(script), *words[1:]])
    monkeypatch.syspath_prepend(str(script.parent))
    with pytest.raises(Accepted):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.name)
def test_commands_are_accepted(block: Block, placeholders, monkeypatch):
    for words in commands(block):
        if " ".join(words).startswith(RUN_ELSEWHERE) or words[0] in TOOLS:
            continue
        script = script_of(words)
        words = words[re.match(r"\w+=", words[0]) is not None :]  # an environment variable before the command
        if words[:3] == ["python", "-m", "pytest"] or not script:
            assert words[0] in TOOLS or words[:2] == ["python", "-m"], f"{' '.join(words)}: what is it?"
            continue
        with monkeypatch.context() as patched, warnings.catch_warnings():
            accept(script, patched)


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("block", SCRIPTS, ids=lambda block: block.name)
def test_scripts_start_what_is_accepted(block: Block, resumed, placeholders, tmp_path, monkeypatch):
    """Runs a shell script with a torchrun that only notes its arguments."""
    run = tmp_path / "runs" / "mic+mrm-seed0"
    if resumed:
        (run / "checkpoint.pt").touch()
    (tmp_path / "torchrun").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > noted\n')
    (tmp_path / "torchrun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    subprocess.run(["bash", "-euc", block.text], check=True)
    words = script_of((tmp_path / "noted").read_text().splitlines())
    assert ("--resume" in words) == resumed
    accept(words, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
