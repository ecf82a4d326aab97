"""Records vfm_steps.json and .npz: three training steps of VFM-UDA's own code, in float64, with given random choices.

    python tests/parity/record_vfm_steps.py PATH/TO/vfm-uda PATH/TO/dinov2        # needs lightning and torchmetrics

The paths are checkouts of github.com/tue-mps/vfm-uda and github.com/facebookresearch/dinov2.
"""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [*sys.argv[1:3], str(HERE.parent / "helpers")]

from parity import Parity
from vfm_steps import BATCH, CLASSES, CROP, RATE, SCHEDULE, STEPS, TABLE, THRESHOLD, TOTAL, VIT, WARMUP, Step, sample
from vfm_steps import strong as strong_colours
from vfm_steps import weak as weak_colours

LOSSES = {"source": "train_loss_source", "mixed": "train_loss_mix", "masked": "loss_masked"}


def dinov2(_: str, name: str) -> nn.Module:
    """In place of the hub."""
    from dinov2.models.vision_transformer import DinoVisionTransformer

    return DinoVisionTransformer(img_size=TABLE, block_chunks=0, **VIT)


def record(parity: Parity, arrays: dict[str, np.ndarray]) -> None:
    """Trains for three steps and adds what each one leaves."""
    import lightning
    import models.token_masking
    import training.uda_vit.uda_vit_generic as generic
    from models.vit_variants.vit_lightweight_head import VITLightweightHead
    from models.warmup_and_linear_scheduler import WarmupAndLinearScheduler

    network = VITLightweightHead(img_size=CROP, model_name="small", num_classes=CLASSES).double()
    parameters = dict(sorted(network.named_parameters()))
    table = [[k, name, list(p.shape)] for k, (name, p) in enumerate(parameters.items())]
    parity.meta["weights"] = {"fill": "hash", "filled_k_key_shape": table}
    for name, value in parity.weights().items():
        parameters[name].data.copy_(value)
    module = generic.UDAVITGeneric(
        batch_size=BATCH, img_size=CROP, network=network, lr=RATE, warmup_iters=WARMUP, token_mask_ratio=0.7
    ).double()
    module.pseudo_threshold = THRESHOLD
    module.random_aug_weak, module.random_aug_uda = weak_colours, strong_colours
    steps = [Step(parity, index) for index in range(STEPS)]
    given: list[Step] = []
    names = list(parameters)

    class Record(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            given.append(steps[index])
            groups = {p: group for group in trainer.optimizers[0].param_groups for p in group["params"]}
            rates = {name: [groups[parameters[name]][key] for key in ("lr", "weight_decay")] for name in names}
            parity.meta["rates"].append(rates)

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            metrics = trainer.callback_metrics
            parity.meta["losses"].append({ours: metrics[theirs].item() for ours, theirs in LOSSES.items()})
            teacher = module.network_ema.state_dict()
            found = {
                "gradients": [parameters[name].grad for name in names],
                "weights": [parameters[name] for name in names],
                "teacher": [teacher[name] for name in names],
            }
            for kind, tensors in found.items():
                values, spreads = sample(tensors)
                arrays[f"it{index}.{kind}"], arrays[f"it{index}.{kind}.spread"] = values.numpy(), spreads.numpy()

    def batches() -> Iterator[tuple[Tensor, ...]]:
        for step in steps:
            yield step.images[0], step.labels, step.ignored, step.images[1], step.labels, step.ignored

    masking = models.token_masking.TokenMasking
    with (
        patch.object(generic, "batched_rand_hflip", lambda x, y: (x, y)),
        patch.object(generic, "get_class_masks", lambda labels: list(given[-1].pasted[:, None, None].long())),
        patch.object(masking, "get_random_token_mask_idx", lambda *_: given[-1].hidden.flatten(1)),
    ):
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        limits = {"max_steps": TOTAL, "limit_train_batches": STEPS, "max_epochs": 1}
        trainer = lightning.Trainer(accelerator="cpu", callbacks=[Record()], **limits, **quiet)
        trainer.fit(module, torch.utils.data.DataLoader(list(batches()), batch_size=None))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    factors = WarmupAndLinearScheduler(optimizer, 1e-3, 1500, 1, 0, 40000).lr_schedule
    arrays["schedule"] = np.array([factors[step] for step in SCHEDULE])


def main() -> None:
    parity, arrays = Parity.__new__(Parity), {}
    heads = [["git", "-C", path, "rev-parse", "--short", "HEAD"] for path in sys.argv[1:3]]
    commits = [subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip() for head in heads]
    parity.meta = {"constants": {"hs": 0}, "commits": commits, "torch": torch.__version__, "losses": [], "rates": []}
    scheduler = torch.optim.lr_scheduler.LRScheduler
    init: Callable[..., None] = scheduler.__init__

    def without_verbose(self: Any, optimizer: Any, last_epoch: int = -1, **_: Any) -> None:  # which torch has no more
        init(self, optimizer, last_epoch)

    with (
        patch.dict(sys.modules, {"wandb": types.ModuleType("wandb")}),  # its logger
        patch.object(scheduler, "__init__", without_verbose),
        patch.object(torch.hub, "load", dinov2),
        patch.object(Tensor, "float", Tensor.double),
    ):
        record(parity, arrays)
    (HERE / "vfm_steps.json").write_text(json.dumps(parity.meta, separators=(",", ":")) + "\n")
    np.savez_compressed(HERE / "vfm_steps.npz", **arrays)


if __name__ == "__main__":
    main()
