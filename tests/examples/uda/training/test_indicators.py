"""What a run shows of MRM: true to the gradients of the step, and without a trace in it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import train_dacs_mrm
import train_mic_mrm
from uda.training.indicators import GradientShare, agreement, in_words
from uda.training.run import Run, batches_of, one_step


def gradient(run) -> torch.Tensor:
    """Of the decoder."""
    return torch.cat([p.grad.flatten() for p in run.models.network.decoder.parameters()])


@pytest.mark.parametrize(
    ("trainer", "method", "options"),
    [
        (train_dacs_mrm, "dacs", {}),
        (train_mic_mrm, "mic", {"mrm_on": "both"}),
        (train_mic_mrm, "mic", {"mrm_on": "masked"}),
    ],
)
def test_the_gradient_is_that_of_the_step(settings, tmp_path, trainer, method, options):
    """The step's gradient with MRM less that of the same step without it is MRM's."""
    gradients, found = {}, {}
    for weight in (0.0, 2.0):
        cfg = dataclasses.replace(
            settings,
            method=method,
            mrm_weight=weight,
            pretrain_iterations=0,
            out=str(tmp_path / str(weight)),
            **options,
        )
        run = Run(cfg)
        share = GradientShare(run.models)
        share.watch(True)
        one_step(run, batches_of(run)[0], trainer.train_step)
        gradients[weight], found[weight] = gradient(run), share.values()
        share.watch(False)
        one_step(run, batches_of(run)[0], trainer.train_step)
        assert share.values() == {}
    assert found[0.0] == {}
    expected = (gradients[2.0] - gradients[0.0]).norm() / gradients[0.0].norm()
    assert found[2.0]["mrm_gradient"] == pytest.approx(expected.item(), rel=1e-3)
    assert found[2.0]["mrm_gradient"] > 0.01


def test_agreement(settings):
    run = Run(dataclasses.replace(settings, method="dacs"))
    data, student = batches_of(run), run.models.student
    run.step = settings.pretrain_iterations
    assert agreement(run, data) == {}  # MRM has not begun
    run.step += 1
    before = torch.get_rng_state(), {k: v.clone() for k, v in student.state_dict().items()}
    shares = agreement(run, data)
    assert shares.keys() == {"agreement_masked", "agreement_visible"}
    assert all(0 <= share <= 100 for share in shares.values())
    assert agreement(run, data) == shares
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(v, before[1][k]) for k, v in student.state_dict().items())
    assert run.models.network.training and run.models.mrm.training and run.models.teacher.training

    masks = []

    def unchanged(levels, generator):
        masks.append(torch.rand(len(levels[0]), 1, 6, 12, generator=generator) < 0.4)
        return levels, masks[-1]

    run.models.mrm.rebuild = unchanged  # features as they were, and the teacher still is the student
    assert agreement(run, data) == {"agreement_masked": 100.0, "agreement_visible": 100.0}
    assert "on 100.0 %" in in_words(agreement(run, data))
    assert in_words({}) == ""
