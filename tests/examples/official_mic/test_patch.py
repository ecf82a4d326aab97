"""The patch of the official MIC code: its rates; applied where MIC_CHECKOUT has the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mrm_loss import MRM

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "official_mic"
PATCH = (FOLDER / "mrm.patch").read_text()
PAGE = (FOLDER / "README.md").read_text()


def test_the_rate_is_matched_before_the_norms():
    """The tree takes the longest key that a parameter's name contains; "norm" would take the Rebuilder's norms."""
    ((key, *factor),) = re.findall(r"custom_keys=dict\((\w+)=dict\(lr_mult=(\d+) / (\d+)\)\)", PATCH)
    rate = 6e-5 * int(factor[0]) / int(factor[1])
    assert rate == pytest.approx(2e-4)
    names = [f"mrm.{name}" for name, _ in MRM([4, 4], embed_dim=16).named_parameters()]
    others = [other for other in ("head", "norm", "pos_block") if any(other in name for name in names)]
    assert others == ["norm"] and len(key) > len("norm")
    assert all(key in name for name in names)


def test_the_page_s_deeplabv2_line_builds():
    (line,) = re.findall(r"build\s+`(MRM\(.*?\))`", PAGE)
    mrm = eval(line)
    assert [p is not None for p in mrm.rebuilder.encoder_channels] == [False, False, False, True]


@pytest.fixture(scope="module")
def checkout() -> Path:
    if "MIC_CHECKOUT" not in os.environ:
        pytest.skip("set MIC_CHECKOUT to a checkout of github.com/lhoyer/MIC to run the patched code")
    pytest.importorskip("mmcv", reason="examples/official_mic/README.md lists what MIC_CHECKOUT needs")
    return Path(os.environ["MIC_CHECKOUT"])


@pytest.mark.slow
def test_equal_to_our_trainer(checkout):
    script = FOLDER.parents[1] / "benchmarks" / "official_mic.py"
    command = [sys.executable, "-W", "ignore", str(script), str(checkout)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for method in ("daformer", "hrda", "mic"):
        (row,) = re.findall(rf"^\| {method} \| (.*) \|$", done.stdout, re.MULTILINE)
        assert all(float(error) < 1e-9 for error in row.split(" | ")), row


(ON_A_GPU,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROBE = """
import sys, tempfile
from pathlib import Path
from shared.official_tree import build, patched_copy

copy = patched_copy(Path(sys.argv[1]), Path(tempfile.mkdtemp()))
uda, optimizer = build(copy, "daformer", "mit_b0", 64)
names = {p: name for name, p in uda.named_parameters()}
groups = {names[p]: group for group in optimizer.param_groups for p in group["params"]}
rates = {name: (round(group["lr"], 9), group["weight_decay"]) for name, group in groups.items()}
assert {rate for name, rate in rates.items() if name.startswith("mrm.")} == {(2e-4, 0.01)}
assert {rate for name, rate in rates.items() if name.startswith("model.")} == {(6e-5, 0.01), (6e-5, 0.0), (6e-4, 0.01)}
assert {name.split(".")[0] for name in names.values() if "rebuilder" in name} == {"mrm"}
print("as it should be")
"""


@pytest.mark.slow
def test_rates_and_owner(checkout):
    benchmarks = FOLDER.parents[1] / "benchmarks"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(benchmarks), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "ignore", "-c", ON_A_GPU + PROBE, str(checkout)]
    done = subprocess.run(command, text=True, capture_output=True, env=env, timeout=300)
    assert done.stdout.endswith("as it should be\n"), done.stderr
