"""Stage 1 under torchrun: several ranks fill one store, and lose no more than the work at hand."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distillcache.cache.store import Store
from distillcache.datasets.shards.files import expand
from distillcache.models.teachers import Teacher

from ..conftest import SIZE, cached, run
from .test_processes import held

LIMIT = 180
Torchrun = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def whole(shards: str, teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a store of 24 views holds that one process made."""
    return held(cached(tmp_path_factory.mktemp("whole") / "c.zarr", expand(shards), teacher, views=24).path)


@pytest.fixture
def torchrun(tmp_path: Path, teacher_folder: Path) -> Iterator[Torchrun]:
    """Starts stage 1 on two ranks, slowly, one view at a time; ended with the test."""
    started = []

    def start(shards: str, *more: str, restarts: int = 0) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
        line += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "distillcache.cli", "cache-teacher"]
        line += ["--shards", shards, "--teacher", str(teacher_folder), "--cache", str(tmp_path / "c.zarr")]
        line += ["--image-size", str(SIZE), "--device", "cpu", "--views", "24", "--batch-size", "1", *more]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def rank(number: int, launcher: int) -> int:
    """Return the process of a rank."""
    for children in Path("/proc").glob(f"{launcher}/task/*/children"):
        for child in children.read_text().split():
            if f"\0RANK={number}\0".encode() in b"\0" + Path(f"/proc/{child}/environ").read_bytes():
                return int(child)
    raise AssertionError(f"no rank {number}")


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_loses_the_unit_at_hand(
    killed: int, torchrun: Torchrun, shards: str, whole: dict[str, bytes], tmp_path: Path
) -> None:
    process, store = torchrun(shards, restarts=1), tmp_path / "c.zarr"
    deadline = time.monotonic() + LIMIT
    while not (committed := {path: path.stat().st_mtime_ns for path in store.glob("label/c/*/*/0")}):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(rank(killed, process.pid), signal.SIGKILL)
    table, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    assert held(store) == whole and table.count("labels ") == 1
    assert committed.items() <= {path: path.stat().st_mtime_ns for path in store.glob("label/c/*/*/0")}.items()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.zarr"]


def test_what_one_rank_finds_wrong_is_one_line(torchrun: Torchrun, shards: str, tmp_path: Path) -> None:
    files = [Path(file) for file in expand(shards)]
    for file in files:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / files[1].name).write_bytes(b"no tar at all" * 1000)  # of the share of rank 1
    process = torchrun(str(tmp_path / Path(shards).name))
    _, errors = process.communicate(timeout=LIMIT)
    lines = [line for line in errors.splitlines() if line.startswith("distillcache:")]
    assert process.returncode != 0 and len(lines) == 1 and files[1].name in lines[0]
    assert "tar" in lines[0] and not (tmp_path / "c.zarr").exists()


def test_parts_of_machines_that_share_nothing_are_merged(
    shards: str, teacher_folder: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    parts = len(expand(shards))
    for part in range(parts):
        here = [
            "--shards",
            shards,
            "--cache",
            tmp_path / f"{part}.zarr",
            "--part",
            f"{part}/{parts}",
            "--device",
            "cpu",
        ]
        made = run("cache-teacher", *here, "--teacher", teacher_folder, "--image-size", SIZE, "--views", 24)
        assert made.exit_code == 0, made.output
    merged = run("inspect", "merge", tmp_path / "c.zarr", *(tmp_path / f"{part}.zarr" for part in range(parts)))
    assert merged.exit_code == 0, merged.output
    found, probes = held(Store(tmp_path / "c.zarr").path), ("probe_",)
    assert {n: data for n, data in found.items() if not n.startswith(probes)} == {
        n: data for n, data in whole.items() if not n.startswith(probes)
    }


@pytest.mark.parametrize("part", ["3", "2/2", "0/99", "-1/2", "a/b"])
def test_a_part_that_there_is_not_is_one_line(part: str, shards: str, teacher_folder: Path, tmp_path: Path) -> None:
    here = ["--shards", shards, "--cache", tmp_path / "c.zarr", "--teacher", teacher_folder, "--device", "cpu"]
    refused = run("cache-teacher", *here, "--part", part)
    assert refused.exit_code == 2 and "part: expected K/N with 0 <= K < N" in refused.output
