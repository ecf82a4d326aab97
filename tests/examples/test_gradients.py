"""Two processes, checkpointed activations and DACS's two pages give the same gradients."""

from __future__ import annotations

import copy
import dataclasses
import socket

import pytest
import torch
import torch.multiprocessing as mp
import train_dacs_mrm
import train_mic_mrm
import train_vfm_mrm
from uda.data.batches import Batch
from uda.networks.checkpointing import checkpoint_activations
from uda.runtime import processes
from uda.runtime.processes import average_gradients, stop_processes
from uda.selftraining.draws import Draws
from uda.training.run import Run, batches_of, one_step

STEP = 5
METHODS = ["dacs", "daformer", "hrda", "mic", "vfm"]
BLOCKS = {"small": 5, "small_vit": 6}  # that can be checkpointed


def settings_for(settings, method, **changes):
    """Two images per step, MRM on; MIC on two resolutions. About half of the untrained teacher's labels are trusted."""
    hrda = {"hrda": True, "detail_crop": 48, "mrm_grid": (3, 6)} if method in ("hrda", "mic") else {}
    hrda |= {"encoder": "small_vit", "decoder": "light"} if method == "vfm" else {}
    changes = {
        "method": method,
        "batch_size": 2,
        "rare_classes": method == "daformer",
        "threshold": 0.1 if method == "vfm" else 0.0595,
    } | changes
    return dataclasses.replace(settings, **changes, **hrda)


def gradients(settings, *, trainer=None, frozen=True, checkpointing=False) -> tuple[dict, dict, dict]:
    """Losses, gradients and BatchNorm's statistics of one step of the method.

    frozen: BatchNorm in eval mode; else its statistics are those of a process's images.
    """
    trainer = trainer or (train_vfm_mrm if settings.method == "vfm" else train_mic_mrm)
    run = Run(settings)
    models = run.models
    if settings.method == "daformer":  # a stand-in for the ImageNet encoder, far from the network's
        models.imagenet = copy.deepcopy(models.network.encoder).eval().double()
        settings = dataclasses.replace(settings, fd_weight=1.0)
        for p in models.imagenet.parameters():
            p.data.mul_(1.5)
    for module in (models.student, models.teacher):
        module.double().train(not frozen)
    if checkpointing:
        assert checkpoint_activations(models.network.encoder) == BLOCKS[settings.encoder]
    batch = batches_of(run)[STEP]
    batch = Batch(*(x.double() if x.is_floating_point() else x for x in vars(batch).values()))
    losses = trainer.train_step(1, batch, models, settings, Draws(settings, STEP))
    average_gradients(models.student)
    found = {name: p.grad for name, p in models.student.named_parameters() if p.grad is not None}
    return losses, found, dict(models.student.named_buffers())


def check(found: dict, expected: dict, atol: float = 1e-10) -> None:
    """atol: as a part of each tensor's largest entry."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=atol * scale + 1e-15, msg=name)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def work(rank, port, settings, out):
    torch.set_num_threads(1)
    processes.BUCKET = 2**14  # many
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    _, found, _ = gradients(settings)
    if rank == 0:
        torch.save(found, out)
    stop_processes()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes(settings, tmp_path, method):
    whole = settings_for(settings, method, balance_labels=True)
    _, expected, _ = gradients(dataclasses.replace(whole, out=str(tmp_path / "whole")))
    half = dataclasses.replace(whole, batch_size=1, out=str(tmp_path / "half"))
    mp.spawn(work, args=(free_port(), half, tmp_path / "grads.pt"), nprocs=2)
    check(torch.load(tmp_path / "grads.pt", weights_only=True), expected)


def some_steps(settings, count) -> Run:
    """Whole steps with updates, in float64, BatchNorm in eval mode."""
    torch.set_default_dtype(torch.float64)  # of the networks, and of what a checkpoint gives them
    try:
        run = Run(settings)
    finally:
        torch.set_default_dtype(torch.float32)
    run.models.student.eval(), run.models.teacher.eval()
    data = batches_of(run)
    for _ in range(count):
        batch = Batch(*(x.double() if x.is_floating_point() else x for x in vars(data[run.step]).values()))
        one_step(run, batch, train_mic_mrm.train_step)
        run.step += 1
    return run


def work_and_save(rank, port, settings):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    some_steps(settings, 2).save()
    stop_processes()


@pytest.mark.slow
@pytest.mark.parametrize(("mrm_every", "atol"), [(1, 1e-10), (2, 1e-9)])
def test_another_number_of_processes_goes_on_with_the_same_run(settings, tmp_path, capsys, mrm_every, atol):
    """Saved by two of one image, gone on with by one of two: the same samples, weights, moments and teacher."""
    whole = settings_for(settings, "mic", pretrain_iterations=0, mrm_every=mrm_every)
    half = dataclasses.replace(whole, batch_size=1, out=str(tmp_path / "half"))
    mp.spawn(work_and_save, args=(free_port(), half), nprocs=2)
    expected = some_steps(whole, 4)
    found = some_steps(dataclasses.replace(whole, out=half.out, resume=half.out), 2)
    assert "saved by 2 processes, goes on with 1: the same 2 images of each domain" in capsys.readouterr().out
    assert found.step == expected.step == 4
    # AdamW makes steps of the rounding where gradients are 0, as of keys' biases: with twice the weight larger ones
    for name in ("student", "teacher"):
        check(getattr(found.models, name).state_dict(), getattr(expected.models, name).state_dict(), atol)
    for a, b in zip(found.optimizers, expected.optimizers, strict=True):
        for x, y in zip(a.state_dict()["state"].values(), b.state_dict()["state"].values(), strict=True):
            check(x, y)


@pytest.mark.parametrize("method", METHODS)
def test_checkpointed_activations(settings, tmp_path, method):
    """The same bits, BatchNorm's statistics too, which must not be recorded a second time."""
    found = [
        gradients(
            settings_for(settings, method, out=str(tmp_path / f"{checkpointing}")),
            frozen=False,
            checkpointing=checkpointing,
        )
        for checkpointing in (False, True)
    ]
    for a, b in zip(*found):
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("mrm_weight", [0.0, 2.0])
def test_dacs_of_either_trainer(settings, tmp_path, mrm_weight):
    """The same bits."""
    found = [
        gradients(
            settings_for(settings, "dacs", mrm_weight=mrm_weight, out=str(tmp_path / trainer.__name__)),
            trainer=trainer,
            frozen=False,
        )
        for trainer in (train_dacs_mrm, train_mic_mrm)
    ]
    assert ("mrm" in found[0][0]) == (mrm_weight > 0)
    for a, b in zip(*found):
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), name
