from pathlib import Path

import pytest

pytest.importorskip("PIL", reason="the trainers need the examples extra")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> tuple[Path, Path]:
    """A handful of embedded scenes in the layouts of GTA5 and Cityscapes."""
    from uda.scenes.write import write_scenes

    return write_scenes(tmp_path_factory.mktemp("scenes"), source=6, target=6, val=3, size=(48, 96))


@pytest.fixture
def settings(scenes, tmp_path):
    """Settings of a run of a few steps."""
    from uda.settings import Settings

    return Settings(
        method="dacs",
        source=f"gta5:{scenes[0]}",
        target=f"cityscapes:{scenes[1]}",
        out=str(tmp_path / "run"),
        crop=(48, 96),
        batch_size=2,
        pretrain_iterations=2,
        iterations=4,
        warmup=0,
        threshold=0.1,  # else nothing is trusted so early, and the losses on pseudo-labels are zero
        mrm_grid=(6, 12),
        log_every=1,
        eval_every=100,
        save_every=100,
        device="cpu",
    )
