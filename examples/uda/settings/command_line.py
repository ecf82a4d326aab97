"""The command line of the trainers: one option per field of `Settings`; and what of a run it may change on resuming."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from .checks import contradiction, option, range_of, shown
from .fields import METHODS, MRM_ON, Settings, as_tuples, load_settings
from .presets import preset_values

# change nothing of what a run computes: may differ on resuming
FREE = ("device", "workers", "log_every", "save_every", "eval_every", "dry_run")
# decide which weights and moments there are: the checkpoint holds others
FIXED = (
    "encoder",
    "decoder",
    "decoder_width",
    "hrda",
    "optimizer",
    "norm_decay",
    "mrm_mask_only",
    "mrm_width",
    "mrm_depth",
)


def parse(description: str | None, methods: tuple[str, ...] = METHODS, mrm_on: tuple[str, ...] = MRM_ON) -> Settings:
    """Settings from the command line; the first of a trainer's `methods` is the default."""
    first = Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="small")
    first.add_argument("--method", default=methods[0])
    first.add_argument("--source", default="")
    first.add_argument("--hrda", action=argparse.BooleanOptionalAction)
    known, _ = first.parse_known_args()
    # a trainer's source-only is the lower bound of its own first method
    recipe = methods[0] if known.method == "source-only" and methods[0] in ("dacs", "vfm") else known.method
    defaults = {"method": methods[0]} | preset_values(known.preset, recipe, known.hrda, known.source)
    parser = make_parser(description, defaults, {"method": methods, "mrm_on": mrm_on})
    given = vars(parser.parse_args())
    change = given.pop("change", [])
    traceback = given.pop("traceback", False)
    try:
        settings = Settings(**as_tuples(defaults | given))
        if settings.resume:
            settings, changes = resumed(settings.resume, as_tuples(given), change)
            for line in changes:
                print(f"{settings.resume}: {line} from here on")
        elif change:
            raise ValueError("--change: expected with --resume alone, to go on with other settings")
    except (ValueError, OSError) as error:
        if traceback:
            raise  # `command` shows it
        parser.error(str(error))
    if wrong := outside(settings, methods, mrm_on) or contradiction(settings):
        parser.error(wrong)
    return settings


def outside(settings: Settings, methods: tuple[str, ...], mrm_on: tuple[str, ...]) -> str:
    """What a trainer of these methods cannot do, in words; empty where there is nothing."""
    other = "; use train_mic_mrm.py" if "mic" not in methods else ""
    if settings.method not in methods or settings.mrm_on not in mrm_on:
        return f"{settings.resume}: a run of {settings.method} with --mrm-on {settings.mrm_on}{other}"
    if settings.hrda and "mic" not in methods:
        return f"--hrda: this trainer has one resolution{other}"
    return ""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; sixty options' usage would bury it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help shows every setting)\n")


def value_of(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A word as a value; as it is where it is none, for `Settings` to refuse with all that it says."""

    def convert(word: str) -> Any:
        try:
            return kind(word)
        except ValueError:
            return word

    return convert


def make_parser(description: str | None, defaults: dict[str, Any], offered: dict[str, tuple[str, ...]]) -> Parser:
    """One option per field of `Settings`, with the choices that a trainer offers; holds what is given alone."""
    parser = Parser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    hints = get_type_hints(Settings)
    for field in dataclasses.fields(Settings):
        default, kind = defaults.get(field.name, field.default), hints[field.name]
        text = " ".join(map(str, default)) if isinstance(default, tuple) else default
        notes = [range_of(field.metadata).removeprefix("of ")] + (
            [f"default: {text}"] if text not in ("", None) else []
        )
        help = field.metadata["help"] + (f" ({'; '.join(filter(None, notes))})" if any(notes) else "")
        options: dict[str, Any] = {"help": help.replace("%", "%%")}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif names := tuple(field.metadata["names"]):
            options |= {"type": value_of(int), "nargs": len(names), "metavar": names}
        else:
            choices = offered.get(field.name, field.metadata["choices"])
            options |= {"type": value_of(kind), "choices": choices}
            options |= {} if choices else {"metavar": kind.__name__.upper()}
        parser.add_argument(option(field.name), **options)
    change = "settings of the run to go on with that the command line may change (always: " + ", ".join(FREE) + ")"
    parser.add_argument("--change", nargs="+", metavar="NAME", help=change.replace("_", "-"))
    parser.add_argument("--traceback", action="store_true", help="after an error, show where it came from")
    return parser


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
