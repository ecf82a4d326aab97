"""What must hold for any segmentation network that MRM is used with."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrm_loss import MRM, frozen_norm_stats

NUM_CLASSES = 5
SMALL = {"embed_dim": 64, "num_heads": 4, "grid_size": 4}


@dataclass
class Case:
    """A network and the lines that connect MRM to it."""

    model: nn.Module
    encoder: nn.Module
    decoder: nn.Module
    encode: Callable[[Tensor], Any]
    decode: Callable[[Any], Tensor]
    forward: Callable[[Tensor], Tensor]  # the network's own, images -> logits
    encoder_channels: int | Sequence[int | None]
    scale_factors: Sequence[int | None] | None = None
    image_size: int = 128
    options: dict[str, Any] = field(default_factory=lambda: dict(SMALL))

    def mrm(self) -> MRM:
        return MRM(self.encoder_channels, scale_factors=self.scale_factors, **self.options)

    def images(self) -> Tensor:
        # two: in train mode BatchNorm after a global pooling needs more than one value per channel
        return torch.randn(2, 3, self.image_size, self.image_size)

    def labels(self) -> Tensor:
        labels = torch.randint(NUM_CLASSES, (2, self.image_size, self.image_size))
        labels[:, :4] = 255
        return labels

    def loss(self, mrm: MRM, feats: Any) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # used as the README says, nothing warns
            return mrm(feats, self.decode, self.labels(), torch.rand(2, 1, 1))


def check_wiring(case: Case) -> None:
    """decode(encode(images)) is what the network itself computes."""
    case.model.eval()
    images = case.images()
    expected = case.forward(images)
    logits = F.interpolate(case.decode(case.encode(images)), expected.shape[-2:], mode="bilinear")
    assert torch.equal(logits, expected)


def check_training(case: Case) -> None:
    """The loss is finite and reaches all that a supervised pass reaches, and all of the Rebuilder."""
    case.model.train()
    case.decode(case.encode(case.images())).square().mean().backward()
    supervised = with_gradient(case.model)
    case.model.zero_grad(set_to_none=True)

    mrm, feats = case.mrm(), case.encode(case.images())
    loss = case.loss(mrm, feats)
    loss.backward()

    assert loss.isfinite()
    assert loss > 0
    assert with_gradient(case.model) == supervised
    for module in (case.encoder, case.decoder, mrm):
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients)
    # DistributedDataParallel waits for every parameter
    assert with_gradient(mrm) == {name for name, _ in mrm.named_parameters()}
    assert all(parameter.grad.any() for parameter in mrm.parameters())


def check_levels(case: Case) -> None:
    """Each rebuilt level gets a gradient of its own, not only through the coarser ones that are made from it."""
    case.model.eval()
    feats, mrm = case.encode(case.images()), case.mrm()
    cut = [level.detach().requires_grad_() for level in levels(feats)]
    case.loss(mrm, cut[0] if isinstance(feats, Tensor) else cut).backward()
    reached = [level.grad is not None and bool(level.grad.any()) for level in cut]
    assert reached == [channels is not None for channels in mrm.rebuilder.encoder_channels]


def check_rebuilt_features(case: Case) -> None:
    """Rebuilt features come as the encoder's do, and bit-identical wherever they are visible."""
    case.model.eval()
    feats, mrm = case.encode(case.images()), case.mrm()
    rebuilt, mask = mrm.rebuild(feats)

    assert type(rebuilt) is type(feats)
    for before, after, channels in zip(levels(feats), levels(rebuilt), mrm.rebuilder.encoder_channels, strict=True):
        if channels is None:
            assert after is before
            continue
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        masked = F.interpolate(mask.float(), before.shape[-2:], mode="nearest").bool()
        assert torch.equal(after.where(~masked, 0), before.where(~masked, 0))
        assert not torch.equal(after, before)


def check_eval_mode(case: Case) -> None:
    """In eval mode state_dict and outputs are bit-identical before and after."""
    case.model.eval()
    images = case.images()
    feats, output = case.encode(images), case.forward(images)
    decoded, state, settings = case.decode(feats), copy_of(case.model), settings_of(case.model)

    case.loss(case.mrm(), feats).backward()

    assert_same_tensors(case.model.state_dict(), state)
    assert settings_of(case.model) == settings
    assert torch.equal(case.decode(feats), decoded)  # nobody wrote to the features either
    assert torch.equal(case.forward(images), output)


def check_train_mode(case: Case) -> None:
    """In train mode all but the gradients and the norms' running statistics is as before."""
    case.model.train()
    frozen = next(case.encoder.parameters()).requires_grad_(False)
    case.encode(case.images())  # a library may put hooks of its own in place at the first call
    mrm = case.mrm()
    own_keys = list(mrm.state_dict())
    state, settings = copy_of(case.model), settings_of(case.model)

    case.loss(mrm, case.encode(case.images())).backward()

    assert list(case.model.state_dict()) == list(state)
    assert_same_tensors(dict(case.model.named_parameters()), {n: state[n] for n, _ in case.model.named_parameters()})
    assert settings_of(case.model) == settings
    assert frozen.grad is None
    assert list(mrm.state_dict()) == own_keys  # the decoder did not become a part of the loss


def check_frozen_norm_stats(case: Case) -> None:
    """Inside frozen_norm_stats the running statistics stay as they were, too."""
    case.model.train()
    state = copy_of(case.model)
    with frozen_norm_stats(case.model):
        case.loss(case.mrm(), case.encode(case.images())).backward()
    assert_same_tensors(case.model.state_dict(), state)


CHECKS = [
    check_wiring,
    check_training,
    check_levels,
    check_rebuilt_features,
    check_eval_mode,
    check_train_mode,
    check_frozen_norm_stats,
]


def levels(feats: Any) -> list[Tensor]:
    return [feats] if isinstance(feats, Tensor) else list(feats)


def with_gradient(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.grad is not None}


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def assert_same_tensors(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []


def settings_of(module: nn.Module) -> dict[str, Any]:
    """What a call could leave changed besides tensors: flags, momentum, hooks, requires_grad."""
    hooks = [name for name in vars(nn.Module()) if name.endswith("_hooks")]
    return {
        "modules": {
            name: (
                type(m),
                m.training,
                getattr(m, "momentum", None),
                getattr(m, "track_running_stats", None),
                [list(getattr(m, hook)) for hook in hooks],
            )
            for name, m in module.named_modules()
        },
        "requires_grad": {name: p.requires_grad for name, p in module.named_parameters()},
    }
