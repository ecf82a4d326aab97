"""Files are written whole or not at all, and read without running code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from uda.runtime.files import mistaken_for, read_tensors, save_tensors, whole_file, write_whole


class Full:
    """A file on a disk without space."""

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        raise OSError(28, "No space left on device")


def test_a_failed_write_leaves_what_was(tmp_path):
    path = tmp_path / "settings.json"
    write_whole(path, "old")

    def fail():
        with whole_file(path) as file:
            file.write(b"ne")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: .*settings.json"):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["settings.json"]


def test_two_runs_may_write_a_shared_file_at_once(tmp_path, monkeypatch):
    path = tmp_path / "statistics.json"
    with whole_file(path, shared=True) as first:
        first.write(b"first")
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 1)
            write_whole(path, "second", shared=True)
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["statistics.json"]


def test_a_full_disk_is_named_when_tensors_are_saved(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: .*x.pt"), whole_file(tmp_path / "x.pt") as file:
        save_tensors({"a": torch.zeros(9)}, Full(file))
    assert not list(tmp_path.iterdir())


class Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("damage", ["none", "cut", "flipped", "empty", "garbage", "code"])
def test_damage_is_noticed_and_code_is_not_run(tmp_path, damage):
    path, owned = tmp_path / "x.pt", tmp_path / "owned"
    torch.save(Code(owned) if damage == "code" else {"a": torch.arange(1000)}, path)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 255
    cut = {"cut": content[:-100], "flipped": content, "empty": b"", "garbage": b"hello" * 100}
    path.write_bytes(cut.get(damage, content))
    if damage == "none":
        assert torch.equal(read_tensors(path)["a"], torch.arange(1000))
        return
    with pytest.raises(ValueError, match="could not be read as a whole file of tensors"):
        read_tensors(path)
    assert not os.path.exists(owned)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LFS, "a Git LFS pointer, .* `git lfs pull`"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page .*download link"),
        (b"\xef\xbb\xbf\n <html>", "a web page .*download link"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page .*download link"),
    ],
)
def test_what_a_download_has_put_in_a_files_place(tmp_path, content, words):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^it is {words}"):
        read_tensors(path)


def test_other_files_are_not_mistaken_for_these(tmp_path):
    for content in (b"", b"PK\x03\x04", b"\x80\x02}", b"hello"):
        (tmp_path / "x").write_bytes(content)
        assert mistaken_for(tmp_path / "x") == ""
