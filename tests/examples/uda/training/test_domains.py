from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import train_dacs_mrm
from image_files import write
from uda.settings import Settings
from uda.training.domains import changed_samples, open_data
from uda.training.loop import train
from uda.training.run import Run


def test_errors_name_the_option(scenes):
    with pytest.raises(ValueError, match=r"^--target gta7:b: expected LAYOUT:PATH with LAYOUT one of gta5, .*"):
        open_data(Settings(source=f"gta5:{scenes[0]}", target="gta7:b"))
    with pytest.raises(FileNotFoundError, match=r"^--source gta5:/nonexistent: /nonexistent: no such folder"):
        open_data(Settings(source="gta5:/nonexistent", target="cityscapes:b"))


@pytest.mark.parametrize(
    ("before", "now", "lines"),
    [
        ({"source": ["a", "b"]}, {"source": ["b", "a"]}, []),
        ({"source": ["a"]}, {"source": ["a", "c", "d", "b", "e"]}, ["source: .* 4 more \\(b, c, d, ...\\)$"]),
        ({"target": ["a", "b", "c"]}, {"target": ["b", "x"]}, ["target: .* 1 more \\(x\\) and 2 fewer \\(a, c\\)$"]),
        ({"source": ["a"], "validation": ["v"]}, {"source": ["b"]}, ["source: ", "validation: .* 1 fewer \\(v\\)$"]),
    ],
)
def test_images_that_a_checkpoint_does_not_know(before, now, lines):
    found = changed_samples(before, now)
    assert len(found) == len(lines)
    for line, pattern in zip(found, lines):
        assert re.match(pattern, line), line


def test_other_classes_are_refused_on_resuming(settings, tmp_path, capsys):
    """In another order too: names would stand beside the weights of other classes."""
    write(tmp_path / "images" / "a.png", np.zeros((40, 80, 3), np.uint8))
    write(tmp_path / "labels" / "a.png", np.arange(40 * 80, dtype=np.uint8).reshape(40, 80) % 2)
    names = ["soil", "crop"]

    def run(**values: str) -> Run:
        classes = [{"name": name, "ids": [k], "colour": [k, 9, 9]} for k, name in enumerate(names)]
        (tmp_path / "classes.json").write_text(json.dumps({"classes": classes}))
        own = f"folder:{tmp_path}"
        return Run(dataclasses.replace(settings, source=own, target=own, **values))

    first = run()
    assert f"folder:{tmp_path}: has no validation images of its own" in capsys.readouterr().out
    first.save()
    first.lock.close()
    names.reverse()
    with pytest.raises(ValueError, match=r"checkpoint\.pt: expected a checkpoint of the classes of .*'crop', 'soil'"):
        run(resume=settings.out)
    names.reverse()
    run(resume=settings.out).lock.close()


def test_changed_data_are_said_on_resuming(settings, scenes, tmp_path, capsys):
    """And in its dry run; then the run goes on."""
    source, target = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in scenes)
    own = dataclasses.replace(settings, source=f"gta5:{source}", target=f"cityscapes:{target}")
    run = Run(own)
    run.step = 3
    run.save()
    run.lock.close()
    assert torch.load(run.folder / "checkpoint.pt", weights_only=True)["samples"]["source"][0].startswith("images/")
    for kind in ("images", "labels"):
        first, second, *_ = sorted((source / kind).iterdir())
        shutil.copy(first, source / kind / "new.png")
        second.unlink()
    gone = sorted(target.rglob("leftImg8bit/train/*/*.png"))[0]
    gone.unlink()
    again = dataclasses.replace(own, resume=own.out)
    for cfg in (dataclasses.replace(again, dry_run=True), again):
        capsys.readouterr()
        train(cfg, train_dacs_mrm.train_step)
        printed = " ".join(capsys.readouterr().out.split())
        assert f"1 more (images/new.png) and 1 fewer (images/{second.name})" in printed
        assert f"1 fewer ({gone.relative_to(target)})" in printed
        assert "validation: the data" not in printed
    assert torch.load(run.folder / "checkpoint.pt", weights_only=True)["step"] == 6
    train(dataclasses.replace(own, resume=own.out), train_dacs_mrm.train_step)
    assert "the data have changed" not in capsys.readouterr().out  # the last checkpoint knows them
