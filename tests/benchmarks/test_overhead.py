from __future__ import annotations

import json
import subprocess
import sys

import pytest
from shared.overhead_report import overhead
from shared.overhead_steps import Bench
from shared.provenance import ROOT
from uda.settings import Settings, preset_values


def test_overhead_is_the_median_of_paired_ratios():
    baseline = [1.0, 2.0, 4.0, 8.0, 16.0]
    row = {"seconds": {"baseline": baseline, "again": baseline, "mrm": [1.3 * s for s in baseline[:-1]] + [99.0]}}
    assert overhead(row, "again") == (0, 0, 0)
    middle, low, high = overhead(row, "mrm")
    assert middle == pytest.approx(30)
    assert low == pytest.approx(30)
    assert high > 30


@pytest.fixture(scope="module")
def overhead_of(tmp_path_factory):
    """Runs overhead.py for one round; returns its JSON and its table."""

    def run(*words):
        out = tmp_path_factory.mktemp("overhead")
        command = [sys.executable, str(ROOT / "benchmarks" / "overhead.py"), "--repeats", "1", "--warmup", "0"]
        command += ["--batch-size", "1", "--device", "cpu", "--out", str(out), *words]
        done = subprocess.run(command, text=True, capture_output=True, timeout=240)
        assert done.returncode == 0, done.stderr
        results = json.loads((out / "overhead-small-cpu.json").read_text())
        return results["rows"], (out / "overhead-small-cpu.md").read_text()

    return run


@pytest.mark.slow
def test_every_arm_runs(overhead_of):
    (row,), table = overhead_of("--methods", "mic")
    assert list(row["seconds"]) == ["baseline", "again", "mrm", "floor", "mask-only", "mixed", "masked"]
    assert all(f"| {arm} |" in table for arm in row["seconds"])
    assert list(row["peak_memory_mib"]) == ["baseline", "mrm", "mask-only", "masked"]
    assert row["inference"]["same_outputs"] is True
    assert table.count("derived") == 0


@pytest.mark.slow
def test_derived_arms_are_sums_of_parts(overhead_of):
    rows, table = overhead_of(
        "--methods", "daformer", "hrda", "vfm", "--arms", "baseline", "mrm", "floor", "mixed", "--derive"
    )
    assert [row["derived"] for row in rows] == [["mrm", "floor", "mixed"]] * 2 + [["mrm", "floor"]]
    for row in rows:
        (baseline,), parts = row["seconds"]["baseline"], {name: times[0] for name, times in row["parts"].items()}
        encoder = parts["encoder"] + parts["encoder backward"]
        rebuilder = parts["Rebuilder"] + parts["Rebuilder backward"] + parts["Rebuilder's optimiser"]
        assert row["seconds"]["mrm"][0] == pytest.approx(baseline + sum(parts.values()))
        assert row["seconds"]["floor"][0] == pytest.approx(baseline + sum(parts.values()) - rebuilder)
        if "mixed" in row["derived"]:
            assert row["seconds"]["mixed"][0] == pytest.approx(baseline + sum(parts.values()) - encoder)
    assert table.count("(derived)") == 8


@pytest.mark.slow
def test_steps_alone(overhead_of):
    words = ["--methods", "vfm", "--arms", "baseline", "mrm", "--checkpoint-activations", "--repeats", "0"]
    (row,), table = overhead_of(*words)
    assert row["seconds"] == {"baseline": [], "mrm": []}
    lines = [line.split(" | ") for line in table.splitlines() if line.startswith("| vfm")]
    assert len(lines) == 2
    for line, arm in zip(lines, ("baseline", "mrm")):
        assert line[1] == "small_vit, light, activations checkpointed, 96 x 192, 1"
        assert line[2] == arm
        assert line[-2] == f"{1000 * row['seconds_alone'][arm]:.0f}"
        assert line[-1] == f"{row['peak_memory_mib'][arm]:.0f} MiB |"


@pytest.mark.parametrize("arm", ["baseline", "mrm", "mask-only", "masked"])
def test_a_step_alone_has_its_arms_own_modules_only(arm):
    bench = Bench(Settings(**(preset_values("small", "mic") | {"method": "mic", "batch_size": 1, "device": "cpu"})))
    own = {"baseline": [], "mask-only": [bench.mask_tokens]}.get(arm, [bench.mrm])
    bench.keep_only(arm)
    bench.make_optimizer_states()
    kept = {id(p) for o in bench.optimizers.values() for p, state in o.state.items() if state}
    expected = {id(p) for module in (bench.models.network, *own) for p in module.parameters()}
    assert kept == expected
    assert [m for m in (bench.mrm, bench.models.mrm, bench.mask_tokens) if m is not None and m not in own] == []
    bench.step(arm)
    assert all(p.grad is not None for module in own for p in module.parameters())


def test_a_step_of_vfm_moves_its_teacher():
    settings = Settings(**(preset_values("small", "vfm") | {"method": "vfm", "batch_size": 1, "device": "cpu"}))
    bench = Bench(settings)
    teacher = next(bench.models.teacher.decoder.parameters())
    teacher.data.zero_()
    bench.step("baseline")
    assert teacher.abs().max() > 0
