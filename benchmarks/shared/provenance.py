"""Where a result comes from: what a reader needs to make it again."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
# environment variables that change what is measured
PREFIXES = ("OMP_", "MKL_", "MALLOC_", "LD_PRELOAD", "CUDA_", "CUBLAS_", "NVIDIA_TF32", "PYTORCH_", "TORCH_")
TOOLKIT = ("CUDA_HOME", "CUDA_PATH", "CUDA_VERSION", "TORCH_CUDA_ARCH_LIST")  # of an image: where it has its compiler


def provenance(device: str = "cpu") -> dict[str, Any]:
    """The command, its environment, the commit and the versions and machine that it ran on."""
    names = sorted(name for name in os.environ if name.startswith(PREFIXES) and name not in TOOLKIT)
    script, *words = sys.argv
    return {
        "command": shlex.join(["python", relative(script), *map(relative, words)]),
        "environment": {name: os.environ[name] for name in names},
        "commit": commit(),
        "machine": f"{device_name(device)}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def commit() -> str:
    """The checked-out commit, with "-dirty" where files were changed since."""
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "CPU"


def relative(word: str) -> str:
    """Paths inside the repository as seen from its root."""
    path = Path(word)
    inside = path.is_absolute() or path.exists()
    return str(path.resolve().relative_to(ROOT)) if inside and path.resolve().is_relative_to(ROOT) else word


def made_by(origin: dict[str, Any]) -> str:
    """One line for the foot of a table."""
    environment = "".join(f"{name}={value} " for name, value in origin["environment"].items())
    where = f"{origin['machine']}; torch {origin['torch']}; commit {origin['commit']}"
    note = f" Note: {origin['note']}." if "note" in origin else ""
    return f"Made by `{environment}{origin['command']}`. {where}.{note}"
