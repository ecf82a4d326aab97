import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tests" / "helpers")]

# in CI the same examples every time, so that a failure belongs to the change that is tested
in_ci = bool(os.environ.get("CI"))
settings.register_profile("ours", deadline=None, derandomize=in_ci, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
