"""The blocks of `examples/loops.md`, and runs of them with the gradients of every optimiser step recorded.

`python framework_scripts.py CODES OUT` runs the scripts of a JSON file one after the other in this process, one of
several, and saves what was recorded of each.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pages import ROOT
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

import mrm_loss.rebuilder

LOOPS, LIBRARIES = ROOT / "examples" / "loops.md", ROOT / "examples" / "libraries.md"
FIRST, PLAIN = "The plain loop", "The plain loop 2"  # what all scripts go on from; the loop that they are held against


def blocks(page: Path = LOOPS) -> dict[str, str]:
    """Python blocks by heading; the second and third below one heading are "heading 2" and "heading 3"."""
    found: dict[str, str] = {}
    for section in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        for i, code in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL)):
            found[f"{heading} {i + 1}" if i else heading] = code
    return found


def scripts() -> dict[str, str]:
    """The scripts of the loops' page by heading: blocks, with those that they go on from where the page says so."""
    found = blocks()
    started = found["DistributedDataParallel"]  # the processes
    found["DistributedDataParallel"] = started + found.pop("DistributedDataParallel 2")
    found["FSDP2"] = started + found["FSDP2"]
    found["torch.compile"] += found[PLAIN]
    found["Lightning 2"] = found["Lightning"].replace("trainer.fit(Module())", "") + found["Lightning 2"]
    return found


@dataclass
class Recording:
    """What a script did."""

    steps: list[list[Tensor]] = field(default_factory=list)  # gradients by parameter, per optimiser step
    processes: int = 1
    error: str = ""
    warnings: list[str] = field(default_factory=list)

    def record(self, optimizer: Optimizer, *_: Any) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        self.steps.append([torch.zeros(()) if g is None else whole(g).clone() for g in grads])
        self.processes = dist.get_world_size() if dist.is_initialized() else 1


def whole(gradient: Tensor) -> Tensor:
    """Of all processes where it is sharded."""
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient


def same_mask(batch_size: int, grid: tuple[int, int], *_: Any, **__: Any) -> Tensor:
    """Instead of a random one: the same for every image, so that batches may be split."""
    return (torch.arange(grid[0] * grid[1]) % 5 < 2).view(1, 1, *grid).expand(batch_size, 1, *grid)


def run(code: str, dtype: torch.dtype = torch.float64) -> tuple[dict[str, Any], Recording]:
    """Runs a script that goes on from the page's first block, with one mask and one change of colours for all images.

    Returns its names and what was recorded.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    recording = Recording()
    draw, mrm_loss.rebuilder.random_mask = mrm_loss.rebuilder.random_mask, same_mask
    hook = register_optimizer_step_post_hook(recording.record)
    torch.set_default_dtype(dtype)
    try:
        exec(compile(blocks()[FIRST], LOOPS.name, "exec"), names)
        names["change_colours"] = lambda images: 1.1 * images
        exec(compile(code, LOOPS.name, "exec"), names)
    finally:
        torch.set_default_dtype(torch.float32)
        hook.remove()
        mrm_loss.rebuilder.random_mask = draw
    return names, recording


def run_in_two_processes(scripts: dict[str, str], folder: Path) -> dict[str, list[Recording]]:
    """Starts this file twice, with the environment of torchrun; for each script the recordings of both processes."""
    (folder / "scripts.json").write_text(json.dumps(scripts))
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in scripts]
    ports = [str(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PORTS": " ".join(ports),
        "MASTER_ADDR": "127.0.0.1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test",
        "ACCELERATE_USE_CPU": "true",  # as `accelerate launch --cpu` does
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, folder / "scripts.json", folder / f"{rank}.pt"],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=600) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    recorded = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return {name: [Recording(**each[name]) for each in recorded] for name in scripts}


def main() -> None:
    torch.set_num_threads(1)
    recordings = {}
    for (name, code), port in zip(json.loads(Path(sys.argv[1]).read_text()).items(), os.environ["PORTS"].split()):
        os.environ["MASTER_PORT"] = port
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                recording = run(code)[1]
            except Exception as error:
                recording = Recording(error=f"{type(error).__name__}: {error}")
        recording.warnings = [str(w.message) for w in caught]
        recordings[name] = asdict(recording)
        if dist.is_initialized():
            dist.destroy_process_group()
    time.sleep(0.2)  # gloo's threads abort a process that ends before their last work (torch 2.14)
    torch.save(recordings, sys.argv[2])


if __name__ == "__main__":
    main()
