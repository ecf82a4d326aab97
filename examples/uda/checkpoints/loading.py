"""Checkpoints of runs and released files into networks, ready to predict.

loaded = load_networks("runs/mic+mrm-seed0")       # a run's folder, its checkpoint.pt, or a released iter_40000.pth
logits = loaded.networks["student"].predict(images)
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data.labels import CITYSCAPES_COLOURS, CITYSCAPES_NAMES
from ..networks.build import build_network
from ..networks.hrda import HRDA
from ..networks.segmentor import Segmentor
from ..runtime.files import load_strictly, state_dict_of
from ..settings import Settings, settings_of
from .files import read_checkpoint
from .released import is_mmcv, is_vfm, load_released, read_weights_only, released_settings

WHICH = ("student", "teacher")
EXPECTED = "expected a run's folder, its checkpoint.pt, or a released file of DAFormer, HRDA, MIC or VFM-UDA"


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint holds.

    path: the file.
    networks: "student" and "teacher", those asked for that it has, in eval mode, frozen, on the CPU.
    names, colours: of the classes, (K,) and (K, 3) bytes.
    size: (height, width) of the frame that target images are resized to fit before they are predicted; None: they
        are predicted as they are.
    window: side in pixels of the sliding windows of its evaluation; 0 for whole images.
    settings: of the run; None of a released file.
    """

    path: Path
    networks: dict[str, Segmentor]
    names: list[str]
    colours: NDArray[np.uint8]
    size: tuple[int, int] | None
    window: int
    settings: Settings | None = None

    def __str__(self) -> str:
        kind = "released checkpoint" if self.settings is None else "checkpoint of a run"
        return f"{self.path}: {kind}, {' and '.join(self.networks)}"


def load_networks(path: str | Path, which: Sequence[str] = WHICH) -> Loaded:
    """Load the networks of a checkpoint, strictly; nothing but tensors and plain values is unpickled.

    Args:
        path: a run's folder, its checkpoint.pt, or a released file of DAFormer, HRDA or MIC (mmcv's, MiT encoders) or
            of VFM-UDA (Lightning's).
        which: "student", "teacher" or both. With both, one of them may be missing.

    Raises:
        FileNotFoundError: no such file, or no checkpoint.pt in the folder.
        ValueError: a file of another kind, or one that does not fit the network or lacks what was asked for.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        saved, file = read_checkpoint(file)
    elif not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; {EXPECTED}")
    else:
        try:
            saved = read_weights_only(file)
        except ValueError as error:
            raise ValueError(f"{file}: {EXPECTED}; {error}") from error
    try:
        if isinstance(saved, dict) and {"settings", *WHICH} <= saved.keys():
            return _of_run(file, saved, which)
        state = saved.get("state_dict", saved) if isinstance(saved, dict) else None
        if isinstance(state, dict) and (is_mmcv(state) or is_vfm(state)):
            check_names(saved, CITYSCAPES_NAMES, "Cityscapes'")
            return _released(file, state, which)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: {EXPECTED}, found parts of one ({type(error).__name__}: {error})") from error
    held = f"a dict of {', '.join(map(str, list(saved)[:5]))}" if isinstance(saved, dict) else type(saved).__name__
    raise ValueError(f"{file}: {EXPECTED}, found {held}")


def network_of(settings: Settings, num_classes: int) -> Segmentor:
    """The network that a run's settings name."""
    return build_network(
        settings.encoder,
        settings.decoder,
        num_classes,
        hrda=settings.hrda,
        encoder_weights=settings.encoder_weights or None,
        embed_dim=settings.decoder_width,
        detail_crop=settings.detail_crop,
    )


