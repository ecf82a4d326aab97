"""What each step tells: losses that are not finite, and a request to stop, agreed between the processes."""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data.batches import Batches
from ..runtime.files import save_tensors, whole_file
from ..runtime.processes import rank_and_world, sum_over_ranks

GRADIENT = "gradient"  # its largest entry is watched as a loss is, and not logged


class NotFinite(ValueError):
    """Training has diverged."""


class Watch:
    """Reads what a step told one step later, when a GPU has long computed it, so that it is never waited for.

    The step's own update is withheld on the device where a loss is not finite (`withhold`), and whoever saves or
    evaluates asks for the last step too (`look` with `now`): neither teacher nor checkpoint see such a step.
    """

    def __init__(self, data: Batches, folder: Path) -> None:
        self.data, self.folder = data, folder
        # step, names, and on its way from the device: losses, then the processes' sums of the two flags
        self.pending: deque[tuple[int, list[str], Tensor, torch.cuda.Event | None]] = deque()

    def note(self, step: int, losses: dict[str, Tensor], asked: bool = False) -> Tensor:
        """Takes down what a step tells; returns on the device whether its update must be withheld.

        Args:
            losses: by name, scalars; the largest gradient may be among them.
            asked: whether this process was asked to stop.
        """
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        broken = (~values.isfinite()).any().float()
        flags = sum_over_ranks(torch.stack([broken, torch.full_like(broken, float(asked))]))
        told, copied = torch.cat([values, flags]), None
        if told.is_cuda:
            told = torch.empty(told.shape, pin_memory=True).copy_(told, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self.pending.append((step, list(losses), told, copied))
        return flags[0] > 0

    def look(self, now: bool = False) -> tuple[dict[str, float], bool]:
        """Losses of the last step that is read, and whether one of the processes was asked to stop by then.

        Args:
            now: whether to wait for the last step's, in place of the one before.

        Raises:
            NotFinite: a loss was not finite; the batch of that step is saved in the folder.
        """
        losses: dict[str, float] = {}
        stopped = False
        while len(self.pending) > (0 if now else 1):
            step, names, told, copied = self.pending.popleft()
            if copied is not None:
                copied.synchronize()
            *values, broken, asked = told.tolist()
            losses = dict(zip(names, values))
            stopped |= asked > 0
            if broken:
                raise NotFinite(self._explain(step, losses))
            losses.pop(GRADIENT, None)
        return losses, stopped

    def _explain(self, step: int, losses: dict[str, float]) -> str:
        gradient = losses.pop(GRADIENT, 0.0)
        wrong = [f"{name!r} ({value})" for name, value in losses.items() if not math.isfinite(value)]
        if not wrong and math.isfinite(gradient):
            return f"step {step + 1}: a loss of another process is not finite"
        files = self.data.files(step)
        rank, world = rank_and_world()
        path = self.folder / f"not-finite-step{step + 1}{f'-process{rank}' * (world > 1)}.pt"
        with whole_file(path) as file:
            save_tensors({"step": step + 1, "losses": losses, "files": files, **vars(self.data[step])}, file)
        what = f"{'loss' if len(wrong) == 1 else 'losses'} {', '.join(wrong)} not finite"
        if not wrong:  # of all processes: gradients are averaged by then
            what = f"losses are finite{' here' * (world > 1)}, their gradient is not ({gradient})"
        return f"step {step + 1}: {what}; batch of {', '.join(files)}, saved as {path}"


def largest_gradient(module: nn.Module) -> Tensor:
    """The largest entry of all gradients; not finite where one of them is not, though losses be."""
    grads = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return torch.stack(torch._foreach_norm(grads, float("inf"))).max()


def withhold(module: nn.Module, broken: Tensor) -> None:
    """Makes gradients zero where `broken` (a bool on their device) holds; optimisers then keep their weights finite.

    A product would not do: NaN times zero is NaN.
    """
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad.masked_fill_(broken, 0.0)


def check_finite(step: int, **networks: nn.Module) -> None:
    """The last guard of a checkpoint: losses can all be finite where weights no longer are.

    Raises:
        NotFinite: a weight of one of the networks, which come by name, is not.
    """
    for name, network in networks.items():
        floats = {key: value for key, value in network.state_dict().items() if value.is_floating_point()}
        finite = torch.stack([value.isfinite().all() for value in floats.values()]).tolist()
        if not all(finite):
            keys = [key for key, fine in zip(floats, finite) if not fine]
            more = f" and {len(keys) - 1} more of its weights" if len(keys) > 1 else ""
            raise NotFinite(
                f"step {step}: the {name}'s {keys[0]}{more} not finite, so not saved; a lower --lr may help"
            )
