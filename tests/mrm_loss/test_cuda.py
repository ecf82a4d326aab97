"""MRM on an NVIDIA GPU: the CPU's numbers, no waiting, mixed precision, compiled kernels, CUDA graphs."""

import copy

import pytest
import torch
from toy import ToyModel, images, labels, small_mrm

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def pair(**options):
    """The same toy in float64 on the CPU and on the GPU, with a batch."""
    model, mrm = ToyModel().double().eval(), small_mrm(**options).double()
    batch = (images().double(), labels(), torch.rand(2, 32, 32).double(), torch.rand(2, 1, 4, 4) < 0.4)
    here = (model, mrm, *batch)
    there = (copy.deepcopy(model).cuda(), copy.deepcopy(mrm).cuda(), *(x.cuda() for x in batch))
    return here, there


def loss_and_gradients(model, mrm, x, y, weights, mask):
    loss = mrm(model.encoder(x), model.decoder, y, weights, mask=mask)
    loss.backward()
    return [loss.detach(), *(p.grad for p in [*model.parameters(), *mrm.parameters()])]


@pytest.mark.parametrize("options", [{}, {"reduction": "valid"}, {"mask_only": True}, {"depth": 1}])
def test_the_loss_and_its_gradients_are_the_cpus(options):
    here, there = pair(**options)
    for expected, found in zip(loss_and_gradients(*here), loss_and_gradients(*there)):
        assert found.device.type == "cuda"
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-10, atol=1e-14)


def test_a_cpu_generator_draws_the_cpus_masks():
    here, there = pair()
    masks = [
        mrm.rebuild(model.encoder(x), generator=torch.Generator().manual_seed(3))[1]
        for model, mrm, x, *_ in (here, there)
    ]
    assert masks[1].is_cuda and torch.equal(masks[1].cpu(), masks[0])
    generator = torch.Generator("cuda").manual_seed(3)
    drawn = [there[1].rebuild(there[0].encoder(there[2]), generator=generator)[1] for _ in range(2)]
    assert not torch.equal(*drawn)


@pytest.mark.parametrize("mask_only", [False, True])
def test_the_host_waits_for_nothing(mask_only):
    _, (model, mrm, x, y, weights, mask) = pair(mask_only=mask_only)
    mrm(model.encoder(x), model.decoder, y, weights).backward()  # the first labels are read
    masks = [{}, {"mask": mask}, {"mask": mask.cpu()}, {"generator": torch.Generator().manual_seed(0)}]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for options in masks:
            mrm(model.encoder(x), model.decoder, y, weights, **options).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_trains(dtype):
    model, mrm = ToyModel().cuda(), small_mrm().cuda()
    parameters = [*model.parameters(), *mrm.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    x, y, losses = images().cuda(), labels().cuda(), []
    for _ in range(50):
        with torch.autocast("cuda", dtype):
            feats = model.encoder(x)
            assert feats[0].dtype == dtype
            loss = mrm(feats, model.decoder, y)
        assert loss.dtype == torch.float32
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])
    assert all(p.isfinite().all() for p in parameters)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])  # the second records CUDA graphs
def test_compiled_it_is_the_same(mode):
    torch._dynamo.reset()
    _, (model, mrm, x, y, weights, mask) = pair()
    expected = loss_and_gradients(model, mrm, x, y, weights, mask)
    step = torch.compile(
        lambda x, y, weights, mask: mrm(model.encoder(x), model.decoder, y, weights, mask=mask),
        fullgraph=True,
        mode=mode,
    )
    for _ in range(4):  # warmed up, recorded, replayed
        for p in [*model.parameters(), *mrm.parameters()]:
            p.grad = None
        torch.compiler.cudagraph_mark_step_begin()
        loss = step(x, y, weights, mask)
        loss.backward()
        found = [loss.detach().clone(), *(p.grad.clone() for p in [*model.parameters(), *mrm.parameters()])]
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)
    drawn = torch.compile(mrm, fullgraph=True)
    feats = [f.detach() for f in model.encoder(x)]
    assert drawn(feats, model.decoder, y) != drawn(feats, model.decoder, y)


def test_a_step_replays_as_a_cuda_graph():
    """Another mask each time: it is drawn on the GPU."""
    _, (model, mrm, x, y, weights, _) = pair()
    feats = [f.detach() for f in model.encoder(x)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            mrm(feats, model.decoder, y, weights).backward()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = mrm(feats, model.decoder, y, weights)
        loss.backward()
    seen = set()
    for _ in range(3):
        graph.replay()
        seen.add(loss.item())
    assert len(seen) == 3


def test_what_lies_elsewhere_is_named():
    here, there = pair()
    feats = there[0].encoder(there[2])
    with pytest.raises(ValueError, match=r"feats\[0\]: .*move it there: mrm.to\('cuda:0'\)"):
        here[1](feats, there[0].decoder, there[3])
    with pytest.raises(ValueError, match="pseudo_labels: expected a tensor on cuda:0"):
        there[1](feats, there[0].decoder, here[3])
