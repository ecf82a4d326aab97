"""The trainers as a whole: what they write, what they share between arms, stopping and going on."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import train_dacs_mrm
import train_mic_mrm
import train_vfm_mrm
from short_runs import losses, metrics
from uda.checkpoints import evaluation
from uda.checkpoints.loading import load_networks
from uda.data.domain import open_domain
from uda.runtime.interrupts import Interrupts
from uda.settings import load_settings
from uda.training.loop import telling_how_to_go_on, train
from uda.training.run import Run, batches_of, one_step

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def flags(settings, **changes) -> list[str]:
    """The command line of settings."""
    words = []
    for key, value in {**dataclasses.asdict(settings), **changes}.items():
        name = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif value not in ("", None):
            words += [f"--{name}", *map(str, value if isinstance(value, (list, tuple)) else [value])]
    return words


def launch(*words: str, **options) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(words, env=env, text=True, capture_output=True, timeout=240, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "method", "names"),
    [
        ("train_dacs_mrm.py", "dacs", {"source", "mixed", "trust", "mrm"}),
        ("train_dacs_mrm.py", "source-only", {"source"}),
        ("train_mic_mrm.py", "mic", {"source", "mixed", "trust", "masked", "mrm"}),
        ("train_mic_mrm.py", "hrda", {"source", "mixed", "trust", "mrm"}),
    ],
)
def test_scripts_run_to_the_end(settings, script, method, names):
    changes = {"hrda": True, "detail_crop": 24, "mrm_grid": (3, 6)} if method == "hrda" else {}
    done = launch(sys.executable, str(EXAMPLES / script), *flags(settings, method=method, **changes))
    assert done.returncode == 0, done.stderr
    folder = Path(settings.out)
    for name in ("settings.json", "metrics.jsonl", "result.json", "checkpoint.pt", "curves.png", "panel.png"):
        assert (folder / name).stat().st_size > 0
    rows = metrics(folder)
    assert {"step", *names} == set(next(row for row in rows if row["step"] == 6))
    expected = {"miou_student"} if method == "source-only" else {"miou_student", "miou_teacher"}
    assert {name for name in rows[-1] if "miou" in name} == expected, "a network that nothing trains is not reported"
    result = json.loads((folder / "result.json").read_text())
    assert result["miou"]["student"] == pytest.approx(rows[-1]["miou_student"], abs=1e-4)
    assert "mIoU" in done.stdout
    assert f"predict.py {folder} IMAGE_OR_FOLDER" in done.stdout.splitlines()[-1]  # what to run next
    assert "road" in done.stdout
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 6
    assert any(key.startswith("mrm.") for key in saved["student"]) == ("mrm" in names)


def test_arms_pair_by_seed(settings, tmp_path):
    """With and without MRM: the same data, mixes and augmentations, and the same first step."""
    seen = {}
    for weight in (0.0, 2.0):
        batches = []

        def spy(step, batch, models, cfg, draws, batches=batches):
            batches.append((batch, draws.pasted(batch.source_labels), draws.colours("mixed", batch.target_images)))
            return train_dacs_mrm.train_step(step, batch, models, cfg, draws)

        cfg = dataclasses.replace(settings, mrm_weight=weight, out=str(tmp_path / f"run{weight}"))
        run = train(cfg, spy)
        assert (run.models.mrm is None) == (weight == 0)
        seen[weight] = batches, losses(run)
    for (a, *drawn_a), (b, *drawn_b) in zip(seen[0.0][0], seen[2.0][0]):
        for x, y in zip([*vars(a).values(), *drawn_a], [*vars(b).values(), *drawn_b]):
            assert torch.equal(x, y)
    baseline, with_mrm = seen[0.0][1], seen[2.0][1]
    for a, b in zip(baseline[:3], with_mrm[:3]):  # two of pretraining, and the first with MRM: the same weights so far
        assert {**a, "mrm": None} == {**b, "mrm": None}
    assert with_mrm[2]["mrm"] > 0
    assert baseline[-1]["source"] != with_mrm[-1]["source"]


@pytest.mark.parametrize(
    ("trainer", "method", "mrm_on", "names"),
    [
        (train_dacs_mrm, "dacs", "target", {"mrm"}),
        (train_mic_mrm, "dacs", "both", {"mrm", "mrm source"}),
        (train_mic_mrm, "daformer", "source", {"mrm source"}),
        (train_mic_mrm, "dacs", "mixed", {"mrm mixed"}),
        (train_mic_mrm, "mic", "masked", {"masked", "mrm masked"}),
        (train_mic_mrm, "hrda", "both", {"mrm", "mrm source"}),
    ],
)
def test_what_is_rebuilt(settings, trainer, method, mrm_on, names):
    options = {"hrda": True, "detail_crop": 48, "mrm_grid": (3, 6)} if method == "hrda" else {}
    cfg = dataclasses.replace(
        settings, method=method, mrm_on=mrm_on, rare_classes=method != "dacs", pretrain_iterations=0, **options
    )
    run = Run(cfg)
    losses = one_step(run, batches_of(run)[0], trainer.train_step)
    assert set(losses) == {"source", "mixed", "trust", *names}
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(p.grad is not None for p in run.models.student.parameters())


@pytest.mark.parametrize(
    ("trainer", "method", "mrm_on"),
    [
        (train_dacs_mrm, "dacs", "target"),
        (train_mic_mrm, "mic", "target"),
        (train_mic_mrm, "mic", "masked"),
        (train_vfm_mrm, "vfm", "target"),
    ],
)
def test_mrm_in_every_second_step(settings, trainer, method, mrm_on):
    """It weighs twice as much there; without it the Rebuilder rests. The second of the run is the method's first."""
    cfg = dataclasses.replace(settings, method=method, mrm_on=mrm_on, pretrain_iterations=1)
    first = {}
    for every in (1, 2):
        run = Run(dataclasses.replace(cfg, mrm_every=every, out=f"{cfg.out}{every}"))
        run.step = 1
        first[every] = one_step(run, batches_of(run)[1], trainer.train_step)
    name = "mrm masked" if mrm_on == "masked" else "mrm"
    assert first[1][name] > 0
    assert first[2] == first[1] | {name: 2 * first[1][name]}
    run.step, student = 2, run.models.student
    before = {key: value.clone() for key, value in student.state_dict().items()}
    second = one_step(run, batches_of(run)[2], trainer.train_step)
    assert second.keys() == first[2].keys() - {name}
    moved = {key for key, value in student.state_dict().items() if not torch.equal(value, before[key])}
    assert any(key.startswith("network.decoder") for key in moved)
    assert not any(key.startswith("mrm.") for key in moved)


