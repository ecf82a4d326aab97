from __future__ import annotations

import json
import math

import ablations
import arms
import contrasts
import cost
import paired
import pytest
import report
import run as runner
import table


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062047), (2, 4.3026527), (3, 3.1824463), (5, 2.5705818), (11, 2.2009852)]
)
def test_quantiles_of_students_t(freedom, quantile):
    assert paired.t_quantile(freedom) == pytest.approx(quantile, abs=1e-7)


def test_the_interval_of_paired_differences():
    result = paired.paired({3: 4.0, 1: 2.0, 2: 6.0, 9: 0.0}, {1: 1.0, 2: 2.0, 3: 3.0, 7: 0.0})
    assert result.seeds == [1, 2, 3]
    assert result.differences == [1.0, 4.0, 1.0]
    assert result.mean == 2.0
    assert result.half == pytest.approx(4.3026527 * math.sqrt(3) / math.sqrt(3))  # standard deviation sqrt(3), n = 3
    assert math.isnan(paired.paired({1: 1.0}, {1: 0.0}).half)


def test_what_an_interval_says():
    def said(low, high):
        return contrasts.verdict(paired.Paired([1, 2], [low, high], (low + high) / 2, (high - low) / 2))

    assert said(0.1, 0.9) == "above 0"
    assert said(0.1, 0.4) == "above 0, within ±0.5"
    assert said(-0.4, 0.4) == "not shown, within ±0.5"
    assert said(-0.1, 0.9) == "not shown"
    assert said(-2.0, -1.0) == "below 0"


def canned(arm, seed, student, **others):
    masked = {kind: {"accuracy": student + 20, "miou": student} for kind in ("own", "filled", "blank")}
    masked = {"own": masked["own"]} if arm in ("dacs", "mic") else masked
    line = {"arm": arm, "seed": seed, "student": student, "teacher": student, "student, target statistics": student}
    line |= {"masked": masked, "curve": [{"step": 500, "masked": masked}], "iou": {"road": student + 1}}
    line |= {"seconds": 100.0, "start": f"dacs-seed{seed}-a", "start student": 30.0, "commit": "c"}
    line |= {"settings": {"scenes": "street", "device": "cpu"}}
    return line | {"start seconds": 60.0, "torch": "2", "machine": "m"} | others


def test_tables_of_canned_lines():
    lines = [canned("dacs", 21, 50.0), canned("dacs+mrm", 21, 53.0), canned("dacs+mask-only", 21, 52.5)]
    lines += [canned("dacs", 22, 51.0), canned("dacs+mrm", 22, 53.0), canned("dacs+mask-only", 22, 53.5)]
    lines += [canned("dacs+mrm", 0, 60.0), canned("dacs+mask-only", 0, 50.0), canned("dacs+nothing-masked x1", 23, 1.0)]
    text = report.tables(lines)
    assert "| dacs | 2 | 50.50 ± 0.71 | 50.50 ± 0.71 | 50.50 ± 0.71 | 70.50 |  |  |" in text
    assert "| dacs+mrm - dacs+mask-only | 2 | +0.00 [-6.35, +6.35] | not shown | +0.50, -0.50 | 21 to 22 |" in text
    assert "| dacs+mrm - dacs | 2 | +2.50 [-3.85, +8.85] | not shown | +3.00, +2.00 | 21 to 22 |" in text
    assert "| dacs+mrm | dacs+mask-only | 1 | 60.00 |  | +10.00 | +10.00 |" in text
    assert "| dacs+nothing-masked | 1 | 1.00 |" in text
    for unplanned in ("dacs, student, target statistics", "dacs, teacher", "dacs, road"):
        assert f"| dacs+mrm - {unplanned} | 2 | +2.50 [-3.85, +8.85] | not shown | +3.00, +2.00 | 21 to 22 |" in text
    assert "| dacs+mrm - dacs+mask-only, step 500 | 2 | +0.00 [-6.35, +6.35] |" in text
    assert "9 runs, 4 starts, 0.3 hours by the clock" in text
    assert "WARNING" not in text
    assert "WARNING: not one start: dacs-seed21" in report.tables(
        [*lines, canned("dacs+local", 21, 1.0, **{"start student": 29.0})]
    )
    on_a_gpu = canned("dacs+local", 21, 1.0, settings={"scenes": "street", "device": "cuda"})
    assert "WARNING: not one device: dacs, seed 21\n" in report.tables([*lines, on_a_gpu])
    assert "WARNING: not committed when run: c-dirty" in report.tables(
        [*lines, canned("dacs", 24, 1.0, commit="c-dirty")]
    )


def test_the_tables_are_those_of_the_lines():
    assert (report.RESULTS / "tables.md").read_text() == report.tables(runner.read_lines(runner.RESULTS))