def _of_run(file: Path, saved: dict[str, Any], which: Sequence[str]) -> Loaded:
    """Networks of a run's checkpoint.pt."""
    settings = settings_of(saved["settings"])
    classes = saved["classes"]
    # MRM's weights, which only training needs, are left out
    student = {k.removeprefix("network."): v for k, v in saved["student"].items() if not k.startswith("mrm.")}
    states = {"student": student, "teacher": saved["teacher"]}
    has_teacher = settings.has_teacher(saved["step"])
    if not has_teacher and list(which) == ["teacher"]:
        raise ValueError(f"has no teacher: it was saved at step {saved['step']} of training on the source alone")
    # the checkpoint brings all weights: no need to find those that training started from
    network = network_of(dataclasses.replace(settings, encoder_weights=""), len(classes["names"]))
    networks: dict[str, Segmentor] = {}
    for name in which:
        if name == "student" or has_teacher:
            networks[name] = copy.deepcopy(network).eval().requires_grad_(False)
            load_strictly(networks[name], states[name], f"the {name} does not fit the network of its settings")
    names, colours = list(classes["names"]), np.array(classes["colours"], dtype=np.uint8)
    return Loaded(file, networks, names, colours, settings.target_size, settings.eval_window, settings)


def check_names(saved: Any, names: list[str], whose: str) -> None:
    """Raises ValueError where a released file names other classes than these or orders them otherwise.

    mmseg writes the names; files without them pass.
    """
    meta = saved.get("meta") if isinstance(saved, dict) else None
    theirs = meta.get("CLASSES") if isinstance(meta, dict) else None
    if theirs and list(theirs) != names:
        raise ValueError(f"expected a network of {whose} classes {names}, got {list(theirs)}")


def _released(file: Path, state: dict[str, Tensor], which: Sequence[str]) -> Loaded:
    """Networks of a released file: evaluated on Cityscapes at half size; HRDA's and VFM-UDA's at full size."""
    vfm = is_vfm(state)
    teacher = "network_ema" if vfm else "ema_model"
    has_teacher = any(key.removeprefix("module.").startswith(f"{teacher}.") for key in state)
    if not has_teacher and list(which) == ["teacher"]:
        raise ValueError(f"expected keys that start with '{teacher}.' for the teacher, found none")
    networks: dict[str, Segmentor] = {}
    for name in which:
        if name == "student" or has_teacher:
            arguments = released_settings(state, name)
            if arguments["num_classes"] != len(CITYSCAPES_NAMES):
                count = arguments["num_classes"]
                raise ValueError(f"expected a network of Cityscapes' {len(CITYSCAPES_NAMES)} classes, got {count}")
            networks[name] = build_network(**arguments).eval().requires_grad_(False)
            load_released(networks[name], state, name)
    full_size = vfm or any(isinstance(network, HRDA) for network in networks.values())
    size, window = ((1024, 2048), 1024) if full_size else ((512, 1024), 0)
    return Loaded(file, networks, CITYSCAPES_NAMES, CITYSCAPES_COLOURS, size, window)


def load_init(network: Segmentor, path: str, names: list[str]) -> None:
    """Loads the student of a released file into a network of the classes `names`, strictly.

    Raises:
        ValueError: the file does not fit the network, or says that it is of other classes.
    """
    try:
        saved = read_weights_only(Path(path))
        check_names(saved, names, "the data's")
        load_released(network, state_dict_of(saved))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What scripts that predict with a checkpoint have in common."""
    add = parser.add_argument
    add("checkpoint", help="a run's folder, its checkpoint.pt, or a released file of DAFormer, HRDA, MIC or VFM-UDA")
    default = "default: the run's; of released HRDA and VFM-UDA 1024"
    window = f"side of sliding windows that overlap by half; 0: whole images ({default})"
    add("--window", type=pixels, metavar="PIXELS", help=window)
    size = (
        "frame that images, not labels, are resized to fit for the network; 0 0: none (default: the run's; of released "
        "files the paper's)"
    )
    add("--size", type=pixels, nargs=2, metavar=("ROWS", "COLS"), help=size)
    add("--overwrite", action="store_true", help="replace files that exist")
    add("--device", default="auto", help="auto, cpu, cuda, mps")
    add("--traceback", action="store_true", help="after an error, show where it came from")


def size_and_window(loaded: Loaded, args: argparse.Namespace) -> tuple[tuple[int, int] | None, int]:
    """What the options say, or else the checkpoint; see `Loaded`."""
    size = loaded.size if args.size is None else (args.size[0], args.size[1])
    if size and any(size) and not all(size):
        raise ValueError(f"--size: expected two sides, or 0 0 for none, got {size[0]} {size[1]}")
    return size if size and all(size) else None, loaded.window if args.window is None else args.window


def pixels(word: str) -> int:
    """A side on the command line."""
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of pixels, got {word!r}")
    return int(word)
