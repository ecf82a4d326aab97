"""What a trainer relies on beyond the numbers: state, copies, compilation, mixed precision, processes."""

import copy
import io
import pickle
import socket
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from toy import CHANNELS, CLASSES, ToyDecoder, ToyModel, images, labels, small_mrm

from mrm_loss import MRM, frozen_norm_stats

# what keeps fake tensors from claiming to be on a GPU; empty where they can
NO_FAKE_CUDA = "" if torch.backends.cuda.is_built() else "fake CUDA tensors need a build of PyTorch with CUDA"
if torch.__version__ < "2.6":
    NO_FAKE_CUDA = "fake CUDA tensors need a driver before torch 2.6"


def state_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


# --------------------------------------------------------------------------------------------- the user's model


def test_eval_mode_leaves_the_model_bit_identical():
    model, mrm = ToyModel().eval(), small_mrm()
    x, before = images(), state_of(model)
    expected = model(x)
    mrm(model.encoder(x), model.decoder, labels()).backward()
    assert torch.equal(model(x), expected)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_train_mode_leaves_all_but_statistics():
    def facts(model):
        return [
            (name, m.training, getattr(m, "momentum", None), len(m._forward_hooks), len(m._backward_hooks))
            for name, m in model.named_modules()
        ] + [(name, p.requires_grad) for name, p in model.named_parameters()]

    model, mrm = ToyModel().train(), small_mrm()
    model.encoder.stages[0].requires_grad_(False)
    before, keys = facts(model), list(model.state_dict())
    mrm(model.encoder(images()), model.decoder, labels()).backward()
    assert facts(model) == before
    assert list(model.state_dict()) == keys


def test_the_decoder_is_never_registered():
    decoder = ToyDecoder()
    mrm = MRM(CHANNELS, decoder, grid_size=4, embed_dim=16, num_heads=2)
    assert all(name.startswith("rebuilder.") for name, _ in mrm.named_parameters())
    assert all(key.startswith("rebuilder.") for key in mrm.state_dict())
    assert list(mrm.children()) == [mrm.rebuilder]
    mrm.to(torch.float64).eval()
    assert decoder.classify.weight.dtype == torch.float32
    assert decoder.training
    mrm.decoder_fn = ToyDecoder()
    assert list(mrm.children()) == [mrm.rebuilder]


def decode_with(decoder, feats):
    return decoder(feats)


class Both(ToyModel):
    """Holds the decoder, and an MRM that is built with it in one of the ways people do."""

    def __init__(self, how):
        super().__init__()
        self.mrm = small_mrm()
        self.mrm.decoder_fn = {
            "module": self.decoder,
            "method of the decoder": self.decoder.forward,
            "method of the model": self.decode,
            "partial": partial(decode_with, self.decoder),
            "lambda": lambda feats: self.decoder(feats),
            "function": this_decoder_of(self),
        }[how]

    def decode(self, feats):
        return self.decoder(feats)


def this_decoder_of(model):
    def decode(feats):
        return model.decoder(feats)

    return decode


def saved_and_loaded(model):
    torch.save(model, buffer := io.BytesIO())
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def trained_by_loss(copied, model, *decoder):
    """Whether the copy's loss gives gradients to the copy's encoder, decoder and Rebuilder, and to the original's."""
    copied.mrm(copied.encoder(images()), *decoder, pseudo_labels=labels()).backward()
    parts = [part for both in (copied, model) for part in (both.encoder, both.decoder, both.mrm)]
    return [all(p.grad is not None for p in part.parameters()) for part in parts]


COPIES = [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved_and_loaded]


