"""A run's two last checkpoints on disk: there is a whole one at any moment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from ..runtime.files import read_tensors, save_tensors, sync_folder, whole_file

CHECKPOINT, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint-previous.pt", "checkpoint-damaged.pt"


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Writes checkpoint.pt; the one before stays as checkpoint-previous.pt.

    A kill, a power cut or a full disk leaves either the old pair or the new one, or for a moment the old checkpoint
    under its new name alone, which `read_checkpoint` finds too.
    """
    new, path = folder / "checkpoint-new.pt", folder / CHECKPOINT
    with whole_file(new) as file:
        save_tensors(state, file)
    if path.exists():
        os.replace(path, folder / PREVIOUS)
    os.replace(new, path)
    sync_folder(folder)


def read_checkpoint(folder: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Any], Path]:
    """The last whole checkpoint of a run, and its path; says so where it is not the last one.

    Raises:
        FileNotFoundError: there is none yet.
        ValueError: neither can be read.
    """
    damaged = []
    for path in (folder / CHECKPOINT, folder / PREVIOUS):
        if not path.is_file():
            continue
        try:
            state = read_tensors(path, device)
            if not isinstance(state, dict) or "step" not in state:
                raise ValueError("expected the checkpoint of a run, found something else")
        except ValueError as error:
            damaged.append(f"{path}: {error}")
            continue
        if path.name == PREVIOUS:
            reason = damaged[0] if damaged else f"{folder / CHECKPOINT} is missing"
            print(f"{reason}; using {path}, of step {state['step']}", file=sys.stderr)
        return state, path
    if damaged:
        raise ValueError("; ".join(damaged))
    raise FileNotFoundError(f"{folder}: expected the folder of a run, found no {CHECKPOINT} in it (none saved yet?)")


def set_damaged_aside(folder: Path) -> None:
    """Of a run that goes on from its checkpoint before the last: the damaged last one must not take its place."""
    if (folder / CHECKPOINT).exists():
        os.replace(folder / CHECKPOINT, folder / DAMAGED)
