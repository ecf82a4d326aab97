"""Every setting of the trainers: one dataclass, from which the command line is made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..networks.build import DECODERS
from .checks import check_fields

METHODS = ("dacs", "daformer", "hrda", "mic", "vfm", "source-only")
PRECISIONS = ("fp32", "bf16", "fp16")
MRM_ON = ("target", "source", "both", "mixed", "masked")
DEVICES = ("auto", "cpu", "cuda", "mps")


def setting(
    default: Any,
    help: str,
    choices: tuple[str, ...] | None = None,
    names: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A field and what it may hold: low <= value <= high, above < value < below; of tuples every entry."""
    limits = {"low": low, "high": high, "above": above, "below": below}
    return dataclasses.field(
        default=default, metadata={"help": help, "choices": choices, "names": names.split(), **limits}
    )


@dataclass(frozen=True)
class Settings:
    """Defaults are those of the embedded street scenes (preset "small")."""

    # what is trained
    method: str = setting("mic", "self-training method", METHODS)
    preset: str = setting("small", "where the other defaults come from", ("small", "paper"))
    encoder: str = setting(
        "small",
        "encoder: small, small_vit, a name of segmentation_models_pytorch (mit_b5, resnet101), or of a timm ViT, "
        "EVA-02 or ConvNeXt (vit_base_patch14_dinov2.lvd142m)",
    )
    decoder: str = setting("small", "decoder", DECODERS)
    decoder_width: int = setting(256, "channels of DAFormer's decoder (256 as published)", low=1)
    hrda: bool = setting(False, "HRDA's two resolutions, with any encoder and decoder")
    detail_crop: int = setting(96, "side in pixels of HRDA's detail crops", low=8)
    encoder_weights: str = setting("", "imagenet or hub (fetched), a file of encoder weights, or empty for random ones")
    init: str = setting("", "released checkpoint of DAFormer, HRDA, MIC (MiT encoders) or VFM-UDA to start from")
    seed: int = setting(0, "of everything that is drawn", low=0, high=2**63 - 1)

    # data
    source: str = setting("", "labelled domain as LAYOUT:PATH; empty: the embedded scenes")
    target: str = setting("", "unlabelled domain as LAYOUT:PATH; empty: the embedded scenes")
    scenes: str = setting("data/scenes", "folder the embedded scenes are written to, once")
    source_size: tuple[int, int] | None = setting(
        None, "source images are resized to this before cropping", names="ROWS COLS", low=1
    )
    target_size: tuple[int, int] | None = setting(
        None, "target images are resized to this before cropping", names="ROWS COLS", low=1
    )
    scale_jitter: float = setting(
        0.0, "images are resized besides by 1 - this to 1 + this, at random (0.1 in VFM-UDA)", low=0, below=1
    )
    crop: tuple[int, int] = setting((96, 192), "size of training crops", names="ROWS COLS", low=8)
    batch_size: int = setting(4, "images of each domain per step and process", low=1)
    workers: int = setting(0, "processes that load data beside the training process", low=0)
    rare_classes: bool = setting(False, "rare class sampling of source images (DAFormer)")
    rare_temperature: float = setting(0.01, "temperature of rare class sampling", above=0)
    rare_min_pixels: int = setting(60, "pixels from which an image counts as showing a class", low=0)
    rare_min_crop_ratio: float = setting(0.5, "share of these pixels that a crop must show of the class", low=0)

    # schedule
    pretrain_iterations: int = setting(
        800,
        "steps on the source alone before self-training; on the small network they stand in for ImageNet weights",
        low=0,
    )
    pretrain_lr: float = setting(1e-3, "learning rate of those steps", above=0)
    iterations: int = setting(1500, "steps of the method (for DACS in the paper preset our choice)", low=1)
    optimizer: str = setting("adamw", "optimiser of the network; sgd has momentum 0.9 (DACS)", ("adamw", "sgd"))
    lr: float = setting(5e-4, "learning rate of the encoder (for DACS in the paper preset our choice)", low=0)
    head_lr_factor: float = setting(1.0, "learning rate of the decoder / of the encoder", low=0)
    weight_decay: float = setting(0.01, "weight decay of the network (for DACS in the paper preset our choice)", low=0)
    norm_decay: bool = setting(True, "weight decay on the encoder's norms too; not so in DAFormer")
    schedule_power: float = setting(
        0.9, "rates, the Rebuilder's too (our choice), fall with (1 - step / iterations) to this power", low=0
    )
    warmup: int = setting(50, "steps of linear warm-up, in either phase", low=0)
    warmup_apart: bool = setting(
        False, "the warm-up goes up to the whole rate, whence it falls to that of the schedule at once (VFM-UDA)"
    )

    # self-training
    alpha: float = setting(0.99, "the teacher's EMA decay", low=0, high=1)
    threshold: float = setting(0.968, "probability from which a pseudo-label counts as confident", low=0, high=1)
    margins: tuple[int, int, int, int] = setting(
        (0, 0, 0, 0), "margins where pseudo-labels are not trusted", names="TOP BOTTOM LEFT RIGHT", low=0
    )
    margins_of_image: bool = setting(False, "margins are those of the whole image, not of the crop (HRDA)")
    balance_labels: bool = setting(
        False, "target pixels whose pseudo-label is rare in the batch weigh more, in every loss (our addition)"
    )
    augment_source: bool = setting(True, "colour augmentation in steps on the source alone (our choice)")
    fd_weight: float = setting(
        0.0,
        "weight of the ImageNet feature distance (0.005 in DAFormer), at classes named as Cityscapes' things are; "
        "needs encoder weights",
        low=0,
    )
    mic_mask_ratio: float = setting(
        0.3, "share of the image, or of a ViT's patches, that is removed (0.7 in MIC and VFM-UDA)", low=0, high=1
    )
    mic_block_size: int = setting(12, "side in pixels of the blocks that are removed (64 in MIC)", low=1)

    # masked representation modeling
    mrm_weight: float = setting(
        2.0, "weight of the MRM loss (1 in the paper); 0: no Rebuilder, the exact baseline", low=0
    )
    mrm_on: str = setting(
        "target",
        "features that are rebuilt: target, source or both in a pass of their own (the paper's ablation), mixed or "
        "masked those that another loss has anyway (our addition); HRDA's two resolutions get a mask each (our choice)",
        MRM_ON,
    )
    mrm_every: int = setting(
        1,
        "MRM takes part in every so many-th step, with so many times the weight: 2 halves its cost (our addition)",
        low=1,
    )
    mrm_lr: float = setting(1.5e-3, "learning rate of the Rebuilder (2e-4 in the paper)", low=0)
    mrm_mask_ratio: float = setting(0.4, "share of the feature grid that is masked", above=0, below=1)
    mrm_block_size: int = setting(2, "side in cells of masked blocks (1 in the paper)", low=1)
    mrm_grid: tuple[int, int] = setting((12, 24), "token grid (16 16 in the paper)", names="ROWS COLS", low=1)
    mrm_mask_only: bool = setting(
        False, "masked cells are filled from the mask token, nothing is rebuilt, no transformer (our addition)"
    )
    mrm_width: int = setting(64, "width of the Rebuilder's tokens (512 in the paper)", low=4)
    mrm_depth: int = setting(2, "transformer blocks of the Rebuilder (2 in the paper)", low=1)
    mrm_heads: int = setting(4, "attention heads of the Rebuilder (16 in the paper)", low=1)
    mrm_augment: bool = setting(True, "colour augmentation in MRM's own pass (our addition)")

    # the run
    out: str = setting("", "folder of the run; empty: runs/METHOD+mrm-seedSEED or the like")
    resume: str = setting("", "folder of a run to go on with; its settings are used")
    dry_run: bool = setting(False, "check settings, data, weights and the memory of a step, and train nothing")
    eval_every: int = setting(500, "steps between evaluations", low=1)
    eval_window: int = setting(
        0, "side in pixels of sliding evaluation windows, which overlap by half; 0: whole images", low=0
    )
    save_every: int = setting(500, "steps between checkpoints", low=1)
    log_every: int = setting(10, "steps between lines of metrics.jsonl", low=1)
    device: str = setting("auto", "what it runs on; auto: cuda or mps where there is one", DEVICES)
    precision: str = setting(
        "fp32", "of the passes through the networks: bf16 and fp16 by autocast, fp16 with a loss scale", PRECISIONS
    )
    compile: bool = setting(False, "torch.compile for encoders, decoders and Rebuilder in training (torch 2.6 on)")
    checkpoint_activations: bool = setting(
        False, "the encoder's blocks are run again in the backward: less memory, a third more computing"
    )
    sync_batchnorm: bool = setting(False, "BatchNorm over the images of all processes, on NVIDIA's GPUs")

    def __post_init__(self) -> None:
        check_fields(self)

    def text(self) -> str:
        """As settings.json holds them."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @property
    def uses_mrm(self) -> bool:
        return self.mrm_weight > 0 and self.method != "source-only"

    def has_teacher(self, step: int) -> bool:
        """Whether the run has a teacher at this step, counted from the first of --pretrain-iterations."""
        return self.method != "source-only" and step >= self.pretrain_iterations

    @property
    def mrm_period(self) -> int:
        """Steps from one with MRM to the next; 1 where none has it, or all."""
        return self.mrm_every if self.uses_mrm else 1

    def mrm_due(self, step: int) -> bool:
        """Whether MRM, where it is on, takes part in this step of the method, counted from 0.

        It does in every `mrm_every`-th of the run, so that a log line shows it where that divides --log-every.
        """
        return (self.pretrain_iterations + step + 1) % self.mrm_period == 0


def load_settings(path: Path) -> Settings:
    """Settings that `Settings.save` wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"expected a table of settings, got {type(values).__name__}")
    return settings_of(values)


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Settings as a checkpoint holds them; those that it lacks have their defaults."""
    unknown = sorted(values.keys() - {field.name for field in dataclasses.fields(Settings)})
    if unknown:
        raise ValueError(f"settings: expected those of this version, got {', '.join(unknown)} besides")
    return Settings(**as_tuples(values))


def as_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
