"""The step of every method on another device: nothing mixes with the CPU's tensors, and the host waits for nothing.

Without an accelerator the device is the one of tests/helpers/elsewhere.py; where there is CUDA, PyTorch itself raises
when the host would wait.
"""

from __future__ import annotations

import copy
import dataclasses
from contextlib import contextmanager

import pytest
import torch
import train_dacs_mrm
import train_mic_mrm
import train_vfm_mrm
from elsewhere import DEVICE, Elsewhere
from uda.runtime.constants import _constant
from uda.training import run as run_module
from uda.training.run import Run, batches_of, one_step

CASES = [
    (train_dacs_mrm, "source-only", "target"),
    *[(train_dacs_mrm, "dacs", mrm_on) for mrm_on in ("target", "source", "both")],
    *[(train_mic_mrm, method, "target") for method in ("dacs", "daformer", "hrda", "mic")],
    *[(train_mic_mrm, "hrda", mrm_on) for mrm_on in ("source", "both", "mixed")],
    *[(train_mic_mrm, "mic", mrm_on) for mrm_on in ("source", "both", "mixed", "masked")],
    (train_vfm_mrm, "vfm", "target"),
]


def run_of(settings, trainer, method, mrm_on, device) -> Run:
    options = {"hrda": True, "detail_crop": 48, "mrm_grid": (3, 6)} if method == "hrda" else {}
    if method == "daformer":
        options["rare_classes"] = True
    if method == "vfm":
        options |= {"encoder": "small_vit", "decoder": "light"}
    settings = dataclasses.replace(settings, method=method, mrm_on=mrm_on, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "start_processes", lambda name: device)
        run = Run(settings, trainer.Student)
    run.step = settings.pretrain_iterations
    if method == "daformer":  # a stand-in for the ImageNet encoder
        run.models.imagenet = copy.deepcopy(run.models.student.network.encoder).eval().requires_grad_(False)
        run.settings = dataclasses.replace(run.settings, fd_weight=0.005)
    return run


@pytest.mark.parametrize(("trainer", "method", "mrm_on"), CASES)
def test_a_step_waits_for_nothing(settings, trainer, method, mrm_on):
    _constant.cache_clear()
    with Elsewhere() as device:
        run = run_of(settings, trainer, method, mrm_on, DEVICE)
        data = batches_of(run)
        for _ in range(2):  # the library reads the first labels it is given
            losses = one_step(run, data[run.step].to(run.device), trainer.train_step)
            seen = sum(device.reads.values()), device.copies["waits"]
            run.step += 1
            device.reset()
            print(f"{method}, MRM on {mrm_on}: step {run.step}, {seen[0]} read-backs, {seen[1]} waiting copies")
        assert seen == (0, 0)
        values = torch.stack(list(losses.values()))
        assert torch.tensor(values.tolist()).isfinite().all()
        assert sum(device.reads.values()) == 1  # at log steps
    assert {"daformer": "distance", "mic": "masked"}.get(method, "source") in losses
    assert all(p.grad is not None for p in run.models.student.parameters())
    _constant.cache_clear()


def test_an_evaluation_reads_once_per_network(settings):
    with Elsewhere() as device:
        run = run_of(settings, train_mic_mrm, "hrda", "target", DEVICE)
        device.reset()
        confusions = run.evaluate()
        assert confusions.keys() == {"student", "teacher"}
        assert all(confusion.sum() > 0 for confusion in confusions.values())
        assert sum(device.reads.values()) == 2


def test_mixing_is_seen():
    with Elsewhere() as device:
        x = torch.rand(2, 3).to(DEVICE)
        for mixing in (
            lambda y: x + y,
            lambda y: torch.cat([x, y]),
            lambda y: x @ y.mT,
            lambda y: x.clone().index_put((y.long(),), x),
        ):
            with pytest.raises(RuntimeError, match="mixed"):
                mixing(torch.rand(2, 3))
        assert (x + torch.tensor(1.0)).device == DEVICE  # PyTorch takes single numbers
        assert not device.reads
        for n, reading in enumerate(
            (
                torch.unique,
                torch.nonzero,
                lambda x: x.tolist(),
                lambda x: bool(x.sum()),
                lambda x: x[x > 0.5],
                lambda x: x.to("cpu"),
            )
        ):
            reading(x)
            assert sum(device.reads.values()) == n + 1


@contextmanager
def errors_where_the_host_waits():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("trainer", "method", "mrm_on"), CASES)
def test_a_step_on_cuda_waits_for_nothing(settings, trainer, method, mrm_on):
    run = run_of(settings, trainer, method, mrm_on, torch.device("cuda"))
    data = batches_of(run)
    for index in range(3):
        batch = data[run.step].to(run.device)
        if index < 2:
            losses = one_step(run, batch, trainer.train_step)
        else:
            with errors_where_the_host_waits():
                losses = one_step(run, batch, trainer.train_step)
        run.step += 1
    assert all(loss.isfinite() for loss in losses.values())
