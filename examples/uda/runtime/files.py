"""Files that survive: written whole or not at all, read without running code, errors that name them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Gives an OSError of the inside, such as that of a full disk, the path that it lacks."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def whole_file(path: Path, shared: bool = False) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of `path` once it is on the disk as a whole.

    Whatever goes wrong, `path` is what it was before, and nothing else is left.

    Args:
        shared: whether other runs may write it at the same moment.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp" if shared else f"{path.name}.tmp")
    try:
        with naming_file(path):
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder survive a power cut, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_whole(path: Path, text: str, shared: bool = False) -> None:
    """Replaces a text file in one move; see `whole_file`."""
    with whole_file(path, shared) as file:
        file.write(text.encode())


def save_tensors(content: Any, file: IO[bytes]) -> None:
    """`torch.save`, which puts an error of its own ("unexpected pos") in place of what ended the writing.

    Raises:
        OSError: the file could not be written.
    """
    try:
        torch.save(content, file)
    except RuntimeError as error:
        if "inline_container" in str(error) and error.__context__ is not None:
            raise error.__context__ from None  # a full disk, or what a signal's handler raised
        raise


NOT_THE_FILE = {
    b"version https://git-lfs.github.com/": "a Git LFS pointer, not the file itself; fetch that with `git lfs pull`",
    b"<": "a web page (HTML or XML), not a file of tensors; fetch the file behind it, by its download link",
}


def mistaken_for(path: Path) -> str:
    """What a download has put in a file's place, in words with the remedy; empty where it has not."""
    with path.open("rb") as file:
        start = file.read(200).removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((f"it is {what}" for sign, what in NOT_THE_FILE.items() if start.startswith(sign)), "")


def read_tensors(path: Path, device: torch.device | str = "cpu") -> Any:
    """What `torch.save` wrote; nothing but tensors and plain values is unpickled, and no code of the file is run.

    Raises:
        ValueError: the file is damaged, or holds other things.
    """
    if other := mistaken_for(path):
        raise ValueError(other)
    try:
        if zipfile.is_zipfile(path):  # torch.load does not notice changed bytes
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} in it is damaged")
        return torch.load(path, map_location=device, weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # pickle, zipfile and torch raise errors of many kinds
        reason = str(error).strip().partition("\n")[0].partition(". ")[0][:160]
        raise ValueError(f"could not be read as a whole file of tensors ({type(error).__name__}: {reason})") from error


def state_dict_of(content: Any) -> dict[str, Tensor]:
    """The tensors that a file holds by their names, bare or under "state_dict".

    Raises:
        ValueError: it holds something else.
    """
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"found a {type(state).__name__}, not tensors by their names")
    return state


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Loads a state dict; counters of BatchNorm, which older files lack, stay as they are.

    Raises:
        ValueError: it does not fit, or holds values that are not finite; the line begins with `what` and names keys.
    """
    try:
        nn.Module.load_state_dict(module, dict(state))  # smp's encoders have a looser one of their own
    except RuntimeError as error:
        reasons = " ".join(line.strip() for line in str(error).splitlines()[1:])
        raise ValueError(f"{what}: {reasons[:400]}") from error
    if wrong := [key for key, value in state.items() if not bool(value.isfinite().all())]:
        raise ValueError(f"{what}: values that are not finite in {', '.join(wrong)[:200]}")