def test_a_confirmed_regime_has_its_own_table_and_plot(tmp_path, monkeypatch):
    name = "long self-training"
    lines = [canned(name, 41, 50.0), canned(f"{name}+mrm", 41, 55.0), canned(f"{name}+mask-only", 41, 54.0)]
    lines += [canned(name, 42, 50.0), canned(f"{name}+mrm", 42, 55.0), canned(f"{name}+mask-only", 42, 55.5)]
    lines += [canned(f"{name}+mrm", 0, 90.0), canned(f"{name}+mask-only", 0, 80.0)]
    assert contrasts.CONFIRMED == arms.CONFIRMED
    assert all(set(contrasts.ARMS[regime]) == set(arms.REGIMES[regime]) for regime in arms.CONFIRMED)
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr("sys.argv", ["report.py", "--results", str(tmp_path)])
    report.main()
    text = (tmp_path / "tables.md").read_text()
    assert "## Long self-training, confirming seeds" in text
    assert f"| {name}+mrm - {name}+mask-only | 2 | +0.25 [-9.28, +9.78] | not shown | +1.00, -0.50 | 41 to 42 |" in text
    assert {path.name for path in tmp_path.glob("*.png")} == {"confirming-long-self-training.png", "screen.png"}


def test_masks_left_open_are_compared_with_the_plain_one_of_their_own_seeds():
    assert {contrasts.PLAIN, *contrasts.MASKS} == set(arms.MASKS) and set(contrasts.MASKS_CONFIRMED) < set(arms.MASKS)
    rising = contrasts.MASKS_CONFIRMED[0]
    lines = [canned(contrasts.PLAIN, seed, 50.0) for seed in (103, 104, 61, 62)]
    lines += [canned(rising, 103, 53.0), canned(rising, 104, 55.0), canned(rising, 61, 50.5), canned(rising, 62, 51.5)]
    text = report.tables(lines)
    assert (
        f"| {rising} - plain mask, student | 2 | +4.00 [-8.71, +16.71] | not shown | +3.00, +5.00 | 103 to 104 |"
        in text
    )
    assert f"| {rising} - plain mask | 2 | +1.00 [-5.35, +7.35] | not shown | +0.50, +1.50 | 61 to 62 |" in text
    assert "## Masks left open, confirming seeds" in text and "at masked cells from" not in text


def test_ablations_stand_beside_the_papers_on_their_own_seeds():
    lines = [canned("dacs", seed, 50.0) for seed in (21, 22, 23)] + [canned("dacs+mrm", s, 53.0) for s in (21, 22, 23)]
    assert ablations.ablation_rows(lines) == []
    lines += [canned("grid 6 x 12", 21, 52.0), canned("grid 6 x 12", 22, 53.0)]
    rows = ablations.ablation_rows(contrasts.split(lines)[1])
    assert [(change, theirs, gain, result.seeds) for change, theirs, gain, result in rows] == [
        ("as it is", "as it is", 3.8, [21, 22]),
        ("half the grid", "8 of 16", 3.5, [21, 22]),
    ]
    assert rows[1][3].differences == [2.0, 3.0]
    assert "| half the grid | 2 | +2.50 [-3.85, +8.85] | +2.00, +3.00 | 8 of 16 | +3.5 |" in report.tables(lines)
    assert set(ablations.PAPER) - ablations.MAIN == set(arms.ABLATED)
    assert sorted(arm for compared in ablations.TABLES.values() for arm in compared) == sorted(
        set(ablations.PAPER) - {"dacs+mrm"}
    )


def test_which_orderings_of_the_paper_appear():
    assert ablations.orders([]) == []
    values = {
        "dacs": (50.0, 51.0, 49.0),
        "dacs+mrm": (53.0, 54.0, 52.0),  # the paper has it above all of these, and 96 below 16 below 32
        "width 16": (52.0, 53.1, 51.1),
        "width 32": (52.0, 55.0, 49.5),
        "width 96": (54.0, 55.1, 53.1),
    }
    lines = [canned(arm, 21 + i, value) for arm, given in values.items() for i, value in enumerate(given)]
    (order,) = ablations.orders(contrasts.split(lines)[1])
    quarter, half, more = (ablations.PAPER[f"width {width}"][0] for width in (16, 32, 96))
    assert order.table == "width"
    assert order.theirs == ["as it is", half, quarter, more]
    assert order.ours == [more, "as it is", half, quarter]
    assert order.holds == [("as it is", quarter)]
    assert order.reversed == [("as it is", more), (quarter, more)]
    assert order.open == [("as it is", half), (half, quarter), (half, more)]
    assert f"| as it is > {quarter} | as it is > {more}; {quarter} > {more} | 3 |" in report.tables(lines)


