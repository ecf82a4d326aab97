"""The published training code of DAFormer, HRDA and MIC: github.com/lhoyer/MIC, folder seg/.

Nothing of it is here; these functions take a checkout, and import mmcv where they are called.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

PATCH = Path(__file__).resolve().parents[2] / "examples" / "official_mic" / "mrm.patch"
CONFIGS = {
    "daformer": "daformer/gta2cs_uda_warm_fdthings_rcs_croppl_a999_daformer_mitb5_s0.py",
    "hrda": "hrda/gtaHR2csHR_hrda.py",
    "mic": "mic/gtaHR2csHR_mic_hrda.py",
}
NORMALISATION = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def patched_copy(checkout: Path, folder: Path) -> Path:
    """A copy of a checkout in `folder`, with MRM."""
    shutil.copytree(checkout / "seg", folder / "seg")
    alone = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent)}  # whatever repository lies around it
    subprocess.run(["git", "apply", str(PATCH)], cwd=folder, env=alone, check=True)
    return folder


def build(checkout: Path, method: str, crop: int) -> Any:
    """Networks of MiT-B0 with random weights, the teacher's and the ImageNet encoder's those of the student.

    Args:
        checkout: a folder with seg/ in it. One process can use one.
        method: "daformer", "hrda" or "mic", in the released configuration.
        crop: side in pixels of the training crops; HRDA's detail crops are half of it.
    """
    config = checkout / "seg" / "configs" / CONFIGS[method]
    if not config.is_file():
        raise SystemExit(f"{checkout}: expected a checkout of github.com/lhoyer/MIC, found no {config}")
    sys.path.insert(0, str(checkout / "seg"))
    try:
        from mmcv import Config
        from mmseg.models.builder import build_train_model
    except ImportError as error:
        raise SystemExit(f"{error}: install what examples/official_mic/README.md lists") from error

    logging.disable(logging.INFO)
    cfg = Config.fromfile(str(config))
    cfg.model.pretrained = None
    cfg.model.backbone.type = "mit_b0"
    cfg.model.decode_head.in_channels = [32, 64, 160, 256]
    cfg.model.train_cfg.log_config = cfg.log_config
    if "hr_crop_size" in cfg.model:
        cfg.model.hr_crop_size = (crop // 2, crop // 2)
    uda = build_train_model(cfg)
    uda.init_weights()
    uda._init_ema_weights()
    uda.imnet_model.load_state_dict(uda.model.state_dict())
    uda.local_iter = 1  # no pictures are drawn
    uda.psweight_ignore_top = uda.psweight_ignore_bottom = 0  # the batch says where pseudo-labels are trusted
    return uda.train()


def arguments(source: Tensor, labels: Tensor, target: Tensor, trusted: Tensor) -> dict[str, Any]:
    """One batch as the training step takes it: images (B, 3, H, W), labels and weights (B, H, W)."""
    metas = [{"img_norm_cfg": NORMALISATION}] * len(source)
    return {
        "img": source,
        "img_metas": metas,
        "gt_semantic_seg": labels[:, None],
        "target_img": target,
        "target_img_metas": metas,
        "valid_pseudo_mask": trusted[:, None],
    }
