"""Data, weights and the trainers' command for a pair: to keep a network, with its curves, pictures and checkpoint.

    python benchmarks/photographs/prepare.py drawn-camvid --camvid PATH    # makes what is missing, prints the command

The command has the settings of the pair in arms.py, balanced labels and MRM; `--mrm-weight 0` at its end leaves MRM
out. The trainer decodes images anew in every step, which takes longer.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path
from typing import Any

from arms import ARMS
from data import PAIRS
from single import add_places, given, settings_of
from trainers import ROOT, Settings, option, preset_values

LEFT_OUT = {"preset", "method", "device", "out"}


def words_of(settings: Settings) -> list[str]:
    """The options of the command line that differ from the trainer's own defaults."""
    defaults = dataclasses.asdict(Settings(**preset_values("small", settings.method)))
    words: list[str] = []
    for name, value in dataclasses.asdict(settings).items():
        if name in LEFT_OUT or value == defaults[name]:
            continue
        if isinstance(value, bool):
            words.append(option(name) if value else option(f"no_{name}"))
        else:
            values: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
            words += [option(name), *map(str, values)]
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", choices=list(PAIRS), metavar="PAIR")
    add_places(parser)
    args = parser.parse_args()
    work = args.work.resolve()
    settings = settings_of(args.pair, ARMS["dacs, balanced+mrm"], 0, work, args.camvid, args.idd, **given(args.set))
    trainer = Path("examples") / "train_dacs_mrm.py"
    print(shlex.join(["python", str(trainer), *(word.replace(f"{ROOT}/", "") for word in words_of(settings))]))


if __name__ == "__main__":
    main()
