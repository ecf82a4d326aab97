"""What `examples/loops.md` says of each loop: its scripts train as the plain loop, and what goes wrong."""

from __future__ import annotations

import copy
import warnings

import framework_scripts as page
import pytest
import torch
from framework_pitfalls import PITFALLS, REMEDIES
from torch.utils.checkpoint import CheckpointError, checkpoint
from toy import ToyModel, images, labels, small_mrm

from mrm_loss import frozen_norm_stats, random_mask

pytest.importorskip("lightning", minversion="2.4")
pytest.importorskip("accelerate", minversion="1.0")
pytestmark = pytest.mark.integration

SCRIPTS = page.scripts()
PLAIN = page.PLAIN
IN_TWO_PROCESSES = {name: SCRIPTS[name] for name in ("DistributedDataParallel", "FSDP2", "Accelerate")}
for name in ("Lightning", "Lightning 2"):
    IN_TWO_PROCESSES[name] = SCRIPTS[name].replace('devices="auto", strategy="auto"', 'devices=2, strategy="ddp"')


@pytest.fixture(scope="module")
def plain() -> list[list[torch.Tensor]]:
    return page.run(SCRIPTS[PLAIN])[1].steps


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory) -> dict[str, list[page.Recording]]:
    """Recordings of both processes, which run all of the scripts one after the other."""
    scripts = IN_TWO_PROCESSES | PITFALLS | {f"{name}, mended": code for name, code in REMEDIES.items()}
    return page.run_in_two_processes(scripts, tmp_path_factory.mktemp("processes"))


def assert_same_gradients(actual, expected, tolerance=1e-9):
    assert [len(step) for step in actual] == [len(step) for step in expected]
    for step, (found, wanted) in enumerate(zip(actual, expected)):
        for i, (a, b) in enumerate(zip(found, wanted)):
            assert b.any(), (step, i)
            torch.testing.assert_close(a, b.to(a), rtol=0, atol=tolerance * b.abs().max().item(), msg=f"{step}, {i}")


# ------------------------------------------------------------------------------------------------- one process

ONE_PROCESS = ["Gradient accumulation", "Schedulers", "Activation checkpointing", "Accelerate", "Lightning"]
ONE_PROCESS += ["Lightning 2", "torch.compile"]
OF_THEIR_OWN = ["MRM in every second step", "Schedulers 2", "Mixed precision", "EMA teachers"]  # tests below
OF_THEIR_OWN += ["Semi-supervised segmentation", "Distillation, and losses of your own"]


def test_every_script_has_its_test():
    assert set(SCRIPTS) == {page.FIRST, PLAIN, *ONE_PROCESS, *OF_THEIR_OWN, *IN_TWO_PROCESSES}


@pytest.mark.parametrize("name", ONE_PROCESS)
def test_trains_as_the_plain_loop(name, plain):
    assert_same_gradients(page.run(SCRIPTS[name])[1].steps, plain)


@pytest.mark.slow
def test_a_whole_step_is_compiled(plain):
    """As the page says: in several graphs."""
    code = """
@torch.compile
def step(*batch):
    loss = student(*batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

for batch in batches():
    step(*batch)
"""
    assert_same_gradients(page.run(code)[1].steps, plain)


@pytest.mark.slow
def test_the_page_s_change_of_colours_is_compiled():
    names, _ = page.run("")
    exec(page.blocks()[page.FIRST], names)
    exec(SCRIPTS["torch.compile"], names)
    assert names["loss"].isfinite()


def test_accelerate_accumulates(plain):
    code = SCRIPTS["Accelerate"].replace("Accelerator()", "Accelerator(gradient_accumulation_steps=2)")
    head = code.partition("for batch in")[0]
    loop = """for batch in batches():
    for part in zip(*(t.to(accelerator.device).split(2) for t in batch)):
        with accelerator.accumulate(student):
            accelerator.backward(student(*part))
            optimizer.step()
            optimizer.zero_grad()
"""
    assert_same_gradients(page.run(head + loop)[1].steps, plain)


def test_lightning_accumulates(plain):
    code = SCRIPTS["Lightning"].replace("max_epochs=1", "max_epochs=1, accumulate_grad_batches=2")
    whole = "return batches(self.global_rank, self.trainer.world_size)"
    parts = "return (part for batch in batches() for part in zip(*(t.split(2) for t in batch)))"
    assert whole in code
    assert_same_gradients(page.run(code.replace(whole, parts))[1].steps, plain)


