import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from toy import CHANNELS, CLASSES, ToyModel, images, labels, learn, small_mrm

from mrm_loss import weighted_cross_entropy


def closed_form(logits, target, weights, reduction):
    """Pixel by pixel, as the definition reads."""
    total, norm = 0.0, 0.0
    b, _, h, w = logits.shape
    weights = torch.as_tensor(weights, dtype=torch.float64).expand(b, h, w)
    for i, y, x in itertools.product(range(b), range(h), range(w)):
        if target[i, y, x] == 255:
            continue
        scores = logits[i, :, y, x].tolist()
        log_sum = math.log(sum(math.exp(s) for s in scores))
        total += weights[i, y, x].item() * (log_sum - scores[target[i, y, x]])
        norm += weights[i, y, x].item()
    return total / (b * h * w if reduction == "mean" else (norm or 1.0))


# ------------------------------------------------------------------------------------------------- cross-entropy


@pytest.mark.parametrize("reduction", ["mean", "valid"])
@pytest.mark.parametrize("ignored", ["none", "some", "all"])
@pytest.mark.parametrize(
    "weighting", ["one", "number", "scalar tensor", "per image", "per pixel", "with channel", "zero", "nan ignored"]
)
def test_closed_form(reduction, ignored, weighting):
    logits = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    target = torch.randint(4, (2, 5, 6))
    if ignored == "some":
        target[torch.rand(2, 5, 6) < 0.3] = 255
    elif ignored == "all":
        target[:] = 255
    per_pixel = torch.rand(2, 5, 6, dtype=torch.float64)
    weights = {
        "one": 1.0,
        "number": 0.3,
        "scalar tensor": torch.tensor(0.3),
        "per image": torch.tensor([[[0.2]], [[1.7]]], dtype=torch.float64),
        "per pixel": per_pixel,
        "with channel": per_pixel[:, None],
        "zero": 0.0,
        "nan ignored": torch.where(target == 255, torch.nan, per_pixel),
    }[weighting]
    found = weighted_cross_entropy(logits.requires_grad_(), target, weights, reduction=reduction)
    by_pixel = weights[:, 0] if weighting == "with channel" else weights
    expected = closed_form(logits.detach(), target, by_pixel, reduction)
    assert found.item() == pytest.approx(expected, rel=1e-6 if weighting == "scalar tensor" else 1e-12)
    found.backward()
    assert torch.isfinite(logits.grad).all()
    if ignored == "all" or weighting == "zero":
        assert found.item() == 0
        assert not logits.grad.any()


