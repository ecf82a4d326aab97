"""Every setting of the trainers: one dataclass, from which the command line is made."""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints


def setting(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class Settings:
    """Defaults are those of the embedded street scenes."""

    # what is trained
    method: str = setting("dacs", "self-training method")
    network: str = setting("small", "network", ("small",))
    seed: int = setting(0, "of everything that is drawn")

    # data
    source: str = setting("", "labelled domain, as gta5:PATH; empty: the embedded scenes")
    target: str = setting("", "unlabelled domain, as cityscapes:PATH; empty: the embedded scenes")
    scenes: str = setting("data/scenes", "folder the embedded scenes are written to, once")
    crop: tuple[int, int] = setting((96, 192), "rows and columns of training crops")
    batch_size: int = setting(4, "images of each domain per step and process")
    workers: int = setting(0, "processes that load data beside the training process")

    # schedule
    pretrain_iterations: int = setting(
        800, "steps on the source alone before self-training; stands in for ImageNet weights on the small network"
    )
    pretrain_lr: float = setting(1e-3, "learning rate of those steps")
    iterations: int = setting(1500, "steps of the method")
    lr: float = setting(5e-4, "learning rate of the encoder")
    head_lr_factor: float = setting(1.0, "learning rate of the decoder / of the encoder")
    weight_decay: float = setting(0.01, "of AdamW")
    warmup: int = setting(50, "steps of linear warm-up, in either phase")

    # self-training
    alpha: float = setting(0.99, "the teacher's EMA decay")
    threshold: float = setting(0.968, "probability from which a pseudo-label counts as confident")
    margins: tuple[int, int] = setting((0, 0), "upper and lower rows of target crops that are not trusted")
    jitter: float = setting(0.2, "strength of the colour jitter")
    augment_source: bool = setting(True, "colour augmentation in steps on the source alone")

    # masked image consistency
    mic_weight: float = setting(1.0, "weight of the masked consistency loss")
    mic_mask_ratio: float = setting(0.3, "share of the image that is removed (0.7 in the paper)")
    mic_block_size: int = setting(12, "side in pixels of the blocks that are removed (64 in the paper)")

    # masked representation modeling
    mrm_weight: float = setting(2.0, "weight of the MRM loss; 0 builds no Rebuilder and is the exact baseline")
    mrm_lr: float = setting(1.5e-3, "learning rate of the Rebuilder (2e-4 in the paper)")
    mrm_mask_ratio: float = setting(0.4, "share of the feature grid that is masked")
    mrm_block_size: int = setting(2, "side in cells of masked blocks (1 in the paper)")
    mrm_grid: tuple[int, int] = setting((12, 24), "rows and columns of the token grid (16 16 in the paper)")
    mrm_width: int = setting(64, "width of the Rebuilder (512 in the paper); its heads are 16 wide or 16 in number")
    mrm_augment: bool = setting(True, "colour augmentation of the target images of the MRM pass (our addition)")

    # the run
    out: str = setting("", "folder of the run; empty: runs/METHOD-seedSEED")
    resume: str = setting("", "folder of a run to go on with; its settings are used")
    eval_every: int = setting(500, "steps between evaluations")
    save_every: int = setting(500, "steps between checkpoints")
    log_every: int = setting(10, "steps between lines of metrics.jsonl")
    device: str = setting("auto", "auto, cpu, cuda, mps")

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def load_settings(path: Path) -> Settings:
    """Settings that `Settings.save` wrote."""
    values = json.loads(path.read_text())
    return Settings(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


def parse(description: str, methods: tuple[str, ...], default_method: str) -> Settings:
    """Settings from the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    hints = get_type_hints(Settings)
    for field in dataclasses.fields(Settings):
        options: dict[str, Any] = {"default": field.default, "help": field.metadata["help"]}
        kind = hints[field.name]
        if field.name == "method":
            options |= {"default": default_method, "choices": methods}
        elif kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif kind in (int, float, str):
            options |= {"type": kind, "choices": field.metadata["choices"], "metavar": field.name.upper()}
        else:
            options |= {
                "type": int,
                "nargs": 2,
                "metavar": ("TOP", "BOTTOM") if field.name == "margins" else ("ROWS", "COLS"),
            }
        parser.add_argument(f"--{field.name.replace('_', '-')}", **options)
    given = vars(parser.parse_args())
    settings = Settings(**{key: tuple(v) if isinstance(v, list) else v for key, v in given.items()})
    if settings.resume:
        path = Path(settings.resume) / "settings.json"
        if not path.is_file():
            parser.error(f"--resume: {path} is missing; expected the folder of an earlier run")
        return dataclasses.replace(load_settings(path), resume=settings.resume, out=settings.resume)
    return settings
