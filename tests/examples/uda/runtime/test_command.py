"""How scripts end: what is said, and the status."""

from __future__ import annotations

import errno
import faulthandler
import warnings

import pytest
import torch
from uda.runtime.command import command, explained, note


def ended(error, capsys, monkeypatch, *words) -> tuple[int, str]:
    def main():
        if isinstance(error, BaseException):
            raise error
        return error

    monkeypatch.setattr("sys.argv", ["script.py", *words])
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *_, **__: None)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # which `command` changes
    with pytest.raises(SystemExit) as left:
        command(main)
    return left.value.code, capsys.readouterr().err


def test_a_warning_takes_one_line(capsys, monkeypatch):
    ended(None, capsys, monkeypatch)
    assert warnings.formatwarning("a.png: labels\n are resized", UserWarning, "x.py", 3) == (
        "warning: a.png: labels are resized\n"
    )


@pytest.mark.parametrize("result", [None, 0, {"a": 1}])
def test_success(capsys, monkeypatch, result):
    assert ended(result, capsys, monkeypatch) == (0, "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("--lr: expected\n  a number"), "error: --lr: expected a number"),
        (FileNotFoundError("x.png: no such file"), "error: x.png: no such file"),
        (OSError(errno.ENOSPC, "No space left on device", "m.jsonl"), "error: m.jsonl: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "run"), "error: run: permission denied"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "error: out of memory; a smaller --batch-size"),
        (RuntimeError("gloo: Connection closed by peer"), "error: another process of this run has ended"),
        (
            RuntimeError(
                "NCCL error in: x.cpp:1, remote process exited or there was a network error\nncclRemoteError: A"
            ),
            "error: another process of this run has ended",
        ),
        (RuntimeError("NCCL communicator was aborted on rank 1."), "error: another process of this run has ended"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."), "error: a process that loads data"),
        (ModuleNotFoundError("encoder mit_b5: needs smp"), "error: encoder mit_b5: needs smp"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit("interrupted at step 3"), "interrupted at step 3"),
    ],
)
def test_expected_errors_take_one_line(capsys, monkeypatch, error, line):
    status, err = ended(error, capsys, monkeypatch)
    assert status == 1
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_the_rest_is_shown_on_request_and_for_what_nobody_expected(capsys, monkeypatch):
    assert "Traceback" in ended(ValueError("wrong"), capsys, monkeypatch, "--traceback")[1]
    status, err = ended(KeyError("oops"), capsys, monkeypatch)
    assert status == 1
    assert "Traceback" in err and err.endswith("error: KeyError('oops')\n")


def test_notes_and_processes(capsys, monkeypatch):
    error = ValueError("wrong")
    note(error, "go on with --resume x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert ended(error, capsys, monkeypatch)[1].startswith("\nprocess 1: error: wrong; go on with --resume x")


def test_an_error_of_a_loaders_process_is_what_it_was_there():
    text = "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    text += "  File\n    raise\n"
    assert explained(ValueError(text + "ValueError: a.png: expected an image: cut off\nand more\n")) == (
        "a.png: expected an image: cut off and more"
    )
