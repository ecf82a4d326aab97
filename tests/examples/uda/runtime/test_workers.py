"""Processes that load data: every start method, too little shared memory, and that none outlives its run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader
from uda.data.batches import Batches, batches
from uda.data.domain import open_domain
from uda.runtime import workers
from uda.runtime.command import explained

EXAMPLES = Path(__file__).resolve().parents[4] / "examples"
METHODS = ("fork", "spawn", "forkserver")
REMEDIES = ("shared memory", "--workers 0", "docker run --shm-size")

linux = pytest.mark.skipif(sys.platform != "linux", reason="shared memory as Linux has it")


@pytest.fixture
def start_method():
    """Sets Python's start method; afterwards it is what it was."""
    before = multiprocessing.get_start_method()
    yield lambda method: multiprocessing.set_start_method(method, force=True)
    multiprocessing.set_start_method(before, force=True)


def data_of(scenes, crop=(48, 96)) -> Batches:
    return Batches(open_domain(f"gta5:{scenes[0]}"), open_domain(f"cityscapes:{scenes[1]}"), crop, 2, seed=0)


@pytest.mark.parametrize("method", METHODS)
def test_workers_load_the_same_batches_by_every_start_method(scenes, start_method, method):
    start_method(method)
    data = data_of(scenes)
    loader = batches(data, 0, 3, workers=2)
    for step, batch in enumerate(loader):
        assert all(torch.equal(x, y) for x, y in zip(vars(batch).values(), vars(data[step]).values()))
    assert step == 2
    assert multiprocessing.active_children() == []


@linux
@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_that_shared_memory_cannot_hold_is_an_error(scenes, strategy, count):
    """It was lost in a thread of the worker, and the run waited for it for ever."""
    before, limits = torch.multiprocessing.get_sharing_strategy(), resource.getrlimit(resource.RLIMIT_FSIZE)
    torch.multiprocessing.set_sharing_strategy(strategy)
    try:
        loader = batches(data_of(scenes, (480, 960)), 0, 10, workers=count)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))  # of any file, those of shared memory too
        with pytest.raises(OSError, match="shared memory is too small: a batch takes 32 MiB") as caught:
            next(loader)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        torch.multiprocessing.set_sharing_strategy(before)
    assert all(words in explained(caught.value) for words in REMEDIES)
    assert multiprocessing.active_children() == []


def test_too_many_open_files_are_another_reason():
    class Full:
        nbytes = 4

        def share_memory_(self):
            raise RuntimeError(
                "unable to open shared memory object </torch_3> in read-write mode: Too many open files (24)"
            )

    with pytest.raises(OSError, match="too many open files; `ulimit -n"):
        workers.into_shared_memory([Full()])


@linux
def test_a_batch_that_cannot_be_sent_ends_its_worker(scenes, monkeypatch):
    """Whatever else goes wrong in the thread that sends it."""

    def fail(*_):
        raise RuntimeError("too many open files")

    loader = batches(data_of(scenes), 0, 10, workers=1)
    reducers = multiprocessing.reduction.ForkingPickler._extra_reducers
    for kind in [kind for kind in reducers if "Storage" in kind.__name__]:
        monkeypatch.setitem(reducers, kind, fail)
    with pytest.raises(RuntimeError, match=r"DataLoader worker .* exited unexpectedly") as caught:
        next(loader)
    assert explained(caught.value)


@linux
@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGBUS, REMEDIES), (signal.SIGKILL, ("want of memory", *REMEDIES))]
)
def test_a_worker_that_is_killed(scenes, number, words):
    """A page of shared memory that cannot be had is a bus error, in PyTorch that does not ask for all of it first."""
    loader = batches(data_of(scenes), 0, 1000, workers=1)
    next(loader)
    os.kill(multiprocessing.active_children()[0].pid, number)
    with pytest.raises(RuntimeError, match="DataLoader worker") as caught:
        for _ in loader:
            pass
    assert all(word in explained(caught.value) for word in words)


@linux
@pytest.mark.parametrize("killed", [True, False])
def test_workers_end_though_the_lock_of_their_event_is_held(scenes, killed):
    """As by a worker that was killed while it looked whether it should end."""
    iterator = iter(DataLoader(data_of(scenes), batch_size=None, sampler=range(100), num_workers=2))
    next(iterator)
    holder = threading.Thread(target=iterator._workers_done_event._cond.acquire)
    holder.start()
    holder.join()
    processes = list(iterator._workers)
    if killed:
        processes[0].kill()
        with contextlib.suppress(RuntimeError):  # in which the loader says it
            processes[0].join()
    ending = threading.Thread(target=workers.end_workers, args=[iterator], daemon=True)
    ending.start()
    ending.join(20)
    assert not ending.is_alive() and not any(process.is_alive() for process in processes)
    del iterator  # asks nobody
    workers.end_workers(iter(range(3)))  # a loader without processes


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(), FileNotFoundError(2, "x")])
def test_a_batch_whose_worker_is_gone(error):
    """It cannot be fetched any more; how that shows depends on the moment."""

    def fetch(*exitcodes):
        gone = [SimpleNamespace(exitcode=code, pid=3, join=lambda seconds: None) for code in exitcodes]
        with workers.naming_killed(SimpleNamespace(_workers=gone)):
            raise error

    for code, words in ((-signal.SIGBUS, REMEDIES), (-signal.SIGKILL, ("was killed", *REMEDIES)), (1, ("was killed",))):
        with pytest.raises(RuntimeError, match="DataLoader worker") as caught:
            fetch(None, code)
        assert all(word in explained(caught.value) for word in words)
    with pytest.raises(type(error)):
        fetch(None, None)


