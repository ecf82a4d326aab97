"""Every field of the settings refuses what lies outside its range, in one line, before anything is read."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, get_args, get_type_hints

import pytest
import torch
from uda.settings import Settings, parse
from uda.settings.checks import is_optional, option

HINTS = get_type_hints(Settings)
FIELDS = dataclasses.fields(Settings)


def just_outside(field: Any) -> list[Any]:
    """The nearest values beyond each limit of a number; for the first entry of a tuple."""
    limits, kind = field.metadata, HINTS[field.name]
    kind = get_args(kind)[0] if is_optional(kind) else kind
    step = 1e-9 if kind is float else 1
    wrong = [limits[name] + sign * step for name, sign in (("low", -1), ("high", 1)) if limits[name] is not None]
    wrong += [limits[name] for name in ("above", "below") if limits[name] is not None]
    rest = (limits["low"],) * (len(limits["names"]) - 1)
    return [(value, *rest) for value in wrong] if limits["names"] else wrong


def of_wrong_type(field: Any) -> list[Any]:
    kind = HINTS[field.name]
    kind = get_args(kind)[0] if is_optional(kind) else kind
    if kind is bool:
        return [1, "yes"]
    if kind is str:
        return [3, ["a"], *(["nope"] if field.metadata["choices"] else [])]
    if kind is float:
        return ["much", True, float("nan"), float("inf"), None]
    return ["much", True, 1.5, None] if kind is int else [3, (8,), (8, 8, 8, 8, 8), (8.5,) * len(get_args(kind))]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_refused_where_it_is_constructed(field):
    for value in [*just_outside(field), *of_wrong_type(field)]:
        with pytest.raises(ValueError, match=f"^{option(field.name)}: expected .*, got ") as refused:
            Settings(**{field.name: value})
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_the_command_line_says_the_same(field, monkeypatch, capsys):
    count = len(field.metadata["names"])
    wrong = [list(value) if count else [value] for value in just_outside(field)]
    if HINTS[field.name] is bool:
        return
    if count or HINTS[field.name] is not str or field.metadata["choices"]:
        wrong.append(["much"] * max(count, 1))
    for values in wrong:
        words = [f"{value:.12g}" if isinstance(value, float) else str(value) for value in values]
        monkeypatch.setattr(sys, "argv", ["train.py", option(field.name), *words])
        with pytest.raises(SystemExit) as refused:
            parse(None)
        printed = capsys.readouterr()
        assert refused.value.code == 2
        assert printed.err.count("\n") == 1 and printed.out == ""
        assert option(field.name) in printed.err


def test_every_number_has_a_range():
    for field in FIELDS:
        kind = HINTS[field.name]
        kind = get_args(kind)[0] if is_optional(kind) else kind
        if kind not in (bool, str):
            assert field.metadata["low"] is not None or field.metadata["above"] is not None, field.name


def test_the_limits_themselves_pass():
    for field in FIELDS:
        for value in (field.metadata["low"], field.metadata["high"]):
            if value is not None and not field.metadata["names"]:
                assert getattr(Settings(**{field.name: value}), field.name) == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--encoder nope", "--encoder: expected small, or a name of segmentation_models_pytorch"),
        (
            "--encoder resnet101",
            "--decoder: expected one of daformer, deeplabv2, deeplabv3plus, light with",
        ),
        ("--decoder daformer", "--decoder: expected small with --encoder small, got 'daformer'"),
        ("--encoder mit_b5 --decoder deeplabv2", "which cannot be dilated"),
        ("--source gta5:/nonexistent", "--target: expected LAYOUT:PATH beside --source, got none"),
        ("--target cityscapes:/nonexistent", "--source: expected LAYOUT:PATH beside --target, got none"),
        ("--device gpu", "--device: invalid choice: 'gpu'"),
        ("--encoder-weights /nonexistent", "--encoder-weights: expected a file, found none at /nonexistent"),
        ("--init /nonexistent", "--init: expected a file, found none at /nonexistent"),
        ("--mrm-width 66", "--mrm-width: expected a multiple of 4 and of --mrm-heads 4, got 66"),
        ("--mrm-block-size 25", "--mrm-block-size: expected at most 24 cells of --mrm-grid, got 25"),
        ("--hrda --crop 100 192", "--crop: expected multiples of 8 pixels with --hrda, got 100 192"),
        ("--hrda --detail-crop 192", "--detail-crop: expected at most the shorter side of --crop 96 192, got 192"),
        ("--method daformer --fd-weight 0.005", "--fd-weight: expected --encoder-weights, ImageNet's"),
        (
            "--preset paper --method daformer --encoder small_vit --decoder light",
            "--fd-weight: the cells of small_vit are no whole number of pixels",
        ),
        ("--sync-batchnorm --device cpu", "--sync-batchnorm: PyTorch has it on NVIDIA's GPUs alone, got --device cpu"),
        ("--eval-window 31", "--eval-window: expected 0 for whole images, or at least 32 pixels, got 31"),
        ("--margins 50 46 0 0", "--margins: expected less than --crop 96 192, got 50 46 0 0"),
        ("--margins 0 0 100 92", "--margins: expected less than --crop 96 192, got 0 0 100 92"),
        (
            "--margins 0 0 100 92 --margins-of-image --target-size 96 192",
            "--margins: expected less than --target-size 96 192, got 0 0 100 92",
        ),
        (
            "--encoder resnet18 --decoder deeplabv3plus --batch-size 1",
            "--batch-size: expected at least 2 images with --decoder deeplabv3plus, got 1",
        ),
        ("--lr 0", "--lr: expected a number above 0 where there are steps of pretraining"),
        (f"--encoder-weights {__file__}", "--encoder-weights: small starts from random ones; leave them out"),
        ("--crop 96", "--crop: expected 2 arguments"),
        ("--nope", "unrecognized arguments: --nope"),
    ],
)
def test_contradictions(monkeypatch, capsys, words, message):
    if "encoder" in words and "/" not in words:
        pytest.importorskip("segmentation_models_pytorch")
    monkeypatch.setattr(sys, "argv", ["train.py", *words.split()])
    with pytest.raises(SystemExit):
        parse(None)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_an_older_torch_does_not_compile_runs(monkeypatch, capsys):
    monkeypatch.delattr(torch.compiler, "set_stance", raising=False)
    monkeypatch.setattr(sys, "argv", ["train.py", "--compile"])
    with pytest.raises(SystemExit):
        parse(None)
    assert "--compile: expected torch 2.6 or later, got " in capsys.readouterr().err


def test_what_fits_passes(monkeypatch):
    for words in (
        "--margins 50 45 0 0",
        "--margins 100 100 0 0 --margins-of-image",  # images of any size
        "--margins 100 80 0 0 --margins-of-image --target-size 96 192",  # tall images may have as many rows
        "--margins 100 100 0 0 --method source-only",
        "--eval-window 32",
    ):
        monkeypatch.setattr(sys, "argv", ["train.py", *words.split()])
        parse(None)