def test_lines_of_a_run_show_mrm_where_it_takes_part(settings):
    run = train(dataclasses.replace(settings, mrm_every=2), train_dacs_mrm.train_step)
    shown = [row["step"] for row in metrics(run.folder) if "mrm" in row]
    assert shown == [4, 6]


@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_resumed_run_is_the_uninterrupted_run(settings, tmp_path, stop_at):
    whole = train(settings, train_mic_mrm.train_step)
    calls = []

    def interrupted(*args):
        calls.append(args[0])
        if len(calls) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_mic_mrm.train_step(*args)

    cut = dataclasses.replace(settings, out=str(tmp_path / "cut"))
    with pytest.raises(SystemExit, match=rf"interrupted at step {stop_at} of 6; go on with --resume .*cut"):
        train(cut, interrupted)
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:  # lines of steps that the checkpoint lacks
        file.write('{"step": 5, "source": 9.9}\n{"step": 5, "sou')
    resumed = dataclasses.replace(load_settings(tmp_path / "cut" / "settings.json"), resume=cut.out)
    assert dataclasses.replace(resumed, resume="") == cut
    again = train(resumed, train_mic_mrm.train_step)

    def saved(run):
        return torch.load(run.folder / "checkpoint.pt", weights_only=True)

    a, b = saved(whole), saved(again)
    for part in ("student", "teacher"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][key], b[part][key]) for key in a[part])
    for x, y in zip(a["optimizers"], b["optimizers"]):
        for k in x["state"]:
            assert all(torch.equal(x["state"][k][name], y["state"][k][name]) for name in x["state"][k])

    assert losses(whole) == losses(again)


@pytest.mark.parametrize("method", ["dacs", "hrda"])
def test_masking_without_rebuilding(settings, method):
    """Trains, resumes and evaluates as MRM does; the checkpoint holds mask token and projectors alone."""
    changes = {"hrda": True, "detail_crop": 24, "mrm_grid": (3, 6)} if method == "hrda" else {}
    cfg = dataclasses.replace(settings, method=method, mrm_mask_only=True, threshold=0.05, **changes)
    run = train(dataclasses.replace(cfg, out=f"{cfg.out}-whole"), train_mic_mrm.train_step)
    assert losses(run)[-1]["mrm"] > 0
    state = run.models.student.state_dict()
    trained = {key for key in state if key.startswith("mrm.")}
    assert {key.split(".")[2] for key in trained} == {"mask_token", "norm", "projectors"}
    untrained = Run(dataclasses.replace(cfg, out=f"{cfg.out}-untrained")).models.student
    assert all((state[key] != value).all() for key, value in untrained.state_dict().items() if key in trained)
    half = Run(cfg)
    data = batches_of(half)
    while half.step < 3:
        one_step(half, data[half.step], train_mic_mrm.train_step)
        half.step += 1
    half.save()
    half.lock.close()
    again = train(dataclasses.replace(cfg, resume=cfg.out), train_mic_mrm.train_step)
    for key, value in run.models.student.state_dict().items():
        assert torch.equal(value, again.models.student.state_dict()[key]), key
    assert load_networks(again.folder, ("student",)).networks.keys() == {"student"}