def test_what_workers_load_ahead_is_held_against_what_is_free(monkeypatch):
    mib = 2**20
    workers.check_shared_memory(64 * mib, 2, 12 * mib)  # two batches each and the one in use: 60 MiB
    workers.check_shared_memory(0, 0, 2**40)
    workers.check_shared_memory(None, 2, 2**40)
    with pytest.raises(OSError, match=r"2 workers need 65 MiB for batches of 13 MiB, 64 MiB are free") as caught:
        workers.check_shared_memory(64 * mib, 2, 13 * mib)
    assert all(words in explained(caught.value) for words in REMEDIES)
    with pytest.raises(OSError, match="shared memory is full"):
        workers.check_shared_memory(4096, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(OSError, match="2 workers need 120 MiB"):
        workers.check_shared_memory(64 * mib, 2, 12 * mib)


@pytest.mark.parametrize(("blocks", "expected"), [(10, 5 * 4096), (0, None)])  # a tmpfs without a limit has no blocks
def test_free_shared_memory(monkeypatch, blocks, expected):
    found = SimpleNamespace(f_blocks=blocks, f_bavail=blocks // 2, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: found, raising=False)
    assert workers.free_shared_memory() == expected
    monkeypatch.delattr(os, "statvfs")  # Windows
    assert workers.free_shared_memory() is None


def test_batches_that_do_not_fit_end_before_the_first_step(scenes, monkeypatch):
    """Though each of them would: an evaluation gives workers the time to load all that they may."""
    monkeypatch.setattr("uda.data.batches.free_shared_memory", lambda: 2**21)
    with pytest.raises(OSError, match="1 workers need 4 MiB for batches of 1 MiB, 2 MiB are free"):
        next(batches(data_of(scenes, (96, 192)), 0, 10, workers=1))
    assert multiprocessing.active_children() == []


def session_of(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            found += [int(path.parent.name)] * (fields[0] != "Z" and int(fields[3]) == leader)
    return found


def training(settings, script: Path, method: str, **options) -> subprocess.Popen:
    """A run of MIC's trainer under a start method, in a session of its own."""
    script.write_text(
        "import multiprocessing, runpy, sys\n"
        "if __name__ == '__main__':\n"
        f"    multiprocessing.set_start_method({method!r})\n"
        f"    runpy.run_path({str(EXAMPLES / 'train_mic_mrm.py')!r}, run_name='__main__')\n"
    )
    words = ["--source", settings.source, "--target", settings.target, "--out", settings.out, "--workers", "2"]
    words += ["--crop", "48", "96", "--mrm-grid", "6", "12", "--batch-size", "2", "--device", "cpu", "--log-every", "1"]
    words += ["--pretrain-iterations", "1", "--warmup", "0", *options.pop("words", [])]
    search = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": search}
    command = [*options.pop("before", []), sys.executable, str(script), *words]
    return subprocess.Popen(command, env=environment, text=True, start_new_session=True, **options)


def wait_for(condition, seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


@linux
@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("method", METHODS)
def test_no_process_outlives_its_run(settings, tmp_path, method, end):
    """Neither one that is killed, nor one that is asked to stop as a scheduler does it, all its processes at once."""
    run = training(settings, tmp_path / "run.py", method, words=["--iterations", "100000"], stderr=subprocess.PIPE)
    metrics = Path(settings.out) / "metrics.jsonl"
    try:
        assert wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= 3)
        assert len(session_of(run.pid)) >= 3
        os.kill(run.pid, end) if end == signal.SIGKILL else os.killpg(run.pid, end)
        _, err = run.communicate(timeout=60)
        assert wait_for(lambda: not session_of(run.pid), 15), session_of(run.pid)
    finally:
        for process in session_of(run.pid):
            os.kill(process, signal.SIGKILL)
    if end == signal.SIGTERM:
        assert "go on with --resume" in err.splitlines()[-1]


def own_shared_memory(size: str) -> list[str]:
    """What starts a command with a /dev/shm of its own; only root can have one."""
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    return ["unshare", "-m", "bash", "-c", mount, "bash"]


@linux
@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform == "linux" and subprocess.run([*own_shared_memory("1m"), "true"], capture_output=True).returncode != 0,
    reason="needs the right to mount",
)
@pytest.mark.parametrize(
    ("size", "words", "line"),
    [
        ("1500k", [], "shared memory is too small: a batch takes"),
        ("4m", [], "shared memory is too small: "),  # for all batches, not for each
        ("4k", [], "shared memory is full"),
        ("4m", ["--dry-run"], "shared memory is too small: "),
    ],
)
def test_a_run_with_little_shared_memory_ends(settings, tmp_path, size, words, line):
    words = [*words, "--crop", "144", "192", "--iterations", "20"]
    before, pipe = own_shared_memory(size), subprocess.PIPE
    run = training(settings, tmp_path / "run.py", "fork", words=words, before=before, stderr=pipe, stdout=pipe)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "ready" not in out
    last = err.splitlines()[-1]
    assert last.startswith(f"error: {line}")
    assert all(word in last for word in REMEDIES)
    assert "Traceback" not in err
    assert not session_of(run.pid)
