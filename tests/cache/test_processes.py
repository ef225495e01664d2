"""Several processes on one store: whatever happens to one of them, the others end with the whole of it."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distillcache.cache import fill
from distillcache.cache.claims import claims_on
from distillcache.cache.store import Store
from distillcache.datasets.shards.files import expand
from distillcache.models.teachers import Teacher
from distillcache.runtime.signals import StopRequested

from ..conftest import OnAdvance, cached, run
from .test_fill import chunks

LIMIT = 120
Process = subprocess.Popen[str]


@pytest.fixture(scope="module")
def whole(shards: str, teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a store of 24 views holds that one process made."""
    return held(cached(tmp_path_factory.mktemp("whole") / "c.zarr", expand(shards), teacher, views=24).path)


def held(store: Path) -> dict[str, bytes]:
    """Return every chunk but the probes' logits, which threads round otherwise."""
    return {name: data for name, data in chunks(store).items() if not name.startswith("probe_logits")}


@pytest.fixture
def start(tmp_path: Path, shards: str, teacher_folder: Path) -> Iterator[Callable[..., Process]]:
    """Starts stage 1 in a process of its own: slowly, one view at a time; ended with the test."""
    started = []

    def stage1(views: int, *more: str) -> Process:
        line = [sys.executable, "-m", "distillcache.cli", "cache-teacher", "--shards", shards, "--teacher"]
        line += [str(teacher_folder), "--cache", str(tmp_path / "c.zarr"), "--image-size", "32", "--device", "cpu"]
        line += ["--views", str(views), "--batch-size", "1", "--workers", "0", *more]
        process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        started.append(process)
        return process

    yield stage1
    for process in started:
        process.kill()
        process.communicate()


def wait_for(happens: Callable[[], object], process: Process) -> None:
    """Return once it does, while `process` runs."""
    deadline = time.monotonic() + LIMIT
    while not happens():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


def committed(folder: Path, units: int = 1) -> Callable[[], bool]:
    return lambda: len(list(folder.glob("c.zarr/label/c/*/*/0"))) >= units


def exit_codes(*processes: Process) -> list[int]:
    return [process.wait(timeout=LIMIT) for process in processes]


def test_processes_that_start_at_once_and_one_that_extends_all_see_the_store_whole(
    tmp_path: Path, start: Callable[..., Process], whole: dict[str, bytes]
) -> None:
    first, second = start(12), start(12)
    wait_for(committed(tmp_path), first)
    third = start(24)
    assert exit_codes(first, second, third) == [0, 0, 0]
    assert held(tmp_path / "c.zarr") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]


def test_what_a_killed_process_leaves_is_taken_over_and_cleared_away(
    tmp_path: Path, start: Callable[..., Process], whole: dict[str, bytes]
) -> None:
    killed = start(24)
    wait_for(committed(tmp_path), killed)
    other = start(24)
    wait_for(committed(tmp_path, 2), other)
    (tmp_path / "c.zarr" / "label" / "unfinished.partial").write_bytes(b"")
    killed.kill()
    assert exit_codes(killed, other) == [-signal.SIGKILL, 0]
    assert held(tmp_path / "c.zarr") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]


def test_a_stopped_process_is_waited_for_and_loses_nothing_by_what_others_do(
    tmp_path: Path, start: Callable[..., Process], whole: dict[str, bytes]
) -> None:
    stopped = start(24)
    wait_for(committed(tmp_path), stopped)
    stopped.send_signal(signal.SIGSTOP)
    unfinished = tmp_path / "c.zarr" / "label" / "theirs.partial"  # as if it had been stopped while it wrote
    unfinished.write_bytes(b"")
    waiting = start(24)
    leaving, failing = (run(*waiting.args[3:], *more) for more in (["--no-wait"], ["--seed", 9]))
    assert [leaving.exit_code, failing.exit_code] == [3, 2]
    told = leaving.stderr.splitlines()[-1]
    assert "views are missing, which other processes are at work on; run again to see them through" in told
    wait_for(committed(tmp_path, 3), waiting)
    assert waiting.poll() is None and unfinished.exists() and (tmp_path / "c.zarr.lock").exists()
    stopped.send_signal(signal.SIGCONT)
    assert exit_codes(stopped, waiting) == [0, 0]
    assert held(tmp_path / "c.zarr") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]


def test_filling_ends_after_the_batch_in_which_it_is_stopped(tmp_path: Path, shards: str, teacher: Teacher) -> None:
    store = cached(tmp_path / "c.zarr", expand(shards), teacher, views=3)
    committed = itertools.count()

    def stop(views: int) -> None:
        if next(committed) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with claims_on(store.path) as claims, pytest.raises(StopRequested):
        fill.fill(
            store,
            store.samples(expand(shards)),
            teacher,
            claims,
            views=24,
            batch_size=12,
            workers=0,
            reporter=OnAdvance(stop),
        )
    assert 0 < len(list(Store(store.path).units())) < 2 * len(store.counts)
    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]


def test_a_folder_without_locks_is_refused_before_anything_is_loaded(tmp_path: Path, shards: str) -> None:
    """A real process in which the kernel's answer is that of a file system without locks."""
    script = (
        "import errno, fcntl, sys, os\n"
        "def lockf(*_): raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))\n"
        "fcntl.lockf = lockf\n"
        "from distillcache.cli import main\n"
        "import atexit; atexit.register(lambda: print('torch' in sys.modules))\n"
        "main()"
    )
    line = [sys.executable, "-c", script, "cache-teacher", "--shards", shards, "--cache", str(tmp_path / "c.zarr")]
    done = subprocess.run([*line, "--teacher", "no such one"], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2 and done.stdout == "False\n" and len(done.stderr.splitlines()) == 1
    assert f"{tmp_path}: expected a file system with byte locks, found none (Function not implemented)" in done.stderr
    assert not list(tmp_path.iterdir())