def test_gradcheck():
    target = torch.randint(3, (2, 3, 3))
    target[0, 0] = 255
    weights = torch.rand(2, 3, 3, dtype=torch.float64)
    logits = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    for reduction in ("mean", "valid"):
        torch.autograd.gradcheck(
            lambda x, how=reduction: weighted_cross_entropy(x, target, weights, reduction=how), logits
        )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integer_type(dtype):
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(3, (1, 4, 4))
    assert weighted_cross_entropy(logits, target.to(dtype)[:, None]) == weighted_cross_entropy(logits, target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(dtype):
    logits, target = torch.randn(1, 3, 4, 4).to(dtype), torch.randint(3, (1, 4, 4))
    loss = weighted_cross_entropy(logits, target)
    assert loss.dtype == torch.float32
    assert loss == weighted_cross_entropy(logits.float(), target)


# ------------------------------------------------------------------------------------------------------------ MRM


@pytest.mark.parametrize("reduction", ["mean", "valid"])
@pytest.mark.parametrize("shape", [(2, 32, 32), (2, 1, 32, 32), (2, 19, 45)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_loss_is_the_cross_entropy_of_what_is_decoded(reduction, shape, dtype):
    model = ToyModel().eval()
    mrm = small_mrm(loss_weight=0.7, reduction=reduction)
    feats = model.encoder(images())
    target = torch.randint(CLASSES, shape).to(dtype)
    target[..., :3] = 255
    weights = torch.rand(shape)
    rebuilt, mask = mrm.rebuild(feats)
    size = shape[-2:]
    logits = F.interpolate(model.decoder(rebuilt), size, mode="bilinear", align_corners=False)
    expected = closed_form(logits, target.view(2, *size), weights.view(2, *size), reduction)
    assert mrm(feats, model.decoder, target, weights, mask=mask).item() == pytest.approx(0.7 * expected, rel=1e-5)


def test_both_call_forms():
    model = ToyModel()
    mask = torch.rand(2, 1, 4, 4) < 0.4
    feats, y = model.encoder(images()), labels()
    given_now = small_mrm()
    given_before = small_mrm(CHANNELS, model.decoder)
    given_before.load_state_dict(given_now.state_dict())
    expected = given_now(feats, model.decoder, y, mask=mask)
    assert torch.equal(given_before(feats, pseudo_labels=y, mask=mask), expected)
    assert torch.equal(given_before(feats, None, y, mask=mask), expected)
    other = ToyModel().decoder
    assert torch.equal(given_before(feats, other, y, mask=mask), given_now(feats, other, y, mask=mask))


@pytest.mark.parametrize("reduction", ["mean", "valid"])
def test_one_logit_becomes_binary_cross_entropy(reduction):
    """Zeros beside the logit: the softmax over both is its sigmoid, the cross-entropy that of BCE with logits."""
    model, head = ToyModel().double().eval(), torch.nn.Conv2d(CLASSES, 1, 1).double()
    mrm = small_mrm(reduction=reduction).double()

    def decode(feats):
        logit = head(model.decoder(feats))
        return torch.cat([torch.zeros_like(logit), logit], dim=1)

    feats = model.encoder(images().double())
    foreground, weights = torch.randint(2, (2, 32, 32)), torch.rand(2, 32, 32).double()
    foreground[:, :5] = 255
    rebuilt, mask = mrm.rebuild(feats)
    logit = F.interpolate(head(model.decoder(rebuilt)), (32, 32), mode="bilinear", align_corners=False)[:, 0]
    weights = weights * (foreground != 255)
    bce = F.binary_cross_entropy_with_logits(logit, foreground.clamp(max=1).double(), weights, reduction="sum")
    expected = bce / (weights.sum() if reduction == "valid" else weights.numel())
    torch.testing.assert_close(mrm(feats, decode, foreground, weights, mask=mask), expected, rtol=1e-12, atol=0)


def test_a_loss_of_ones_own_on_rebuilt_features():
    """Depth, say: what `rebuild` returns carries gradients to encoder, head and Rebuilder."""
    model, mrm, head = ToyModel().eval(), small_mrm(), torch.nn.Conv2d(CLASSES, 1, 1)
    rebuilt, _ = mrm.rebuild(model.encoder(images()))
    F.l1_loss(head(model.decoder(rebuilt)), torch.rand(2, 1, 16, 16)).backward()
    parameters = [*model.named_parameters(), *head.named_parameters(), *mrm.named_parameters()]
    assert [name for name, p in parameters if p.grad is None or not p.grad.any()] == []


def test_gradients_reach_encoder_decoder_and_rebuilder():
    model, mrm = ToyModel(), small_mrm()
    mrm(model.encoder(images()), model.decoder, labels()).backward()
    for name, p in [*model.named_parameters(), *mrm.named_parameters()]:
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
    # a bias before BatchNorm, or before LayerNorm over one direction, may have none
    assert all(p.grad.any() for p in mrm.parameters())
    assert all(p.grad.any() for name, p in model.named_parameters() if name.endswith("weight"))


@pytest.mark.parametrize("reduction", ["mean", "valid"])
@pytest.mark.parametrize("how", ["ignored", "zero weights", "share of nothing"])
def test_nothing_counts(reduction, how):
    model, mrm = ToyModel(), small_mrm(reduction=reduction)
    y = labels() if how == "zero weights" else torch.full((2, 32, 32), 255)
    weights = {"ignored": None, "zero weights": torch.zeros(2, 1, 1), "share of nothing": torch.rand(0).mean()}[how]
    loss = mrm(model.encoder(images()), model.decoder, y, weights)
    assert loss.item() == 0
    loss.backward()
    for p in [*model.parameters(), *mrm.parameters()]:
        assert p.grad is not None
        assert not p.grad.any()


@pytest.mark.parametrize("reduction", ["mean", "valid"])
def test_no_images(reduction):
    logits, nothing = torch.zeros(0, 3, 8, 8), torch.zeros(0, 8, 8, dtype=torch.long)
    assert weighted_cross_entropy(logits, nothing, reduction=reduction).item() == 0


def test_nan_weights_where_ignored_change_nothing():
    model, mrm = ToyModel().eval(), small_mrm()
    feats, y, weights = model.encoder(images()), labels(), torch.rand(2, 32, 32)
    y[:, 5:9] = 255
    mask = torch.rand(2, 1, 4, 4) < 0.4
    expected = mrm(feats, model.decoder, y, weights, mask=mask)
    weights[:, 5:9] = torch.nan
    assert torch.equal(mrm(feats, model.decoder, y, weights, mask=mask), expected)


def test_nan_rebuilt_where_visible_changes_nothing():
    model, mrm = ToyModel().eval(), small_mrm()
    feats, y = model.encoder(images()), labels()
    mask = torch.rand(2, 1, 4, 4) < 0.4
    expected = mrm(feats, model.decoder, y, mask=mask)

    def poison(module, args, out):
        masked = F.interpolate(mask.float(), out.shape[-2:], mode="nearest").bool()
        return torch.where(masked, out, torch.nan)

    for project in mrm.rebuilder.projectors:
        project.register_forward_hook(poison)
    assert torch.equal(mrm(feats, model.decoder, y, mask=mask), expected)


@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    label_height=st.integers(1, 60),
    label_width=st.integers(1, 60),
    ratio=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
@pytest.mark.filterwarnings("ignore:feats. the last level")
def test_any_size_gives_a_finite_loss(batch, height, width, label_height, label_width, ratio, seed):
    torch.manual_seed(seed)
    model, mrm = ToyModel().eval(), small_mrm(mask_ratio=ratio)
    loss = mrm(model.encoder(images(batch, (height, width))), model.decoder, labels(batch, (label_height, label_width)))
    assert torch.isfinite(loss)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_loss_can_be_learnt():
    torch.manual_seed(0)
    model, mrm = ToyModel(), small_mrm()
    x = images(4)
    y = (x[:, 0] > 0).long() + 2 * (torch.arange(32) > 15).long()  # local content and position
    losses = learn(model, mrm, x, y, steps=60, lr=3e-3)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
