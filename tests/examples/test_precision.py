"""Runs in half precision and compiled runs: what they share with float32's, that they go on, that they do not wait."""

from __future__ import annotations

import dataclasses
from functools import partial, partialmethod

import pytest
import torch
import train_dacs_mrm
import train_mic_mrm
from short_runs import losses, on_two_resolutions, stopped_at_step_4
from torch._dynamo.utils import counters
from uda.training.loop import train
from uda.training.models import HALVES, Models
from uda.training.run import Run, batches_of, one_step

CASES = [(train_dacs_mrm, "dacs"), *((train_mic_mrm, method) for method in ("dacs", "daformer", "hrda", "mic"))]


def settings_for(settings, method, **changes):
    """MIC on two resolutions."""
    replace = on_two_resolutions if method in ("hrda", "mic") else dataclasses.replace
    return replace(settings, method=method, **changes)


def one(run, trainer):
    """One step of self-training: its losses, the images that the encoder was given, the dtypes of levels and logits."""
    run.step, given, dtypes = run.settings.pretrain_iterations, [], set()
    decoder = run.models.network.decoder
    run.models.network.encoder.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    for module in (decoder.head if run.settings.hrda else decoder, run.models.teacher.encoder):
        module.register_forward_hook(lambda _, args, out: dtypes.update(x.dtype for x in out))
    return one_step(run, batches_of(run)[run.step], trainer.train_step), given, dtypes


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("trainer", "method"), CASES)
def test_half_precision_is_in_the_networks_alone(settings, tmp_path, trainer, method, precision):
    """Images are mixed, coloured and masked in float32, to the bit; losses, weights and gradients are float32."""
    found = {}
    for name in ("fp32", precision):
        run = Run(settings_for(settings, method, precision=name, out=str(tmp_path / name)))
        found[name] = one(run, trainer)
        for module in (run.models.student, run.models.teacher):
            assert {x.dtype for x in module.state_dict().values() if x.is_floating_point()} == {torch.float32}
        assert all(p.grad.dtype == torch.float32 for p in run.models.student.parameters())
        assert all(p.isfinite().all() for p in run.models.student.parameters())
    (expected, images, full), (losses, same_images, half) = found["fp32"], found[precision]
    assert (full, half) == ({torch.float32}, {HALVES[precision]})
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected[name], rtol=0.03, atol=0.02, msg=name)
    assert len(images) == len(same_images) >= 3
    assert all(torch.equal(a, b) for a, b in zip(images, same_images))


@pytest.mark.slow
def test_an_interrupted_fp16_run_goes_on_as_if_it_had_not_been(settings, tmp_path, monkeypatch):
    """Also while updates are left out: schedule, teacher and scale agree."""
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**40))
    settings = dataclasses.replace(settings, precision="fp16", eval_every=3, save_every=3)
    whole = train(settings, train_mic_mrm.train_step)
    scaler = whole.models.scaler
    assert 1 < scaler.get_scale() < 2.0**40  # several were left out
    assert [row["step"] for row in losses(whole)] == [1, 2, 3, 4, 5, 6]

    half = dataclasses.replace(settings, out=str(tmp_path / "half"))
    with pytest.raises(RuntimeError, match="stopped"):
        train(half, stopped_at_step_4)
    again = train(dataclasses.replace(half, resume=half.out), train_mic_mrm.train_step)
    assert again.models.scaler.state_dict() == scaler.state_dict()
    for a, b in ((again.models.student, whole.models.student), (again.models.teacher, whole.models.teacher)):
        for (name, x), y in zip(a.state_dict().items(), b.state_dict().values()):
            assert torch.equal(x, y), name


@pytest.mark.slow
def test_a_compiled_step_is_not_compiled_again(settings, tmp_path, monkeypatch):
    """Detail crops lie elsewhere in each step; after the first no module is traced again, and all is as before."""
    monkeypatch.setattr(Models, "compile", partialmethod(Models.compile, backend="eager"))
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.reset()
    counters.clear()
    runs = {}
    for compiled in (False, True):
        cfg = settings_for(settings, "mic", mrm_on="both", compile=compiled, out=str(tmp_path / f"{compiled}"))
        runs[compiled] = run = Run(cfg)
        run.step, graphs = cfg.pretrain_iterations, []
        for _ in range(4):
            one_step(run, batches_of(run)[run.step], train_mic_mrm.train_step)
            run.step += 1
            graphs.append(counters["stats"]["unique_graphs"])
        run.evaluate()  # as it is written: whole images have another size
        assert counters["stats"]["unique_graphs"] == graphs[-1]
    assert graphs[0] == graphs[-1] >= 6
    assert not counters["graph_break"]
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = limit
    plain, compiled = (runs[x].models.student.state_dict() for x in (False, True))
    assert plain.keys() == compiled.keys()
    for name, x in plain.items():
        torch.testing.assert_close(compiled[name], x, msg=name)
