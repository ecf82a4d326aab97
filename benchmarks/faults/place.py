"""Folders that faults happen in: tiny data, a disk of their own, commands that train on them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from runs import Started
from uda.scenes.write import write_scenes

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ["--crop", "48", "96", "--mrm-grid", "6", "12", "--batch-size", "2", "--threshold", "0.1", "--warmup", "0"]
RECIPE += ["--device", "cpu", "--log-every", "1"]


class Place:
    """A folder for one fault, with data, a small disk of its own, and a run that has ended."""

    def __init__(self, root: Path, ended: Path | None) -> None:
        self.root, self.disk = root, root / "disk"
        root.mkdir()
        root.chmod(0o777)
        search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": search, "MPLCONFIGDIR": str(root)}
        if ended is not None:
            subprocess.run(["cp", "-r", str(ended), str(root / "ended")], check=True)

    def scenes(self, val: int = 3, name: str = "scenes") -> tuple[Path, Path]:
        return write_scenes(self.root / f"{name}{val if val != 3 else ''}", source=6, target=6, val=val, size=(48, 96))

    def script(
        self,
        script: str,
        *words: str,
        folder: Path | None = None,
        user_rights: bool = False,
        shared_memory: str = "",
        output: str = "",
        **options: Any,
    ) -> Started:
        """Starts a script.

        Args:
            folder: of the run that it makes.
            user_rights: root may not write everywhere.
            shared_memory: size of a /dev/shm of its own, such as "4m"; only root can have one.
            output: where a shell sends what it prints, such as "| head -n 1".
        """
        self.scenes()
        # root may write everywhere, but for this
        humble = (
            ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if user_rights and os.getuid() == 0 else []
        )
        line = [*humble, sys.executable, str(ROOT / "examples" / script), *words]
        if shared_memory:
            mount = f'mount -t tmpfs -o size={shared_memory} tmpfs /dev/shm && exec "$@"'
            line = ["unshare", "-m", "bash", "-c", mount, "bash", *line]
        if output:
            line = ["bash", "-c", f'"$@" {output}; exit ${{PIPESTATUS[0]}}', "bash", *line]
        return Started(line, self, folder or self.root / "none", **options)

    def words(self, *words: str, workers: int = 0, iterations: int = 6, val: int = 3, folder: Path) -> list[str]:
        source, target = self.scenes(val)
        options = {"--source": f"gta5:{source}", "--target": f"cityscapes:{target}", "--out": str(folder)}
        options |= {"--workers": str(workers), "--iterations": str(iterations), "--save-every": "2"}
        options |= {"--pretrain-iterations": "1", "--eval-every": "1000"}
        return [*RECIPE, *(word for pair in options.items() for word in pair), *words]

    def train(
        self,
        *words: str,
        disk: int = 0,
        user_rights: bool = False,
        out: Path | None = None,
        script: str = "train_mic_mrm.py",
        shared_memory: str = "",
        output: str = "",
        **more: Any,
    ) -> Started:
        if disk:
            self.mount(disk)
        folder = out or (self.disk if disk else self.root) / "run"
        words = tuple(self.words(*words, folder=folder, **more))
        options: dict[str, Any] = {"user_rights": user_rights, "shared_memory": shared_memory, "output": output}
        return self.script(script, *words, folder=folder, **options)

    def resume(
        self, *words: str, script: str = "train_mic_mrm.py", folder: Path | None = None, user_rights: bool = False
    ) -> Started:
        folder = folder or self.root / "resumed"
        return self.script(script, "--resume", str(folder), *words, folder=folder, user_rights=user_rights)

    def two(self, *words: str, torchrun: bool, **more: Any) -> Started:
        folder = self.root / "run"
        words = (str(ROOT / "examples" / "train_mic_mrm.py"), *self.words(*words, folder=folder, **more))
        if torchrun:
            line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *words]
            return Started(line, self, folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
        ranks = [
            Started([sys.executable, *words], self, folder, environment=common | {"RANK": str(rank)})
            for rank in range(2)
        ]
        ranks[0].others.append(ranks[1])
        return ranks[0]

    def mount(self, megabytes: int) -> None:
        """A disk of so many megabytes; only root can have one."""
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(self.disk)], check=True)

    def fill(self, leave: int = 0) -> None:
        """Fills the disk up but for some bytes."""
        free = os.statvfs(self.disk)
        with suppress(OSError), (self.disk / "filler").open("wb") as file:
            file.write(bytes(max(0, free.f_bavail * free.f_bsize - leave)))

    def close(self) -> None:
        if self.disk.exists():
            subprocess.run(["umount", "-l", str(self.disk)], check=False)


def earlier(place: Path) -> Path:
    """A copy of a short run that has ended."""
    return shutil.copytree(place / "ended", place / "resumed", dirs_exist_ok=False)