def test_a_regime_stands_over_its_own_baseline():
    arms = {"dacs": 1.0, "plain": 2.0, "plain+mrm, cells": 5.0, "plain+mask-only, cells": 4.0}
    arms |= {"block+mrm": 5.0, "block+mask-only": 4.0}
    lines = [canned(arm, 0, value) for arm, value in arms.items()]
    for line in lines[:2]:
        line["masked"].pop("filled", None)
    text = report.tables(lines)
    assert "| plain+mrm, cells | plain+mask-only, cells | 1 | 5.00 | +3.00 over plain |" in text
    assert "| block+mrm | block+mask-only | 1 | 5.00 | +4.00 over dacs |" in text


def test_cost_against_gain():
    lines = [canned("dacs", seed, 50.0) for seed in (21, 22, 23)] + [canned("dacs+mrm", s, 54.0) for s in (21, 22, 23)]
    lines += [canned("dacs+mrm, every 2", 21, 53.5), canned("dacs+mrm, every 2", 22, 53.5)]
    lines += [canned("dacs+mrm, half batch", 21, 52.0)]
    assert [(one.arm, one.part_of_gain, one.part_of_cost, one.efficient) for one in cost.bargains(lines, "dacs")] == [
        ("dacs+mrm, every 2", 0.875, 0.5, True),
        ("dacs+mrm, half batch", 0.5, 0.5, False),
        ("dacs+mrm", 1.0, 1.0, True),
    ]
    seconds = {"baseline": [2.0, 4.0, 1.0], "mrm": [3.0, 4.4, 2.0]}
    assert cost.percent(seconds, "mrm") == pytest.approx(50)
    assert "| 88% | +22 % | 50% | efficient, reaches the aim |" in report.tables(lines)
    assert {*cost.DACS, *cost.MIC} >= set(arms.CHEAP)


def test_processor_time_of_runs_at_equal_time():
    canned = [
        {"arm": "dacs+mrm", "seed": 21, "cpu seconds": 200.0},
        {"arm": "dacs+mrm", "seed": 22, "cpu seconds": 100.0},
        {"arm": "dacs, MRM's time", "seed": 21, "cpu seconds": 210.0},
        {"arm": "dacs, MRM's time", "seed": 22, "cpu seconds": 120.0},
        {"arm": "dacs+mask-only, MRM's time", "seed": 21},  # of the first lines, without it
    ]
    parts = contrasts.at_equal_time(canned, "dacs")
    assert parts == [("dacs, MRM's time", [1.05, 1.2])]
    assert table.time_table(parts)[-1] == "| dacs, MRM's time | 2 | 1.12 | 1.05 to 1.20 |"
    assert contrasts.at_equal_time(canned, "context-free decoder") == []


def test_what_is_missing_comes_in_order_and_once():
    everything = runner.missing([], [], [])
    assert everything[:5] == [*((arm, 21) for arm in arms.MAIN), ("dacs", 22)]
    assert len(everything) == len(set(everything))
    done = [{"arm": arm, "seed": seed} for arm, seed in everything[:3]]
    assert runner.missing(done, [], []) == everything[3:]
    assert runner.missing(done, ["dacs", "mic"], [21, 7]) == [("mic", 21), ("dacs", 7), ("mic", 7)]
    assert sorted(seed for _, seed in runner.missing(done, ["dacs+local"], [])) == [0, *range(21, 33)]


def test_a_run_that_fails_leaves_no_line_and_the_next_its_own(tmp_path, monkeypatch):
    called = []

    def call(self, name, seed, *flags):
        called.append((name, *flags))
        if flags:
            starts[(name, seed)].parent.mkdir(exist_ok=True)
            starts[(name, seed)].touch()
        out = json.dumps({"arm": name, "seed": seed, "student": 1.0})
        return runner.subprocess.CompletedProcess([], int(name == "dacs+local"), stdout=out)

    starts = {(name, 1): tmp_path / "starts" / "one" for name in ("dacs", "dacs+local", "dacs+mrm")}
    monkeypatch.setattr(runner, "prepare", lambda name, seed, *_: (None, starts[(name, seed)]))
    monkeypatch.setattr(runner.Runner, "call", call)
    run = runner.Runner(tmp_path / "results" / "runs.jsonl", tmp_path, "cpu", False, 60)
    assert run(("dacs", 1)) == ""
    assert run(("dacs+local", 1)).startswith("dacs+local, seed 1: failed with 1; see ")
    assert run(("dacs+mrm", 1)) == ""
    assert called == [("dacs", "--start"), ("dacs",), ("dacs+local",), ("dacs+mrm",)]
    lines = runner.read_lines(run.results)
    assert [line["arm"] for line in lines] == ["dacs", "dacs+mrm"]
    assert runner.missing(lines, ["dacs", "dacs+local"], [1]) == [("dacs+local", 1)]
