"""evaluate.py and predict.py on a run of a few steps and on a file made like the released ones."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import predict
import pytest
import torch
import train_dacs_mrm
from image_files import write
from PIL import Image
from uda.checkpoints.evaluation import mean_iou, predict_ids
from uda.checkpoints.loading import load_init, load_networks, settings_of
from uda.data.domain import fit, open_domain
from uda.data.labels import CITYSCAPES_COLOURS, CITYSCAPES_NAMES, SYNTHIA13, SYNTHIA16
from uda.networks.backbones import read_weights
from uda.settings import Settings
from uda.training.loop import train
from uda.training.run import Run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory) -> Run:
    """A run to its end, with MRM, whose images are resized."""
    settings = Settings(
        method="dacs",
        source=f"gta5:{scenes[0]}",
        target=f"cityscapes:{scenes[1]}",
        target_size=(40, 80),
        out=str(tmp_path_factory.mktemp("runs") / "run"),
        crop=(40, 80),
        batch_size=1,
        pretrain_iterations=60,  # enough to tell some classes
        iterations=2,
        warmup=0,
        threshold=0.1,
        mrm_grid=(5, 10),
        device="cpu",
    )
    return train(settings, train_dacs_mrm.train_step)


def result_of(run: Run) -> dict[str, Any]:
    return json.loads((run.folder / "result.json").read_text())


def evaluated(run: Run, tmp_path: Path, *words: str) -> dict[str, Any]:
    return evaluate.main([str(run.folder), "--json", str(tmp_path / "evaluation.json"), "--device", "cpu", *words])


def launch(script: str, *words: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(EXAMPLES / script), *words, "--device", "cpu"]
    return subprocess.run(command, env=env, text=True, capture_output=True, timeout=120)


# evaluate.py


def test_a_run_is_reproduced_exactly(run, tmp_path, capsys):
    """From the command line, by folder; and in this process, by file and with the target given."""
    done = launch("evaluate.py", str(run.folder))
    assert done.returncode == 0, done.stderr
    written = json.loads((run.folder / "evaluation.json").read_text())
    target = ["--target", run.settings.target]
    again = evaluate.main([str(run.folder / "checkpoint.pt"), "--json", str(tmp_path / "new" / "a.json"), *target])
    for result in (written, again):
        assert result["miou"] == result_of(run)["miou"]
        assert result["iou"] == result_of(run)["iou"]
        assert (*result["size"],) == (40, 80)
    for text in (done.stdout, capsys.readouterr().out):
        assert f"{result_of(run)['miou']['student']:.2f}" in text
        assert "\nmIoU" in text and " of 19 classes; neither labelled nor predicted: " in text


def test_results_are_written_before_the_table_is_printed(run, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("nobody reads")

    monkeypatch.setattr(evaluate, "iou_table", fail)
    with pytest.raises(OSError, match="nobody reads"):
        evaluated(run, tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text())["images"] == 3


NOT_THE_FILE = {
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "a web page": b"<!DOCTYPE html><html><body>Sign in</body></html>",
}


@pytest.mark.parametrize("what", NOT_THE_FILE)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("released.pth", lambda path: load_networks(path)),
        ("run/checkpoint.pt", lambda path: load_networks(path.parent)),
        ("run/checkpoint.pt", lambda path: load_networks(path)),
        ("init.pth", lambda path: load_init(torch.nn.Linear(1, 1), str(path), [])),
        ("init.ckpt", lambda path: load_init(torch.nn.Linear(1, 1), str(path), [])),
        ("encoder.pth", lambda path: read_weights(path)),
        ("encoder.safetensors", lambda path: read_weights(path)),
    ],
)
def test_a_file_that_is_not_the_file_is_named_as_what_it_is(tmp_path, what, name, read):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(NOT_THE_FILE[what])
    with pytest.raises(ValueError, match=f"{path.name}: .*it is {what}"):
        read(path)


def test_subsets_are_means_over_some_rows_of_the_same_matrix(run, tmp_path):
    iou = result_of(run)["iou"]["student"]
    for name, classes in (("synthia16", SYNTHIA16), ("synthia13", SYNTHIA13)):
        result = evaluated(run, tmp_path, "--classes", name, "--which", "student", "--overwrite")
        kept = [iou[CITYSCAPES_NAMES[k]] for k in classes if CITYSCAPES_NAMES[k] in iou]
        assert result["miou"] == {"student": pytest.approx(np.mean(kept), abs=1e-12)}
        assert len(result["labelled"]) == len(kept) < len(result["classes"]) == len(classes)


def test_mean_over_a_subset_without_labels_is_nan():
    confusion = torch.diag(torch.tensor([3, 0, 5]))
    assert mean_iou(confusion, [0, 1]) == 100
    assert np.isnan(mean_iou(confusion, [1]))


def test_one_window_over_all_is_the_whole_image(run, tmp_path):
    whole = evaluated(run, tmp_path)
    for window in ("80", "1024"):
        assert evaluated(run, tmp_path, "--window", window, "--overwrite")["miou"] == whole["miou"]
    many = evaluated(run, tmp_path, "--window", "24", "--size", "0", "0", "--overwrite")
    assert many["size"] is None
    assert many["miou"] != whole["miou"]


def test_saved_predictions_are_those_that_were_counted(run, tmp_path):
    result = evaluated(run, tmp_path, "--save", str(tmp_path / "pictures"))
    domain = open_domain(run.settings.target, "val", (40, 80))
    assert len(list((tmp_path / "pictures").glob("**/*.png"))) == 2 * 2 * len(domain)
    hits = pixels = 0
    seen: set[int] = set()
    for index, (image, _) in enumerate(domain.samples):
        path = tmp_path / "pictures" / "student" / image.relative_to(domain.root).with_suffix("")
        ids = np.array(Image.open(f"{path}_labelTrainIds.png"))
        truth = domain.labels(index).numpy()
        assert ids.shape == truth.shape == (48, 96)
        assert (np.array(Image.open(f"{path}_colour.png")) == CITYSCAPES_COLOURS[ids]).all()
        seen |= set(ids.flatten().tolist())
        hits += ((ids == 0) & (truth == 0)).sum()
        pixels += (((ids == 0) & (truth != 255)) | (truth == 0)).sum()
    assert len(seen) > 2  # else the tests here would prove little
    assert result["iou"]["student"]["road"] == pytest.approx(100 * hits / pixels)
    with pytest.raises(FileExistsError, match=r"pictures exists; give another --json or --save, or --overwrite"):
        evaluated(run, tmp_path, "--json", str(tmp_path / "b.json"), "--save", str(tmp_path / "pictures"))


def test_results_are_not_overwritten(run, tmp_path):
    evaluated(run, tmp_path, "--which", "teacher")
    with pytest.raises(FileExistsError, match=r"evaluation\.json exists"):
        evaluated(run, tmp_path)


def test_evaluation_needs_labels_of_the_networks_classes(run, scenes, tmp_path):
    write(tmp_path / "own" / "images" / "a.png", np.zeros((8, 8, 3), np.uint8))
    own = ["--target", f"folder:{tmp_path / 'own'}"]
    with pytest.raises(FileNotFoundError, match=r"a\.png.*expected the labels of"):
        evaluated(run, tmp_path, *own)
    labels = write(tmp_path / "own" / "labels" / "a.png", np.zeros((8, 4), np.uint8))
    with pytest.raises(ValueError, match=r"labels/a\.png: expected labels of the image's size \(8, 8\), got \(8, 4\)"):
        evaluated(run, tmp_path, *own)
    write(labels, np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"expected labelled pixels of road, .*, found none"):
        evaluated(run, tmp_path, *own)
    classes = {"classes": [{"name": name, "ids": [k], "colour": [0, 0, 9]} for k, name in enumerate(("sea", "land"))]}
    (tmp_path / "own" / "classes.json").write_text(json.dumps(classes))
    with pytest.raises(ValueError, match=r"expected the network's classes \['road', .*, got \['sea', 'land'\]"):
        evaluated(run, tmp_path, *own)


def test_runs_on_the_embedded_scenes_are_evaluated_on_these(run, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(evaluate, "write_scenes", written.append)
    loaded = load_networks(run.folder)
    assert evaluate.target_of(loaded, "acdc:x") == "acdc:x"
    assert evaluate.target_of(loaded, "") == run.settings.target
    assert not written
    embedded = dataclasses.replace(run.settings, target="", source="", scenes=str(tmp_path))
    assert evaluate.target_of(dataclasses.replace(loaded, settings=embedded), "") == f"cityscapes:{tmp_path}/cityscapes"
    assert written == [tmp_path]


@pytest.mark.slow
def test_two_processes_share_the_images(run, tmp_path):
    out, launcher = tmp_path / "evaluation.json", ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    words = [str(run.folder), "--json", str(out), "--save", str(tmp_path / "pictures")]
    done = launch("evaluate.py", *words, launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nmIoU is over") == 1
    assert json.loads(out.read_text())["miou"] == result_of(run)["miou"]
    assert len(list((tmp_path / "pictures").glob("**/*.png"))) == 2 * 2 * 3


# predict.py


def test_a_folder_is_predicted_as_a_tree(run, tmp_path, capsys):
    """Odd sizes, modes and an upright phone picture; what is no image is left alone, what is broken is named."""
    photos, out = tmp_path / "photos", tmp_path / "photos" / "out"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (33, 50, 3), dtype=np.uint8)
    write(photos / "street.png", pixels)
    write(photos / "deep" / "er" / "grey.png", pixels[..., 0])
    write(photos / "dot.png", pixels[:1, :1])
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    Image.fromarray(pixels).save(photos / "phone.JPG", exif=turned)
    write(photos / ".hidden.png", pixels)
    (photos / "notes.txt").write_text("no image")
    (photos / "broken.png").write_bytes((photos / "street.png").read_bytes()[:500])
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(photos / "deep" / "sixteen.png")
    words = [str(run.folder), str(photos), "--out", str(out), "--overlay", "--device", "cpu"]
    assert predict.main(words) == 2
    printed = capsys.readouterr()
    assert "broken.png: expected an image, could not be read as one" in printed.err
    assert "sixteen.png: expected 8 bits per channel" in printed.err
    assert "4 of 6 images predicted" in printed.out

    sizes = {"street": (33, 50), "deep/er/grey": (33, 50), "dot": (1, 1), "phone": (50, 33)}
    written = sorted(path.relative_to(out).as_posix() for path in out.glob("**/*.png"))
    assert written == sorted(f"{name}_{kind}.png" for name in sizes for kind in ("colour", "labelTrainIds", "overlay"))
    for name, size in sizes.items():
        ids, colour = (Image.open(out / f"{name}_{kind}.png") for kind in ("labelTrainIds", "colour"))
        assert (ids.mode, ids.size[::-1], colour.mode) == ("L", size, "RGB")
        assert (np.array(colour) == CITYSCAPES_COLOURS[np.array(ids)]).all()
    network = load_networks(run.folder).networks["student"]
    image = fit(torch.from_numpy(pixels).permute(2, 0, 1), (40, 80))  # the frame that evaluation takes
    assert image.shape == (3, 40, 61)
    expected = predict_ids(network, image, (33, 50), CPU).numpy()
    assert (np.array(Image.open(out / "street_labelTrainIds.png")) == expected).all()
    overlay = np.array(Image.open(out / "street_overlay.png")).astype(float)
    assert (abs(overlay - (pixels / 2 + CITYSCAPES_COLOURS[expected] / 2)) <= 0.5).all()

    with pytest.raises(FileExistsError, match=r"grey_labelTrainIds\.png and 11 more exist already"):
        predict.main(words)
    assert predict.main([*words, "--overwrite"]) == 2  # its own predictions below the folder are no images of it


def test_predicting_is_evaluating(run, tmp_path):
    """By default predict.py gives the very ids that evaluate.py counts; here from the command line."""
    evaluated(run, tmp_path, "--save", str(tmp_path / "pictures"), "--which", "teacher")
    folder = open_domain(run.settings.target, "val").root / "leftImg8bit" / "val"
    words = ["--which", "teacher"]
    done = launch("predict.py", str(run.folder), str(folder), "--out", str(tmp_path / "out"), *words)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 images predicted" in done.stdout
    counted = tmp_path / "pictures" / "teacher" / "leftImg8bit" / "val"
    found = sorted(counted.glob("**/*.png"))
    assert len(found) == 6
    for path in found:
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to(counted)).read_bytes()


def test_images_keep_their_own_size_where_that_is_asked_for(run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (33, 50, 3), dtype=np.uint8)
    path = write(tmp_path / "street.png", pixels)
    words = [str(run.folder), str(path), "--out", str(tmp_path / "out"), "--size", "0", "0", "--device", "cpu"]
    assert predict.main(words) == 0
    network = load_networks(run.folder).networks["student"]
    expected = predict_ids(network, torch.from_numpy(pixels).permute(2, 0, 1), (33, 50), CPU).numpy()
    assert (np.array(Image.open(tmp_path / "out" / "street_labelTrainIds.png")) == expected).all()
    words[words.index("--size") + 1] = "48"
    with pytest.raises(ValueError, match="--size: expected two sides, or 0 0 for none, got 48 0"):
        predict.main([*words, "--overwrite"])


def test_images_beyond_pillows_guard(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    path = write(tmp_path / "map.png", np.zeros((33, 50, 3), np.uint8))
    words = [str(run.folder), str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert predict.main(words) == 1
    assert "map.png: expected fewer pixels" in capsys.readouterr().err
    assert predict.main([*words, "--max-pixels", "4000"]) == 0


def test_predictions_that_would_collide_are_refused(run, tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    for name in ("a.jpg", "a.png"):
        write(tmp_path / "photos" / name, pixels)
    words = [str(run.folder), str(tmp_path / "photos"), "--out"]
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png would be written to the same files"):
        predict.main([*words, str(tmp_path / "out")])
    with pytest.raises(ValueError, match="--out: expected another folder than that of the images"):
        predict.main([*words, str(tmp_path / "photos")])


def test_nothing_to_predict(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing: expected an image or a folder of images, found neither"):
        predict.main([str(run.folder), str(tmp_path / "nothing"), "--out", str(tmp_path / "out")])
    with pytest.raises(FileNotFoundError, match=r"expected images \(\.png"):
        predict.main([str(run.folder), str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        predict.main([str(run.folder), str(tmp_path), "--out", str(tmp_path / "out"), "--window", "-1"])


# loading


def test_weights_settings_and_classes_of_a_run(run, tmp_path):
    loaded = load_networks(run.folder)
    assert loaded.settings == run.settings
    for name, network in (("student", run.models.network), ("teacher", run.models.teacher)):
        ours, theirs = loaded.networks[name].state_dict(), network.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert not loaded.networks[name].training
    assert load_networks(run.folder, ("teacher",)).networks.keys() == {"teacher"}

    saved = torch.load(run.folder / "checkpoint.pt", weights_only=True)
    names = [f"thing {k}" for k in range(19)]
    torch.save({**saved, "classes": {"names": names, "colours": [[k, 0, 0] for k in range(19)]}}, tmp_path / "own.pt")
    loaded = load_networks(tmp_path / "own.pt")
    assert loaded.names == names
    assert loaded.colours.tolist() == [[k, 0, 0] for k in range(19)]


def test_a_run_without_a_teacher_yet(run, tmp_path):
    saved = torch.load(run.folder / "checkpoint.pt", weights_only=True) | {"step": 1}
    torch.save(saved, tmp_path / "early.pt")
    assert load_networks(tmp_path / "early.pt").networks.keys() == {"student"}
    with pytest.raises(ValueError, match=r"early\.pt: has no teacher: it was saved at step 1 of training on the"):
        load_networks(tmp_path / "early.pt", ("teacher",))


def test_files_that_are_no_checkpoints(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected the folder of a run, found no checkpoint\.pt in it"):
        load_networks(tmp_path)
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(ValueError, match=r"a\.txt: expected a run's folder.*could not be read as a whole file"):
        load_networks(tmp_path / "a.txt")
    torch.save({"weights": torch.zeros(1), "bias": torch.zeros(1)}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"b\.pt: expected .*HRDA, MIC or VFM-UDA, found a dict of weights, bias"):
        load_networks(tmp_path / "b.pt")
    saved = torch.load(run.folder / "checkpoint.pt", weights_only=True)
    del saved["student"]["network.decoder.classify.bias"]
    torch.save(saved, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"c\.pt: the student does not fit .*decoder\.classify\.bias"):
        load_networks(tmp_path / "c.pt")
    saved = torch.load(run.folder / "checkpoint.pt", weights_only=True)
    saved["student"]["network.decoder.classify.bias"][0] = torch.nan  # all would be predicted as one class
    torch.save(saved, tmp_path / "d.pt")
    with pytest.raises(ValueError, match=r"d\.pt: the student .*values that are not finite in decoder\.classify\.bias"):
        load_networks(tmp_path / "d.pt")
    del saved["classes"]
    torch.save(saved, tmp_path / "e.pt")
    with pytest.raises(ValueError, match=r"e\.pt: expected a run's folder.*KeyError: 'classes'"):
        load_networks(tmp_path / "e.pt")
    torch.save([1, 2], tmp_path / "f.pt")
    with pytest.raises(ValueError, match=r"f\.pt: found a list, not tensors by their names"):
        load_init(torch.nn.Linear(1, 1), str(tmp_path / "f.pt"), [])
    with pytest.raises(ValueError, match="settings: expected those of this version, got wings besides"):
        settings_of({"method": "dacs", "wings": 2})
    done = launch("evaluate.py", str(tmp_path / "b.pt"))
    assert (done.returncode, done.stderr[:7], done.stderr.count("\n")) == (1, "error: ", 1)


# released files


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """A DAFormer on MiT-B0 as mmcv saves it; its teacher has other weights."""
    pytest.importorskip("segmentation_models_pytorch")
    from released_files import checkpoint
    from uda.networks.build import build_network

    state = checkpoint(build_network("mit_b0", embed_dim=16))
    path = tmp_path_factory.mktemp("released") / "iter_40000.pth"
    meta = {"iter": 40000, "CLASSES": tuple(CITYSCAPES_NAMES)}
    torch.save({"meta": meta, "state_dict": state, "optimizer": {}}, path)
    return path


def test_a_released_file_is_evaluated_and_predicts(released, scenes, tmp_path, capsys):
    target = ["--target", f"cityscapes:{scenes[1]}", "--size", "64", "128"]
    result = evaluate.main([str(released), *target, "--device", "cpu", "--save", str(tmp_path / "pictures")])
    assert result["miou"].keys() == {"student", "teacher"}
    assert (released.parent / "iter_40000-evaluation.json").exists()
    assert "released checkpoint, student and teacher" in capsys.readouterr().out
    image = open_domain(target[1], "val").samples[0].image
    words = ["--out", str(tmp_path), "--size", "64", "128", "--device", "cpu"]
    assert predict.main([str(released), str(image), *words]) == 0
    name = f"{image.stem}_labelTrainIds.png"
    counted = next((tmp_path / "pictures" / "student").glob(f"**/{name}"))
    assert (np.array(Image.open(tmp_path / name)) == np.array(Image.open(counted))).all()

    write(tmp_path / "dot.png", np.zeros((2, 2, 3), np.uint8))  # less than MiT takes
    own_size = ["--out", str(tmp_path / "out"), "--size", "0", "0"]
    assert predict.main([str(released), str(tmp_path / "dot.png"), *own_size]) == 1
    assert "dot.png: could not be predicted at 2 x 2 pixels" in capsys.readouterr().err


def test_a_file_of_vfm_uda_is_evaluated_and_predicts(scenes, tmp_path, capsys):
    pytest.importorskip("timm", minversion="1.0.20")
    from released_files import vfm_checkpoint
    from uda.networks.build import build_network

    torch.manual_seed(0)
    file = tmp_path / "step40000.ckpt"
    torch.save({"state_dict": vfm_checkpoint(build_network("vit_small_patch14_dinov2", "light", 19))}, file)
    options = ["--size", "64", "128", "--window", "64", "--device", "cpu"]
    target = f"cityscapes:{scenes[1]}"
    result = evaluate.main([str(file), "--target", target, *options, "--save", str(tmp_path / "pictures")])
    assert result["miou"].keys() == {"student", "teacher"}
    assert "released checkpoint, student and teacher\n" in capsys.readouterr().out
    image = open_domain(target, "val").samples[0].image
    assert predict.main([str(file), str(image), "--out", str(tmp_path), *options]) == 0
    name = f"{image.stem}_labelTrainIds.png"
    counted = next((tmp_path / "pictures" / "student").glob(f"**/{name}"))
    assert (np.array(Image.open(tmp_path / name)) == np.array(Image.open(counted))).all()


def test_defaults_and_errors_of_released_files(released, tmp_path):
    from uda.networks.build import build_network

    loaded = load_networks(released)
    assert (loaded.size, loaded.window, loaded.names) == ((512, 1024), 0, CITYSCAPES_NAMES)
    with pytest.raises(ValueError, match=r"released files bring no target along; give --target LAYOUT:PATH"):
        evaluate.main([str(released)])
    state = torch.load(released, weights_only=True)["state_dict"]
    student = {key: value for key, value in state.items() if key.startswith("model.")}
    torch.save({"state_dict": student}, tmp_path / "student.pth")
    assert load_networks(tmp_path / "student.pth").networks.keys() == {"student"}
    with pytest.raises(ValueError, match=r"student\.pth: expected keys that start with 'ema_model\.'"):
        load_networks(tmp_path / "student.pth", ("teacher",))
    short = {key: value for key, value in student.items() if not key.endswith("conv_seg.bias")}
    torch.save({"state_dict": short}, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"short\.pth: state_dict does not fit .*Missing.*classify\.bias"):
        load_networks(tmp_path / "short.pth")
    network = build_network("mit_b0", embed_dim=16)
    for other in (CITYSCAPES_NAMES[::-1], CITYSCAPES_NAMES[:16]):  # 19 ids that mean something else, and fewer
        torch.save({"meta": {"CLASSES": tuple(other)}, "state_dict": student}, tmp_path / "other.pth")
        with pytest.raises(
            ValueError, match=r"other\.pth: expected a network of Cityscapes' classes \['road', .*got \["
        ):
            load_networks(tmp_path / "other.pth")
        with pytest.raises(
            ValueError, match=r"other\.pth: expected a network of the data's classes \['road', .*got \["
        ):
            load_init(network, str(tmp_path / "other.pth"), CITYSCAPES_NAMES)
        load_init(network, str(tmp_path / "other.pth"), other)  # the data's, in this order


def test_released_hrda_slides_by_default(tmp_path):
    pytest.importorskip("segmentation_models_pytorch")
    from released_files import checkpoint
    from uda.networks.build import build_network
    from uda.networks.hrda import HRDA

    torch.save(checkpoint(build_network("mit_b0", hrda=True, embed_dim=8)), tmp_path / "hrda.pth")
    loaded = load_networks(tmp_path / "hrda.pth", ("student",))
    assert isinstance(loaded.networks["student"], HRDA)
    assert (loaded.size, loaded.window) == ((1024, 2048), 1024)
    torch.save(checkpoint(build_network("mit_b0", num_classes=5, embed_dim=8)), tmp_path / "five.pth")
    with pytest.raises(ValueError, match=r"five\.pth: expected a network of Cityscapes' 19 classes, got 5"):
        load_networks(tmp_path / "five.pth")
