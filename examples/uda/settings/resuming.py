"""The settings of a run that is gone on with: its own, and what the command line may change of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .checks import option, shown
from .fields import Settings, load_settings

FREE = (
    "device",
    "workers",
    "log_every",
    "save_every",
    "eval_every",
    "dry_run",
)  # change nothing of what a run computes
# decide which weights and moments there are: the checkpoint holds others
FIXED = (
    "encoder",
    "decoder",
    "decoder_width",
    "hrda",
    "optimizer",
    "norm_decay",
    "mrm_rebuild",
    "mrm_width",
    "mrm_depth",
)


def resumed(folder: str, given: Mapping[str, Any], change: Sequence[str] = ()) -> tuple[Settings, list[str]]:
    """The settings to go on with, and the changes in words.

    Args:
        folder: of the run.
        given: what the command line says itself, by field; the defaults are not among it.
        change: fields that may differ from the run's, besides `FREE`.

    Raises:
        FileNotFoundError: no run there.
        ValueError: the command line differs from the run where it may not, or settings.json is damaged.
    """
    path = Path(folder) / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(f"--resume: {path} is missing; expected the folder of an earlier run")
    try:
        saved = load_settings(path)
    except ValueError as error:
        raise ValueError(f"--resume: {path}: expected the settings of a run, {error}") from error
    change = [name.removeprefix("--").replace("-", "_") for name in change]
    known = {field.name for field in dataclasses.fields(Settings)} - {"resume", "out"}
    for name in change:
        if name not in known:
            raise ValueError(f"--change: expected names of settings, got {name!r}")
        if name in FIXED and name in given and given[name] != getattr(saved, name):
            own, wanted = shown(getattr(saved, name)), shown(given[name])
            raise ValueError(
                f"{option(name)}: expected {own} as the checkpoint has it, got {wanted}, which needs a new run"
            )
        if name not in given:
            raise ValueError(f"--change {name}: expected {option(name)} with its new value too, got none")
    new = {name: value for name, value in given.items() if name in known and value != getattr(saved, name)}
    changes = [f"{option(name)}: {shown(getattr(saved, name))} -> {shown(value)}" for name, value in new.items()]
    refused = [name for name in new if name not in (*FREE, *change)]
    if refused:
        differs = ", ".join(
            f"{option(name)} {shown(getattr(saved, name))} there and {shown(new[name])} here" for name in refused
        )
        allow = f"--change {' '.join(refused)}"
        raise ValueError(f"--resume {folder}: the run differs: {differs}; leave that out, or allow it: {allow}")
    if "out" in given and Path(given["out"]) != Path(folder):
        raise ValueError(f"--out: expected none with --resume, whose folder it is, got {given['out']!r}")
    return dataclasses.replace(saved, **new, resume=folder, out=folder), changes