def test_every_second_step(in_two_processes):
    """Steps of one process and of two are the same; the Rebuilder gets no gradient in the first, and then two of it."""
    names, recording = page.run(SCRIPTS["MRM in every second step"])
    count = len(list(names["student"].network.parameters()))
    for step in recording.steps:
        assert all(gradient.any() for gradient in step[:count])
    without, with_mrm = (step[count:] for step in recording.steps)
    assert all(gradient.shape == () and not gradient.any() for gradient in without)  # None
    once = page.run(SCRIPTS["MRM in every second step"].replace("mrm_factor=2", "mrm_factor=1"))[1].steps[1]
    assert_same_gradients([with_mrm], [[2 * gradient for gradient in once[count:]]])
    for other in in_two_processes["MRM in every second step, all parameters looked for"]:
        assert other.error == ""
        assert_same_gradients(
            [other.steps[0][:count], other.steps[1]], [recording.steps[0][:count], recording.steps[1]]
        )
        assert all(gradient.shape == () for gradient in other.steps[0][count:])


def test_a_gradient_of_zeros_moves_the_rebuilder():
    """As the page says of `set_to_none=False`."""
    student = page.run("")[0]["student"]
    optimizer = torch.optim.AdamW(student.groups(), lr=6e-5)
    sum(p.sum() for p in student.parameters()).backward()
    optimizer.step()
    for zeros in (True, False):
        before = student.mrm.rebuilder.mask_token.clone()
        optimizer.zero_grad(set_to_none=not zeros)
        optimizer.step()
        assert torch.equal(before, student.mrm.rebuilder.mask_token) != zeros


def test_mixed_precision():
    """The scaler's factor is gone again when the optimiser steps; what is left is float16's rounding."""
    names, recording = page.run(SCRIPTS["Mixed precision"], torch.float32)
    assert names["scaler"].get_scale() > 1
    plain = page.run(SCRIPTS[PLAIN], torch.float32)[1].steps
    assert_same_gradients(recording.steps[:1], plain[:1], tolerance=0.05)


def test_an_optimiser_of_its_own(plain):
    names, recording = page.run(SCRIPTS["Schedulers 2"])
    theirs, ours = recording.steps[:2]
    assert_same_gradients([theirs + ours], plain[:1])
    rates = [group["lr"] for o in (names["theirs"], names["ours"]) for group in o.param_groups]
    assert rates == pytest.approx([rate * (1 - 2 / 40_000) for rate in (2.5e-4, 2e-4)], rel=1e-9)


def test_schedulers_keep_the_ratio_of_the_rates():
    names, _ = page.run(SCRIPTS["Schedulers"])
    rates = [group["lr"] for group in names["optimizer"].param_groups]
    assert rates == pytest.approx([rate * (1 - 2 / 40_000) for rate in (6e-5, 2e-4)], rel=1e-9)


def test_ema_teacher():
    names, recording = page.run(SCRIPTS["EMA teachers"])
    student, teacher = names["student"], names["teacher"].module
    assert len(recording.steps) == 2
    assert teacher.state_dict().keys() == student.network.state_dict().keys()  # no second Rebuilder
    assert all(p.grad is None for p in teacher.parameters())
    initial = page.run("")[0]["student"].network  # the page's seed: the same weights
    for before, now, average in zip(initial.parameters(), student.network.parameters(), teacher.parameters()):
        assert not torch.equal(before, now)
        # the first update copies, the second averages: between where the student was and is
        assert (average - now).abs().max() <= (before - now).abs().max()
        assert not torch.equal(average, before)

    whole = type(names["teacher"])(student)
    whole.update_parameters(student)
    assert any(name.startswith("module.mrm.") for name in whole.state_dict())  # "keeps a second Rebuilder"


