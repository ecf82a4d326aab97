"""A run in TensorBoard, where that is installed: `tensorboard --logdir runs`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib.image

from ..runtime.processes import rank_and_world


class Board:
    """Scalars and pictures of a run; does nothing in other processes than the first, or without TensorBoard.

    Args:
        folder: of the run.
        step: that the run goes on from; what an interrupted run showed of later ones goes.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.writer: Any = None
        if rank_and_world()[0] > 0:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except Exception:  # not installed, or broken in one of many ways: no reason for a run to stop
            return
        with suppress(UnicodeError):  # it takes no folder whose name the system's encoding lacks
            self.writer = SummaryWriter(str(folder), purge_step=step or None)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"{group_of(name)}/{name.replace('/', ' per ')}", value, step)

    def picture(self, step: int, path: Path) -> None:
        """A file, as it is now."""
        if self.writer is not None:
            self.writer.add_image("panel", matplotlib.image.imread(path)[..., :3], step, dataformats="HWC")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def group_of(name: str) -> str:
    if name in ("images/s", "GiB", "seconds_per_step"):
        return "cost"
    return "target" if name.startswith(("miou", "agreement")) else "training"