@pytest.mark.parametrize("make", COPIES)
@pytest.mark.parametrize("how", ["module", "method of the decoder", "method of the model", "partial"])
def test_a_copied_model_trains_its_own_decoder(how, make):
    model = Both(how)
    copied = make(model)
    assert all(
        torch.equal(a, b) for a, b in zip(copied.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert list(copied.mrm.children()) == [copied.mrm.rebuilder]
    assert trained_by_loss(copied, model) == [True, True, True, False, False, False]
    model.zero_grad(set_to_none=True)
    assert trained_by_loss(make(copied), model) == [True, True, True, False, False, False]


@pytest.mark.parametrize("how", ["lambda", "function"])
def test_a_function_goes_on_with_the_decoder_that_it_names(how):
    """Python copies no functions: give the copy's decoder at the call, or at construction as a module or method."""
    model = Both(how)
    copied = copy.deepcopy(model)
    assert trained_by_loss(copied, model) == [True, False, True, False, True, False]
    model.zero_grad(set_to_none=True)
    assert trained_by_loss(copied, model, copied.decoder) == [True, True, True, False, False, False]
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(model)


def test_a_copy_of_the_loss_alone_has_a_decoder_of_its_own():
    mrm = small_mrm(CHANNELS, ToyDecoder())
    copied = copy.deepcopy(mrm)
    assert isinstance(copied.decoder_fn, ToyDecoder) and copied.decoder_fn is not mrm.decoder_fn


def test_state_dicts_are_saved_and_loaded():
    mrm, buffer = small_mrm(), io.BytesIO()
    torch.save(mrm.state_dict(), buffer)
    buffer.seek(0)
    small_mrm().load_state_dict(torch.load(buffer, weights_only=True))


# ------------------------------------------------------------------------------------------------------- warnings


def test_warns_once_of_detached_features():
    model, mrm = ToyModel(), small_mrm()
    with torch.no_grad():
        feats = model.encoder(images())
    with pytest.warns(UserWarning, match="does not reach the encoder") as caught:
        mrm(feats, model.decoder, labels())
        mrm(feats, model.decoder, labels())
    assert len(caught) == 1
    assert caught[0].filename == __file__


def under_no_grad(decoder):
    return torch.no_grad()(decoder)


def behind_detach(decoder):
    return lambda feats: decoder([level.detach() for level in feats])


@pytest.mark.parametrize("cut", [under_no_grad, behind_detach])
def test_warns_once_of_a_decoder_that_gives_no_gradients(cut):
    model, mrm = ToyModel(), small_mrm()
    feats = model.encoder(images())
    with pytest.warns(UserWarning, match="^decoder_fn: .* trains neither encoder nor Rebuilder") as caught:
        for _ in range(2):
            mrm(feats, cut(model.decoder), labels())
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_warns_once_of_levels_that_the_decoder_ignores():
    model, mrm = ToyModel(), small_mrm()
    feats = model.encoder(images())
    with pytest.warns(UserWarning, match=r"level\(s\) 0, 1 of feats.*None") as caught:
        for _ in range(2):
            mrm(feats, lambda feats: model.decoder([feats[0].detach(), torch.zeros_like(feats[1]), feats[2]]), labels())
    assert len(caught) == 1


def test_silent_where_nothing_is_wrong():
    model, frozen = ToyModel(), ToyDecoder().requires_grad_(False)
    feats = model.encoder(images())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for decoder in (model.decoder, frozen, lambda feats: model.decoder([level.mul_(2) for level in feats])):
            small_mrm()(feats, decoder, labels())
        small_mrm([None, *CHANNELS[1:]])(
            feats, lambda feats: model.decoder([torch.zeros_like(feats[0]), *feats[1:]]), labels()
        )
        with torch.no_grad():
            small_mrm()(feats, model.decoder, labels())
        small_mrm().requires_grad_(False)([f.detach().requires_grad_() for f in feats], frozen, labels())


def test_frozen_decoder_trains_the_encoder():
    model, mrm = ToyModel(), small_mrm()
    model.decoder.requires_grad_(False)
    mrm(model.encoder(images()), model.decoder, labels()).backward()
    assert all(p.grad is not None and p.grad.any() for p in [*model.encoder.parameters(), *mrm.parameters()])
    assert all(p.grad is None for p in model.decoder.parameters())


def test_eval_still_masks():
    model, mrm = ToyModel().eval(), small_mrm().eval()
    feats = model.encoder(images())
    rebuilt, mask = mrm.rebuild(feats)
    assert mask.any()
    assert not torch.equal(rebuilt[0], feats[0])


# ------------------------------------------------------------------------------------------------------ validation


def test_values_are_always_read_on_cpu():
    model, mrm = ToyModel(), small_mrm()
    feats = model.encoder(images())
    mrm(feats, model.decoder, labels())
    with pytest.raises(ValueError, match=rf"ids in \[0, {CLASSES}\).*got 7"):
        mrm(feats, model.decoder, torch.full((2, 32, 32), 7))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("reduction", ["mean", "valid"])
def test_no_synchronisation(device, reduction):
    """Fake tensors have no values: whatever would wait for a device fails on them."""
    if device == "cuda" and NO_FAKE_CUDA:
        pytest.skip(NO_FAKE_CUDA)
    with FakeTensorMode(), torch.device(device):
        model, mrm = ToyModel(), small_mrm(reduction=reduction)
        loss = mrm(model.encoder(images()), model.decoder, labels(), torch.rand(2, 32, 32), validate=False)
        assert loss.device.type == device
        if device == "cpu":  # autograd's engine wants a real context for others
            loss.backward()


class NoCopies(TorchDispatchMode):
    """Fails where a tensor is copied from one device to another and the host waits for it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default and not kwargs.get("non_blocking"):
            assert args[0].device == out.device, f"copied from {args[0].device} to {out.device}"
        if func is torch.ops.aten.copy_.default:
            assert args[1].device == out.device, f"copied from {args[1].device} to {out.device}"
        return out


def test_the_watch_for_copies_sees_them():
    with FakeTensorMode(), NoCopies(), pytest.raises(AssertionError, match="copied from cpu to"):
        torch.rand(3).to("meta")


@pytest.mark.parametrize("weights", ["none", "number", "scalar", "pixels"])
@pytest.mark.parametrize("reduction", ["mean", "valid"])
@pytest.mark.parametrize("given", ["nothing", "generator", "mask"])
def test_no_copies_between_devices(weights, reduction, given):
    if NO_FAKE_CUDA:
        pytest.skip(NO_FAKE_CUDA)
    with FakeTensorMode(), torch.device("cuda"):
        model, mrm = ToyModel(), small_mrm(reduction=reduction)
        x, y = model.encoder(images()), labels()
        w = {"none": None, "number": 0.3, "scalar": torch.ones((), device="cpu"), "pixels": torch.rand(2, 32, 32)}[
            weights
        ]
        options = {
            "nothing": {},
            "generator": {"generator": torch.Generator("cpu")},
            "mask": {"mask": torch.ones(2, 1, 4, 4, dtype=torch.bool, device="cpu")},
        }[given]
        with NoCopies():
            mrm(x, model.decoder, y, w, validate=False, **options)


@pytest.mark.parametrize("mask_only", [False, True])
def test_construction_on_another_device(mask_only):
    with torch.device("meta"):
        mrm = small_mrm(mask_only=mask_only)
    mrm = mrm.to_empty(device="cpu")
    for module in mrm.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    mrm.rebuilder.reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(mrm.buffers(), small_mrm(mask_only=mask_only).buffers(), strict=True))
    assert 0 < mrm.rebuilder.mask_token.abs().max() < 0.2
    assert torch.isfinite(mrm(ToyModel().encoder(images()), ToyDecoder(), labels()))


# ----------------------------------------------------------------------------------- compile, autocast, memory format


@pytest.mark.slow
def test_compiles_in_one_graph_and_once():
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    model, mrm = ToyModel(), small_mrm()
    counter = CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def step(x, y, weights, mask):
        return mrm(model.encoder(x), model.decoder, y, weights, mask=mask)

    for _ in range(4):
        mask = torch.rand(2, 1, 4, 4) < 0.4
        x, y, weights = images(), labels(), torch.rand(2, 32, 32)
        with frozen_norm_stats(model):
            expected = mrm(model.encoder(x), model.decoder, y, weights, mask=mask)
            torch.testing.assert_close(step(x, y, weights, mask), expected)
        step(x, y, weights, mask).backward()
    assert counter.frame_count <= 2  # with frozen statistics and without


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [None, True])
def test_batch_sizes_compile_twice_at_most(dynamic):
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    model, mrm, counter = ToyModel().eval(), small_mrm(), CompileCounter()
    compiled = torch.compile(mrm, fullgraph=True, dynamic=dynamic, backend=counter)
    for batch in (2, 3, 4, 5, 6):
        assert torch.isfinite(compiled(model.encoder(images(batch)), model.decoder, labels(batch)))
    assert counter.frame_count <= 2


@pytest.mark.slow
def test_compiled_draws_and_trains():
    torch._dynamo.reset()
    model, mrm = ToyModel(), small_mrm()
    compiled = torch.compile(mrm, fullgraph=True, backend="aot_eager")
    losses = [compiled(model.encoder(images()), model.decoder, labels()) for _ in range(2)]
    assert losses[0] != losses[1]
    losses[0].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in mrm.parameters())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.005)])
def test_gradients_under_autocast_are_those_of_float32(dtype, tolerance):
    """Of every parameter of the Rebuilder, its norms' among them, which sum over many cells."""
    channels = [32, 64, 128, 256]
    torch.manual_seed(0)
    mrm = MRM(channels, embed_dim=128, num_heads=4, grid_size=8)
    feats = [torch.randn(2, c, 64 // 2**i, 64 // 2**i, requires_grad=True) for i, c in enumerate(channels)]
    heads = nn.ModuleList(nn.Conv2d(c, 5, 1) for c in channels)
    labels, mask = torch.randint(5, (2, 64, 64)), torch.rand(2, 1, 8, 8) < 0.4

    def decoder(levels):
        return sum(nn.functional.interpolate(head(level), (64, 64)) for head, level in zip(heads, levels))

    def gradients(enabled):
        with torch.autocast("cpu", dtype, enabled=enabled):
            loss = mrm(feats, decoder, labels, mask=mask)
        return torch.autograd.grad(loss, list(mrm.parameters()))

    for (name, _), half, full in zip(mrm.named_parameters(), gradients(True), gradients(False)):
        assert (half - full).norm() <= tolerance * full.norm(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    model, mrm = ToyModel(), small_mrm()
    with torch.autocast("cpu", dtype):
        feats = model.encoder(images())
        assert feats[0].dtype == dtype
        rebuilt, mask = mrm.rebuild(feats)
        loss = mrm(feats, model.decoder, labels(), mask=mask)
        assert mrm.rebuilder.make_tokens(feats[-1], mask).dtype == torch.float32
    assert [f.dtype for f in rebuilt] == [f.dtype for f in feats]
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in mrm.parameters())


def test_channels_last():
    model, mrm = ToyModel().eval(), small_mrm()
    feats, mask, y = model.encoder(images()), torch.rand(2, 1, 4, 4) < 0.4, labels()
    expected = mrm(feats, model.decoder, y, mask=mask)
    model, mrm = model.to(memory_format=torch.channels_last), mrm.to(memory_format=torch.channels_last)
    feats = [f.contiguous(memory_format=torch.channels_last) for f in feats]
    rebuilt, _ = mrm.rebuild(feats, mask)
    assert all(f.is_contiguous(memory_format=torch.channels_last) for f in rebuilt)
    torch.testing.assert_close(mrm(feats, model.decoder, y, mask=mask), expected)


# ----------------------------------------------------------------------------------------------- several processes


class Student(nn.Module):
    """As DDP wants it: one forward, the loss inside."""

    def __init__(self):
        super().__init__()
        self.model, self.mrm = ToyModel().eval(), small_mrm()

    def forward(self, x, y, mask):
        return self.mrm(self.model.encoder(x), self.model.decoder, y, mask=mask)


def _batch():
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(4, 3, 32, 32, generator=generator)
    y = torch.randint(CLASSES, (4, 32, 32), generator=generator)
    return x, y, torch.rand(4, 1, 4, 4, generator=generator) < 0.4


def _worker(rank, port, out):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    torch.manual_seed(0)
    student = nn.parallel.DistributedDataParallel(Student())
    with student.no_sync():  # accumulation: the first half of each rank's share
        for i in (0, 1):
            share = [t[2 * rank + i : 2 * rank + i + 1] for t in _batch()]
            if i == 0:
                (student(*share) / 2).backward()
    (student(*share) / 2).backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in student.module.named_parameters()}, out)
    torch.distributed.destroy_process_group()
    time.sleep(0.2)  # gloo's threads abort a process that ends before their last work (torch 2.14)


@pytest.mark.slow
def test_ddp_with_accumulation_equals_one_process(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(_worker, args=(port, tmp_path / "grads.pt"), nprocs=2)
    torch.manual_seed(0)
    student = Student()
    student(*_batch()).backward()
    found = torch.load(tmp_path / "grads.pt", weights_only=True)
    for name, p in student.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-6, msg=name)


# --------------------------------------------------------------------------------------------------- the package


def test_imports_nothing_heavy():
    code = (
        "import sys, time, torch\n"
        "before, t = set(sys.modules), time.perf_counter()\n"
        "import mrm_loss\n"
        "assert time.perf_counter() - t < 1, time.perf_counter() - t\n"
        "new = {m.split('.')[0] for m in set(sys.modules) - before}\n"
        "assert not new & {'torchvision', 'timm', 'numpy', 'PIL', 'matplotlib', 'tqdm'}, new\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
