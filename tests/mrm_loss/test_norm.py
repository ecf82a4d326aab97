import copy

import pytest
import torch
from torch import nn
from toy import ToyModel, images

from mrm_loss import frozen_norm_stats


def test_normalises_with_batch_statistics_and_records_none():
    model = ToyModel()
    model(images())  # statistics of their own
    twin = copy.deepcopy(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = images()
    with frozen_norm_stats(model):
        out = model(x)
    torch.testing.assert_close(out, twin(x), rtol=0, atol=0)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    model(x)
    for key, value in twin.state_dict().items():  # records again
        assert torch.equal(value, model.state_dict()[key]), key


def test_gradients_flow_through_two_passes():
    model = ToyModel()
    x = images()
    loss = model(x).square().mean()
    with frozen_norm_stats(model.encoder, model.decoder):
        loss = loss + model(x).abs().mean()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_only_the_modules_that_are_named():
    model = ToyModel()
    with frozen_norm_stats(model.decoder):
        model(images())
    assert model.encoder.stages[0][1].num_batches_tracked == 1
    assert model.decoder.norm.num_batches_tracked == 0


def test_eval_mode_and_other_settings_are_untouched():
    model = ToyModel().eval()
    untracked = nn.BatchNorm2d(3, track_running_stats=False)
    x = images()
    expected = model(x)
    with frozen_norm_stats(model, untracked, model):
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
        with frozen_norm_stats(model):  # nested
            pass
        assert not model.decoder.norm.track_running_stats
    assert model.decoder.norm.track_running_stats
    assert not untracked.track_running_stats


def test_an_exception_restores():
    model = ToyModel()
    with pytest.raises(RuntimeError), frozen_norm_stats(model):
        raise RuntimeError
    assert model.decoder.norm.track_running_stats


def test_not_a_module():
    with pytest.raises(TypeError, match="expected modules, got an object of type list"):
        frozen_norm_stats([ToyModel()]).__enter__()
