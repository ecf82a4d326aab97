"""The step of every method on another device: nothing mixes with the CPU's tensors, and the host waits for nothing.

Without an accelerator the device is the one of tests/helpers/elsewhere.py; where there is CUDA, PyTorch itself raises
when the host would wait.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from contextlib import contextmanager

import pytest
import torch
import train_dacs_mrm
import train_mic_mrm
import train_vfm_mrm
from elsewhere import DEVICE, Elsewhere
from uda.training import run as run_module
from uda.training.report import draw_panel
from uda.training.run import Run, batches_of, one_step
from uda.training.watch import Watch

VIT = {"encoder": "small_vit", "decoder": "light"}
CASES = [
    (train_dacs_mrm, "source-only", {}),
    (train_dacs_mrm, "dacs", {}),
    (train_dacs_mrm, "dacs", {"optimizer": "sgd"}),
    *[(train_mic_mrm, method, {}) for method in ("dacs", "daformer", "hrda", "mic")],
    (train_mic_mrm, "hrda", {"mrm_on": "mixed"}),
    (train_mic_mrm, "hrda", {"mrm_on": "both", "precision": "bf16"}),
    *[(train_mic_mrm, "mic", {"mrm_on": mrm_on}) for mrm_on in ("source", "both", "mixed", "masked")],
    *[(train_mic_mrm, method, {"precision": "bf16"}) for method in ("daformer", "mic")],
    (train_mic_mrm, "mic", {"precision": "fp16"}),
    (train_mic_mrm, "mic", {"checkpoint_activations": True}),
    *[(train_vfm_mrm, "vfm", {**VIT, "precision": precision}) for precision in ("fp32", "bf16", "fp16")],
]


def read_backs(options) -> int:
    """Of a step; whether fp16's gradients overflow is asked by PyTorch's own scaler, once per optimiser."""
    return 2 if options.get("precision") == "fp16" else 0


def run_of(settings, trainer, method, options, device) -> Run:
    if method == "hrda":
        options = {**options, "hrda": True, "detail_crop": 48, "mrm_grid": (3, 6)}
    if method == "daformer":
        options = {**options, "rare_classes": True}
    settings = dataclasses.replace(settings, method=method, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "start_processes", lambda name: device)
        run = Run(settings)
    run.step = settings.pretrain_iterations
    if method == "daformer":  # a stand-in for the ImageNet encoder
        run.models.imagenet = copy.deepcopy(run.models.network.encoder).eval().requires_grad_(False)
        run.settings = dataclasses.replace(run.settings, fd_weight=0.005)
    return run


@pytest.mark.parametrize(("trainer", "method", "options"), CASES)
def test_a_step_waits_for_nothing(settings, trainer, method, options):
    with Elsewhere() as device:
        run = run_of(settings, trainer, method, options, DEVICE)
        data = batches_of(run)
        watch = Watch(data, run.folder)
        for _ in range(2):  # the library reads the first labels it is given
            device.reset()
            losses = one_step(run, data[run.step].to(run.device), trainer.train_step, watch)
            run.step += 1
        assert sum(device.reads.values()) == read_backs(options), device.reads
        assert device.copies["waits"] == 0
        device.reset()
        watch.look(now=True)
        assert sum(device.reads.values()) == 2  # one per step, all losses together; a step later in a run
        assert all(torch.isfinite(loss.cpu()) for loss in losses.values())
    assert {"daformer": "distance", "mic": "masked"}.get(method, "source") in losses
    assert all(p.grad is not None for p in run.models.student.parameters())


@pytest.mark.parametrize(
    ("trainer", "method", "options"),
    [(train_dacs_mrm, "dacs", {"optimizer": "sgd"}), (train_mic_mrm, "mic", {}), (train_vfm_mrm, "vfm", VIT)],
)
def test_a_resumed_step_waits_for_nothing(settings, trainer, method, options):
    """AdamW's counts of steps stay on the CPU, where it looks at them."""
    before = run_of(settings, trainer, method, options, torch.device("cpu"))
    one_step(before, batches_of(before)[before.step], trainer.train_step)
    before.step += 1
    before.save()
    before.lock.close()
    with Elsewhere() as device:
        run = run_of(settings, trainer, method, {**options, "resume": settings.out}, DEVICE)
        run.step = before.step
        data = batches_of(run)
        for _ in range(2):
            device.reset()
            one_step(run, data[run.step].to(run.device), trainer.train_step)
            run.step += 1
        assert sum(device.reads.values()) == 0, device.reads
        moments = [x for optimizer in run.optimizers for state in optimizer.state.values() for x in state.values()]
        assert {x.device for x in moments if x.ndim > 0} == {DEVICE}


@pytest.mark.parametrize("window", [0, 32])
def test_an_evaluation_reads_once_per_network(settings, window):
    with Elsewhere() as device:
        run = run_of(settings, train_mic_mrm, "hrda", {"eval_window": window}, DEVICE)
        device.reset()
        confusions = run.evaluate()
        assert confusions.keys() == {"student", "teacher"}
        assert all(confusion.sum() > 0 for confusion in confusions.values())
        assert sum(device.reads.values()) == 2


def test_a_panel_is_read_as_a_whole(settings):
    with Elsewhere() as device:
        run = run_of(settings, train_mic_mrm, "mic", {}, DEVICE)
        run.step += 1
        device.reset()
        draw_panel(run, run.folder / "panel.png")
        assert (run.folder / "panel.png").stat().st_size > 0
        assert sum(device.reads.values()) == 16, device.reads  # four rows of four predictions and masks


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
def counting_where_the_host_waits():
    """PyTorch's warnings, each with the line that waits."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            yield waits
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("trainer", "method", "options"), CASES)
def test_a_step_on_cuda_waits_for_nothing(settings, trainer, method, options):
    run = run_of(settings, trainer, method, options, torch.device("cuda"))
    data = batches_of(run)
    watch = Watch(data, run.folder)
    for _ in range(3):
        batch = data[run.step].to(run.device)
        with counting_where_the_host_waits() as waits:
            losses = one_step(run, batch, trainer.train_step, watch)
        run.step += 1
    lines = [f"{wait.filename}:{wait.lineno}" for wait in waits if "synchronizing CUDA" in str(wait.message)]
    assert len(lines) == read_backs(options), lines
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("trainer", "method", "options"), [case for case in CASES if "precision" not in case[2]])
def test_a_step_on_cuda_is_the_cpus(settings, tmp_path, trainer, method, options):
    """Images, mixes, masks and all else that is drawn are the same; losses and gradients differ by roundings."""
    seen = {}
    for name in ("cpu", "cuda"):
        run = run_of(settings, trainer, method, {**options, "out": str(tmp_path / name)}, torch.device(name))
        torch.backends.cudnn.allow_tf32 = False  # the CPU's convolutions and products are float32 in full
        torch.set_float32_matmul_precision("highest")
        losses = one_step(run, batches_of(run)[run.step].to(run.device), trainer.train_step)
        gradients = torch.cat([p.grad.flatten().cpu().double() for p in run.models.student.parameters()])
        seen[name] = {key: loss.item() for key, loss in losses.items()}, gradients
    (expected, gradients), (found, on_cuda) = seen["cpu"], seen["cuda"]
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert (on_cuda - gradients).norm() < 0.02 * gradients.norm()
