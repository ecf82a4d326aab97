from __future__ import annotations

import pytest
import torch
from uda.runtime.rng import generator, own_rng, seed_of, uniform


def test_seeds():
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1)
    assert len({seed_of(s, p, t) for s in range(3) for p in ("a", "b") for t in range(20)}) == 120
    values = [uniform(generator(i), 2, 3) for i in range(200)]
    assert all(2 <= v < 3 for v in values)
    assert sum(values) / 200 == pytest.approx(2.5, abs=0.08)


def test_own_rng_leaves_no_trace():
    before = torch.get_rng_state()
    with own_rng(1, "x"):
        a = torch.rand(3)
    with own_rng(1, "x"):
        assert torch.equal(a, torch.rand(3))
    assert torch.equal(torch.get_rng_state(), before)