def test_a_run_never_overwrites_another(settings):
    Path(settings.out).mkdir()
    with pytest.raises(FileExistsError, match="exists; give another --out, or go on with it: --resume"):
        Run(settings)


def test_resume_without_a_run(tmp_path):
    done = launch(sys.executable, str(EXAMPLES / "train_dacs_mrm.py"), "--resume", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert "settings.json is missing; expected the folder of an earlier run" in done.stderr


def test_checkpoints_are_written_whole(settings, monkeypatch):
    run = Run(settings)
    run.save()
    run.step = 7

    def fail(state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        run.save()
    assert torch.load(run.folder / "checkpoint.pt", weights_only=True)["step"] == 0
    assert not list(run.folder.glob("*.tmp"))


@pytest.mark.slow
def test_two_processes(settings):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = launch(*torchrun, str(EXAMPLES / "train_mic_mrm.py"), *flags(settings, method="mic"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nmIoU  ") == 1
    assert done.stdout.count("step 2: mIoU") == 1
    result = json.loads((Path(settings.out) / "result.json").read_text())
    # one network was evaluated and saved, with BatchNorm's statistics of both processes
    loaded = load_networks(settings.out)
    validation = open_domain(settings.target, "val")
    for name, network in loaded.networks.items():
        confusion = evaluation.evaluate(network, validation, 19, torch.device("cpu"))
        assert evaluation.mean_iou(confusion) == pytest.approx(result["miou"][name], abs=1e-6)


@pytest.mark.slow
def test_a_signal_to_the_group_stops_workers_last(settings):
    """As torchrun, schedulers and Ctrl-C send it; the loaders' processes must not take the run with them."""
    words = flags(settings, method="dacs", workers=2, pretrain_iterations=0, iterations=100_000)
    command = [sys.executable, str(EXAMPLES / "train_dacs_mrm.py"), *words]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, text=True, stdout=pipe, stderr=pipe, start_new_session=True) as process:
        metrics_file = Path(settings.out) / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not metrics_file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "go on with --resume" in err
    assert torch.load(Path(settings.out) / "checkpoint.pt", weights_only=True)["step"] > 0


def test_a_target_without_labels(settings, scenes, tmp_path, capsys):
    """Is trained on; there is nothing to evaluate on, which is said once."""
    shutil.copytree(scenes[1] / "leftImg8bit" / "train", tmp_path / "photos" / "images")
    own = dataclasses.replace(settings, target=f"folder:{tmp_path / 'photos'}", eval_every=1)
    run = train(own, train_dacs_mrm.train_step)
    printed = capsys.readouterr()
    assert printed.out.count("nothing to evaluate on, the run goes without mIoU (no labels like ") == 1
    assert "mIoU student" not in printed.out + printed.err
    result = json.loads((run.folder / "result.json").read_text())
    assert (result["miou"], result["iou"]) == ({}, {})
    assert (run.folder / "panel.png").stat().st_size > 0


def test_means_of_synthia(settings):
    run = Run(dataclasses.replace(settings))
    confusions = {"student": torch.eye(19, dtype=torch.int64)}
    confusions["student"][3] = torch.eye(19, dtype=torch.int64)[0]  # walls are taken for roads
    assert list(run.means(confusions)) == ["miou"]
    run.settings = dataclasses.replace(settings, source="synthia:there")
    means = {mean: by_name["student"] for mean, by_name in run.means(confusions).items()}
    assert means == pytest.approx({"miou": 1750 / 19, "miou16": 1450 / 16, "miou13": 1250 / 13})


@pytest.mark.slow
def test_a_damaged_image_ends_a_run_with_workers(settings, scenes, tmp_path):
    """In seconds, in one line, with what is safe and how to go on; it used to wait for its loaders for ever."""
    shutil.copytree(scenes[0], tmp_path / "gta5")
    own = dataclasses.replace(settings, source=f"gta5:{tmp_path / 'gta5'}", workers=2, save_every=1, iterations=1000)
    command = [sys.executable, str(EXAMPLES / "train_dacs_mrm.py"), *flags(own)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, text=True, stderr=subprocess.PIPE, start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while not (Path(own.out) / "checkpoint.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        for image in (tmp_path / "gta5" / "images").iterdir():
            os.truncate(image, image.stat().st_size // 2)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
    last = err.splitlines()[-1]
    assert last.startswith("error: ") and ".png: expected an image" in last
    assert f"is safe in {own.out}; go on with --resume {own.out}" in last
    assert "Traceback" not in err


def test_a_run_at_its_end_evaluates_once(settings):
    """Killed after the last checkpoint, and resumed: the final evaluation stands in metrics.jsonl once."""
    run = train(settings, train_dacs_mrm.train_step)
    before = metrics(run.folder)
    again = dataclasses.replace(settings, resume=settings.out)
    train(again, train_dacs_mrm.train_step)
    assert metrics(run.folder) == [row for row in before if "seconds_per_step" not in row]


def test_an_interrupted_evaluation_is_made_on_resuming(settings, monkeypatch):
    cfg = dataclasses.replace(settings, eval_every=3)
    real, calls = Run.evaluate, []

    def interrupted(run, *args):
        calls.append(run.step)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)  # the request is answered at once
        return real(run, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "evaluate", interrupted)
        with pytest.raises(SystemExit, match="interrupted at step 3 of 6; go on with --resume"):
            train(cfg, train_dacs_mrm.train_step)
    run = train(dataclasses.replace(cfg, resume=cfg.out), train_dacs_mrm.train_step)
    assert [row["step"] for row in metrics(run.folder) if "miou_student" in row] == [2, 3, 6]


def test_a_checkpoint_of_another_network(settings):
    Run(settings).save()
    before = (Path(settings.out) / "settings.json").read_text()
    other = dataclasses.replace(settings, resume=settings.out, mrm_width=32)
    with pytest.raises(ValueError, match=r"checkpoint.pt: does not fit the run's settings.json \(.*size mismatch"):
        Run(other)
    assert (Path(settings.out) / "settings.json").read_text() == before


def test_rates_that_are_changed_on_resuming_are_used(settings):
    """They used to be the checkpoint's again, without a word."""
    run = Run(settings)
    run.step = settings.pretrain_iterations
    one_step(run, batches_of(run)[run.step], train_dacs_mrm.train_step)
    run.save()
    run.lock.close()
    changes = {"lr": 0.01, "head_lr_factor": 2.0, "weight_decay": 0.3, "mrm_lr": 0.02}
    again = Run(dataclasses.replace(settings, resume=settings.out, **changes))
    groups = {group["name"]: group for optimizer in again.optimizers for group in optimizer.param_groups}
    got = {name: (group["initial_lr"], group["weight_decay"]) for name, group in groups.items()}
    assert got == {"encoder": (0.01, 0.3), "head": (0.02, 0.3), "rebuilder": (0.02, 0.01)}
    one_step(again, batches_of(again)[again.step], train_dacs_mrm.train_step)
    assert groups["head"]["lr"] == 2 * groups["encoder"]["lr"] > 0.01
    assert load_settings(again.folder / "settings.json").lr == 0.01


@pytest.mark.parametrize("name", ["my runs/straße's", "$(run)"])
def test_the_way_to_go_on_can_be_copied_into_a_shell(settings, tmp_path, name):
    own = dataclasses.replace(settings, out=str(tmp_path / name))
    run, stop = Run(own), Interrupts()
    with pytest.raises(FileExistsError, match="go on with it: --resume ") as exists:
        Run(own)
    run.save()
    with pytest.raises(SystemExit, match="interrupted") as stopped, telling_how_to_go_on(run, stop):
        raise KeyboardInterrupt
    run.step = 1
    for said in (str(stopped.value), stop.farewell(), str(exists.value)):
        assert shlex.split(said[said.index("--resume") :]) == ["--resume", str(run.folder)]


def test_no_checkpoint_is_promised_that_is_not_there(settings):
    run, stop = Run(settings), Interrupts()
    with telling_how_to_go_on(run, stop):
        assert stop.farewell().endswith(f"no checkpoint was saved before; {run.folder} can be deleted")
        run.save()
        assert stop.farewell().endswith(
            f"the checkpoint of step 0 is safe in {run.folder}; go on with --resume {run.folder}"
        )
    run = Run(dataclasses.replace(settings, out=settings.out + "2"))
    unsaved = pytest.raises(SystemExit, match="interrupted at step 0 of 6; no checkpoint was saved before")
    with unsaved, telling_how_to_go_on(run, stop):
        raise KeyboardInterrupt
