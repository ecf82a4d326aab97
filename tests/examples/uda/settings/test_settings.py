"""Presets, and what the command line refuses."""

from __future__ import annotations

import pytest
from uda.settings import METHODS, Settings, parse, preset_values

DACS = ("dacs", "source-only")


def parsed(monkeypatch, *words, methods=("mic", "hrda", "daformer", "dacs", "source-only"), **options) -> Settings:
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    return parse(None, methods, **options)


@pytest.mark.parametrize("preset", ["small", "paper"])
@pytest.mark.parametrize("method", METHODS)
def test_presets_are_settings(preset, method):
    settings = Settings(**preset_values(preset, method), method=method, preset=preset)
    assert settings.hrda == (method in (("hrda", "mic") if preset == "paper" else ("hrda",)))


def test_one_resolution_brings_daformers_data(monkeypatch):
    settings = parsed(monkeypatch, "--preset", "paper", "--no-hrda")
    assert not settings.hrda
    assert settings.crop == (512, 512)
    assert settings.source_size == (720, 1280)
    assert (settings.margins, settings.margins_of_image) == ((15, 120, 0, 0), False)
    assert (settings.rare_min_crop_ratio, settings.eval_window, settings.mic_block_size) == (0.5, 0, 32)
    two = parsed(monkeypatch, "--preset", "paper")
    assert (two.crop, two.eval_window, two.mic_block_size) == ((1024, 1024), 1024, 64)


def test_blocks_of_a_1024_crop_are_mics():
    """Pyramids in VFM-UDA's trainer get them in place of hidden patches."""
    values = preset_values("paper", "vfm")
    assert (values["crop"], values["mic_block_size"]) == ((1024, 1024), 64)


def test_synthia_has_frames_of_its_own(monkeypatch):
    words = ["--preset", "paper", "--source", "synthia:there", "--target", "cityscapes:here"]
    assert parsed(monkeypatch, *words).source_size == (1520, 2560)
    assert parsed(monkeypatch, *words, "--method", "daformer").source_size == (760, 1280)
    assert parsed(monkeypatch, *words, "--source-size", "700", "1200").source_size == (700, 1200)


def test_the_lower_bound_of_dacs_has_its_network(monkeypatch):
    words = ["--preset", "paper", "--method", "source-only"]
    dacs = parsed(monkeypatch, *words, methods=DACS, mrm_on=("target",))
    assert (dacs.encoder, dacs.optimizer, dacs.method) == ("resnet101", "sgd", "source-only")
    assert parsed(monkeypatch, *words).encoder == "mit_b5"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--mrm-on masked --method hrda", "only MIC has masked images; give --method mic"),
        ("--method dacs --fd-weight 0.005", "dacs has no feature distance"),
        ("--iterations 9 --mrm-every 10", "--mrm-every: expected at most the 9 of --iterations, got 10"),
    ],
)
def test_contradictions(monkeypatch, capsys, words, message):
    with pytest.raises(SystemExit):
        parsed(monkeypatch, *words.split())
    assert message in capsys.readouterr().err


def test_the_dacs_trainer_sends_to_the_other(monkeypatch, capsys, tmp_path):
    (tmp_path / "settings.json").write_text(Settings(method="mic").text())
    for words in (["--resume", str(tmp_path)], ["--hrda"]):
        with pytest.raises(SystemExit):
            parsed(monkeypatch, *words, methods=DACS, mrm_on=("target", "source", "both"))
        assert "use train_mic_mrm.py" in capsys.readouterr().err


def test_vfm_uda(monkeypatch):
    words = ["--preset", "paper"]
    vfm = parsed(monkeypatch, *words, methods=("vfm", "source-only"), mrm_on=("target",))
    assert (vfm.method, vfm.hrda, vfm.decoder, vfm.crop, vfm.batch_size) == ("vfm", False, "light", (1024, 1024), 8)
    assert vfm.lr * vfm.head_lr_factor == pytest.approx(5e-5 * 8**0.5)
    assert (vfm.fd_weight, vfm.mic_mask_ratio, vfm.mrm_grid, vfm.mrm_lr) == (0.0, 0.7, (16, 16), 2e-4)
    lower = parsed(monkeypatch, *words, "--method", "source-only", methods=("vfm", "source-only"), mrm_on=("target",))
    assert (lower.encoder, lower.warmup_apart) == (vfm.encoder, True)
    assert (
        parsed(
            monkeypatch, *words, "--encoder", "small_vit", "--decoder", "light", "--no-hrda", "--fd-weight", "0"
        ).method
        == "mic"
    )
