from __future__ import annotations

import embedded


def test_differences_are_paired_by_seed():
    arm = {"command": "", "teacher": [1.0, 2.0]}
    results = {
        "seeds": [1, 2],
        "command": "python benchmarks/embedded.py",
        "environment": {"OMP_NUM_THREADS": "1"},
        "commit": "abc",
        "torch": "2.0",
        "machine": "here",
        "arms": {"dacs": arm | {"student": [10.0, 20.0]}, "dacs+mrm": arm | {"student": [13.0, 21.0]}},
    }
    rows = embedded.table(results).splitlines()
    assert rows[2] == "| dacs | 15.00 ± 7.07 | 1.50 ± 0.71 |  |"
    assert rows[3] == "| dacs+mrm | 17.00 ± 5.66 | 1.50 ± 0.71 | +2.00 ± 1.41 over dacs (+3.00, +1.00) |"
    assert rows[-1] == "Made by `OMP_NUM_THREADS=1 python benchmarks/embedded.py`. here; torch 2.0; commit abc."
