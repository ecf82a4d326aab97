"""Two processes of half the batch do what one process with the whole batch does."""

from __future__ import annotations

import copy
import dataclasses
import socket

import pytest
import torch
import torch.multiprocessing as mp
import train_mic_mrm
from uda.runtime.processes import average_gradients
from uda.selftraining.draws import Draws
from uda.training.run import Run, batches_of

STEP = 5


def gradients(settings) -> dict[str, torch.Tensor]:
    """Of one step of the method, with BatchNorm in eval mode: its statistics are those of a process's share."""
    run = Run(settings, train_mic_mrm.Student)
    models = run.models
    if settings.method == "daformer":  # a stand-in for the ImageNet encoder, far from the network's
        models.imagenet = copy.deepcopy(models.student.network.encoder).eval()
        settings = dataclasses.replace(settings, fd_weight=1.0)
        for p in models.imagenet.parameters():
            p.data.mul_(1.5)
    for module in (models.student, models.teacher):
        module.eval()
    batch = batches_of(run)[STEP]
    train_mic_mrm.train_step(0, batch, models, settings, Draws(settings, STEP))
    average_gradients(models.student)
    return {name: p.grad for name, p in models.student.named_parameters() if p.grad is not None}


def work(rank, port, settings, out):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    found = gradients(settings)
    if rank == 0:
        torch.save(found, out)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dacs", "daformer", "hrda", "mic"])
def test_gradients_agree(settings, tmp_path, method):
    options = {"hrda": True, "detail_crop": 48, "mrm_grid": (3, 6)} if method == "hrda" else {}
    whole = dataclasses.replace(settings, method=method, batch_size=4, rare_classes=method == "daformer", **options)
    expected = gradients(dataclasses.replace(whole, out=str(tmp_path / "whole")))
    half = dataclasses.replace(whole, batch_size=2, out=str(tmp_path / "half"))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(work, args=(port, half, tmp_path / "grads.pt"), nprocs=2)
    found = torch.load(tmp_path / "grads.pt", weights_only=True)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * scale + 1e-8, msg=name)