def test_a_teachers_decoder_in_mrm_is_not_named():
    """As the page says: the student's decoder gets no gradient, and nothing is said."""
    student = page.run("", torch.float32)[0]["student"]
    teacher = copy.deepcopy(student.network).requires_grad_(False)
    x, y = images(size=(64, 64)), labels(size=(64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*coarser than the mask's grid")
        student.mrm(student.network.encoder(x), teacher.decoder, y).backward()
    assert all(p.grad is not None for p in student.network.encoder.parameters())
    assert all(p.grad is None for p in student.network.decoder.parameters())


def test_semi_supervised():
    """Unlabelled images train all of the student where labels are trusted, and the labelled ones alone where not."""
    code = SCRIPTS["Semi-supervised segmentation"]
    for threshold, trained in (("0.2", True), ("0.999", False)):
        names, recording = page.run(code.replace("0.95", threshold))
        assert len(recording.steps) == 2
        mrm, network = names["student"].mrm, names["student"].network
        assert all(p.grad.any() for p in network.parameters())
        assert all(p.grad.any() == trained for p in mrm.parameters())


def test_distillation():
    """The larger network's labels reach encoder, decoder and Rebuilder; it gets nothing itself."""
    names, recording = page.run(SCRIPTS["Distillation, and losses of your own"])
    assert len(recording.steps) == 2
    assert all(gradient.any() for step in recording.steps for gradient in step)
    assert all(p.grad is None for p in names["large"].parameters())


# ------------------------------------------------------------------------------------------------ two processes


@pytest.mark.parametrize("name", [*IN_TWO_PROCESSES, *(f"{name}, mended" for name in REMEDIES)])
def test_two_processes_train_as_the_plain_loop(name, in_two_processes, plain):
    for recording in in_two_processes[name]:
        assert recording.error == ""
        assert recording.processes == 2
        assert not [w for w in recording.warnings if w.startswith(("feats:", "decoder_fn:"))]
        assert_same_gradients(recording.steps, plain)


def test_behind_the_back_of_ddp_nothing_is_averaged(in_two_processes):
    """Without a word: should PyTorch begin to say so, or to average, the page has to be mended."""
    one, other = in_two_processes["parts called behind DDP's back"]
    assert one.error == other.error == ""
    assert all(not torch.allclose(a, b) for a, b in zip(one.steps[0], other.steps[0]))


def test_fsdp_mixes_other_weights_without_a_word(in_two_processes, plain):
    for recording in in_two_processes["processes that start from other weights"]:
        assert recording.error == ""
        assert any(not torch.allclose(a, b) for a, b in zip(recording.steps[0], plain[0]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a level that the decoder ignores", "Expected to have finished reduction in the prior iteration"),
        ("a backward for each loss", "Expected to have finished reduction in the prior iteration"),
        ("MRM in every second step", "Expected to have finished reduction in the prior iteration"),
        ("methods instead of modules under FSDP2", "mixed torch.Tensor and DTensor"),
        ("a manual_backward for each loss", "It looks like your LightningModule has parameters that were not used"),
    ],
)
def test_what_pytorch_says(name, message, in_two_processes):
    assert message in " ".join(page.LOOPS.read_text().split())
    for recording in in_two_processes[name]:
        assert message in recording.error


def test_mrm_names_the_level_before_ddp_stops(in_two_processes):
    for recording in in_two_processes["a level that the decoder ignores"]:
        ours = [w for w in recording.warnings if w.startswith("decoder_fn:")]
        assert len(ours) == 1
        assert "level(s) 0 of feats" in ours[0]
        assert "give None for them in encoder_channels" in ours[0]


# ---------------------------------------------------------------------------------------- pitfalls in one process


def test_a_parameter_group_after_the_scheduler():
    student = page.run("")[0]["student"]
    optimizer = torch.optim.AdamW(student.network.parameters(), lr=6e-5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 10)
    optimizer.add_param_group({"params": student.mrm.parameters(), "lr": 2e-4})
    optimizer.step()
    try:
        scheduler.step()
    except (ValueError, KeyError):
        return
    assert optimizer.param_groups[1]["lr"] == 2e-4  # older versions leave it alone


def test_a_generator_under_checkpointing():
    """It draws another mask when the forward is run again; a mask that was drawn outside stays."""
    model, mrm = ToyModel().eval(), small_mrm()
    x, y = images(), labels()

    def gradient(call, **options):
        mrm.zero_grad()
        call(mrm, model.encoder(x), model.decoder, y, **options).backward()
        return mrm.rebuilder.mask_token.grad.clone()

    def plainly(module, *arguments, **options):
        return module(*arguments, **options)

    def checkpointed(module, *arguments, **options):
        return checkpoint(module, *arguments, use_reentrant=False, **options)

    def generator():
        return torch.Generator().manual_seed(3)

    def seeded(call):
        torch.manual_seed(3)
        return gradient(call)

    torch.testing.assert_close(seeded(checkpointed), seeded(plainly))  # checkpoint puts the global generator back
    mask = random_mask(2, 4, generator=generator())
    expected = gradient(plainly, generator=generator())
    torch.testing.assert_close(gradient(checkpointed, mask=mask), expected)
    assert not torch.allclose(gradient(checkpointed, generator=generator()), expected)


def test_reentrant_checkpointing_of_the_encoder_is_named():
    code = SCRIPTS["Activation checkpointing"]
    code = code.replace("colours(target), use_reentrant=False", "colours(target), use_reentrant=True")
    with pytest.warns(UserWarning, match="^feats: none of the features requires a gradient"):
        page.run(code)


def test_statistics_frozen_around_a_checkpoint():
    """Its forward runs again within backward, so that has to lie inside too."""
    model = ToyModel().train()
    before = {name: value.clone() for name, value in model.named_buffers()}

    def same():
        return all(torch.equal(before[name], value) for name, value in model.named_buffers())

    with frozen_norm_stats(model):
        checkpoint(model, images(), use_reentrant=False).sum().backward()
    assert same()
    with frozen_norm_stats(model):
        loss = checkpoint(model, images(), use_reentrant=False).sum()
    with pytest.raises(CheckpointError):
        loss.backward()
