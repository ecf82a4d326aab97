"""What the tests of short runs share: their lines, a run on two resolutions, one that stops on its way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import train_mic_mrm
from uda.settings import Settings
from uda.training.run import Run


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def losses(run: Run) -> list[dict[str, float]]:
    return [row for row in metrics(run.folder) if "source" in row]


def on_two_resolutions(settings: Settings, **changes) -> Settings:
    return dataclasses.replace(settings, hrda=True, detail_crop=24, mrm_grid=(3, 3), **changes)


def stopped_at_step_4(step, batch, models, cfg, draws):
    """MIC's step function."""
    if step + cfg.pretrain_iterations == 4:
        raise RuntimeError("stopped")
    return train_mic_mrm.train_step(step, batch, models, cfg, draws)
