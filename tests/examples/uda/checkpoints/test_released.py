"""Official checkpoints under our names: every key used or named as dropped."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
import torch
from parity import PARITY_DIR
from released_files import checkpoint
from uda.checkpoints.released import from_released, load_released, read_weights_only, released_settings
from uda.networks.build import build_network

pytest.importorskip("segmentation_models_pytorch")


@cache
def official_keys() -> dict[str, dict[str, tuple[int, ...]]]:
    """Section letter of the key list -> {official key: shape}."""
    sections: dict[str, dict[str, tuple[int, ...]]] = {}
    letter = ""
    for line in (PARITY_DIR / "official_state_dict_keys.txt").read_text().splitlines():
        if line.startswith("# === "):
            letter = line[6]
            sections[letter] = {}
        elif line.strip() and not line.startswith("#"):
            key, shape = line.split("\t")
            sections[letter][key] = ast.literal_eval(shape)
    return sections


@pytest.mark.parametrize(("section", "hrda"), [("A", True), ("B", False)])
def test_every_key_of_a_released_checkpoint_has_its_place(
    section: str, hrda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segmentation_models_pytorch.encoders import mix_transformer

    monkeypatch.setattr(mix_transformer, "trunc_normal_", lambda tensor, std: tensor)  # seconds, for names alone
    keys = official_keys()[section]
    if section == "B":  # the list gives the decoder alone; the encoder is that of A
        keys = {**{key: shape for key, shape in official_keys()["A"].items() if key.startswith("backbone.")}, **keys}
    network = build_network("mit_b5", hrda=hrda)
    state = from_released({f"model.{key}": torch.empty(shape, device="meta") for key, shape in keys.items()})
    assert len(state) == len(keys)
    own = network.state_dict()
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in own.items()}


def test_resnet_v1c_is_refused_with_the_reason() -> None:
    state = {f"model.{key}": torch.empty(0) for key in official_keys()["C"]}
    with pytest.raises(ValueError, match=r"ResNetV1c.*stem"):
        from_released(state)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_student_and_teacher(prefix: str) -> None:
    network = build_network("mit_b0", num_classes=5, hrda=True, embed_dim=16)
    saved = {prefix + key: value for key, value in checkpoint(network).items()}
    for offset, which in enumerate(("student", "teacher")):
        target = build_network("mit_b0", num_classes=5, hrda=True, embed_dim=16)
        load_released(target, saved, which)
        expected = network.decoder.head.classify.weight + offset
        assert torch.equal(target.decoder.head.classify.weight, expected)


def test_a_bare_model_needs_no_prefix() -> None:
    network = build_network("mit_b0", num_classes=5, embed_dim=16)
    saved = checkpoint(network)
    bare = {key.removeprefix("model."): value for key, value in saved.items() if key.startswith("model.")}
    target = build_network("mit_b0", num_classes=5, embed_dim=16)
    load_released(target, bare)
    for key, value in target.state_dict().items():
        assert torch.equal(value, network.state_dict()[key]), key


@pytest.mark.parametrize("hrda", [False, True])
def test_a_file_says_which_network_it_needs(tmp_path: Path, hrda: bool) -> None:
    network = build_network("mit_b0", num_classes=7, hrda=hrda, embed_dim=16, attention_dim=8)
    torch.save({"meta": {"iter": 40000, "config": "text"}, "state_dict": checkpoint(network)}, tmp_path / "iter.pth")
    saved = read_weights_only(tmp_path / "iter.pth")["state_dict"]
    target = build_network(**released_settings(saved, "teacher"))
    load_released(target, saved, "teacher")
    assert type(target) is type(network)
    for key, value in target.state_dict().items():
        assert torch.equal(value, network.state_dict()[key] + 1), key


@pytest.mark.parametrize(("section", "hrda"), [("A", True), ("B", False)])
def test_settings_of_released_checkpoints(section: str, hrda: bool) -> None:
    keys = {**official_keys()["A"], **official_keys()[section]}
    if not hrda:
        keys = {
            key: shape for key, shape in keys.items() if not key.startswith(("decode_head.head", "decode_head.scale"))
        }
    settings = released_settings({key: torch.empty(shape, device="meta") for key, shape in keys.items()})
    expected = {"encoder": "mit_b5", "decoder": "daformer", "num_classes": 19, "embed_dim": 256, "hrda": hrda}
    assert settings == expected | ({"attention_dim": 256} if hrda else {})


def test_wrong_input() -> None:
    network = build_network("mit_b0", num_classes=5, embed_dim=16)
    saved = checkpoint(network)
    only_student = {key: value for key, value in saved.items() if key.startswith("model.")}
    with pytest.raises(ValueError, match=r"'ema_model\.' for the teacher"):
        from_released(only_student, "teacher")
    with pytest.raises(ValueError, match=r"MiT encoder.*blocks \[0, 0, 0, 0\]"):
        released_settings({"backbone.layer1.0.conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"got \['neck\.weight'\]"):
        from_released({**only_student, "model.neck.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"size mismatch for decoder\.classify\.weight: .*\[5, 16.*\[7, 16"):
        load_released(build_network("mit_b0", num_classes=7, embed_dim=16), saved)
    short = {key: value for key, value in saved.items() if "conv_seg.bias" not in key}
    with pytest.raises(ValueError, match=r"does not fit the network: Missing.*decoder\.classify\.bias"):
        load_released(network, short)
