"""What a preset changes of the settings' defaults: the papers' values, and those of the embedded scenes."""

from __future__ import annotations

from typing import Any

from .checks import FEATURE_DISTANCE

# Frames that the released configurations resize source images to, for 512 crops; twice that for HRDA's.
SOURCE_SIZES = {"synthia": (760, 1280)}
GTA5_SIZE = (720, 1280)


def preset_values(preset: str, method: str, hrda: bool | None = None, source: str = "") -> dict[str, Any]:
    """What a preset changes of the defaults.

    The papers' values are those of the released configurations; where MRM's authors published none (DACS's schedule,
    the Rebuilder's weight decay and schedule), they are our choice.

    Args:
        preset: "small" or "paper".
        method: decides most of it.
        hrda: whether there are two resolutions; None: as the method has it in this preset.
        source: LAYOUT:PATH of the source.
    """
    if preset == "small" and method == "vfm":
        return {"encoder": "small_vit", "decoder": "light", "iterations": 700}
    if preset == "small":
        hrda = method == "hrda" if hrda is None else hrda
        values: dict[str, Any] = {"rare_classes": method in ("daformer", "hrda")}
        return values | ({"hrda": True, "mrm_grid": (6, 12)} if hrda else {})  # its context is half
    hrda = method in ("hrda", "mic") if hrda is None else hrda
    scale = 2 if hrda else 1
    rows, cols = SOURCE_SIZES.get(source.partition(":")[0], GTA5_SIZE)
    values = {
        "encoder_weights": "imagenet",
        "crop": (512 * scale, 512 * scale),
        "source_size": (rows * scale, cols * scale),
        "target_size": (512 * scale, 1024 * scale),
        "batch_size": 2,
        "workers": 4,
        "pretrain_iterations": 0,
        "head_lr_factor": 10.0,
        "augment_source": False,
        "mrm_weight": 1.0,
        "mrm_lr": 2e-4,
        "mrm_block_size": 1,
        "mrm_grid": (16, 16),
        "mrm_width": 512,
        "mrm_heads": 16,
        "mrm_augment": False,
        "save_every": 1000,
        "log_every": 50,
        "mic_mask_ratio": 0.7,
        "mic_block_size": 64 if hrda else 32,
    }
    if method == "vfm":
        return values | vfm(source)
    values |= dacs() if method == "dacs" else daformer(method)
    if hrda:
        values |= {
            "hrda": True,
            "detail_crop": 512,
            "margins": (30, 240, 30, 30),
            "margins_of_image": True,
            "rare_min_crop_ratio": 2.0,
            "eval_window": 1024,
        }
    return values


def dacs() -> dict[str, Any]:
    return {
        "encoder": "resnet101",
        "decoder": "deeplabv2",
        "optimizer": "sgd",
        "lr": 2.5e-4,
        "weight_decay": 5e-4,
        "warmup": 0,
        "iterations": 250_000,
        "eval_every": 10_000,
    }


def daformer(method: str) -> dict[str, Any]:
    return {
        "encoder": "mit_b5",
        "decoder": "daformer",
        "lr": 6e-5,
        "norm_decay": False,
        "schedule_power": 1.0,
        "warmup": 1500,
        "iterations": 40_000,
        "eval_every": 4000,
        "alpha": 0.999,
        "margins": (15, 120, 0, 0),
        "rare_classes": True,
        "rare_min_pixels": 3000,
        "fd_weight": 0.005 if method in FEATURE_DISTANCE else 0.0,
    }


def vfm(source: str) -> dict[str, Any]:
    """VFM-UDA's released configuration for ViT-B."""
    return {
        "encoder": "vit_base_patch14_dinov2.lvd142m",
        "decoder": "light",
        "encoder_weights": "hub",
        "crop": (1024, 1024),
        # GTA5's frames at 1440 rows
        "source_size": (1520, 2560) if source.startswith("synthia:") else (1440, 2620),
        "target_size": (1024, 2048),
        "scale_jitter": 0.1,
        "mic_block_size": 64,  # of pyramids; transformers hide patches
        "batch_size": 8,
        # 5e-5 times the root of the whole batch, a tenth of it on the encoder
        "lr": 5e-6 * 8**0.5,
        "schedule_power": 1.0,
        "warmup": 1500,
        "warmup_apart": True,
        "iterations": 40_000,
        "eval_every": 1000,
        "alpha": 0.999,
        # shares 0.03, 0.25, 0.03 and 0.03 of Cityscapes' frames
        "margins": (30, 256, 61, 61),
        "margins_of_image": True,
        "rare_classes": True,
        "rare_temperature": 0.05,
        "rare_min_pixels": 3000,
        "rare_min_crop_ratio": 2.0,
        "eval_window": 1024,
    }
