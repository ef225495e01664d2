"""Stores on an object store: the same files, one job at a time, and few requests."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
import s3fs
import torch
from fsspec.implementations.memory import MemoryFileSystem

from distillcache.cache.claims import claims_on
from distillcache.cache.fill import fill
from distillcache.cache.store import Store
from distillcache.datasets.shards.files import expand
from distillcache.models.teachers import Teacher
from distillcache.runtime import claim, remote
from distillcache.runtime.errors import InputError
from distillcache.runtime.paths import path_of
from distillcache.runtime.signals import StopRequested
from distillcache.train import checkpoint

from ..conftest import SIZE, OnAdvance, cached, run
from ..servers import s3


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3("stores") as url:
        yield url


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSES", (0.01, 0.1))
    monkeypatch.setattr(claim, "RENEWED_EVERY", 0.1)


def files(store: Store) -> dict[str, bytes]:
    """All but the time at which it was made."""
    read = {name: store.storage.read(name) for name in store.storage.sizes()}
    root = json.loads(read.pop("zarr.json"))
    root["attributes"].pop("created")
    return read | {"zarr.json": json.dumps(root).encode()}


def test_a_store_filled_in_s3_is_the_one_filled_on_disk(
    bucket: str, shards: str, teacher: Teacher, tmp_path: Path
) -> None:
    """Filled in parts: some of its views, a stop within the second block, and the rest; then commands read it."""
    near = cached(tmp_path / "c.zarr", expand(shards), teacher, views=15, topk=2)
    url = path_of(f"{bucket}/whole.zarr")
    cached(url, expand(shards), teacher, views=6, topk=2)
    store = Store(url)
    stop = OnAdvance(lambda n: os.kill(os.getpid(), signal.SIGTERM))
    with claims_on(url) as claims, pytest.raises(StopRequested):
        fill(store, store.samples(expand(shards)), teacher, claims, views=15, batch_size=16, workers=0, reporter=stop)
    assert 6 <= Store(url).views_of_all() < 15
    far = cached(url, expand(shards), teacher, views=15, topk=2)
    assert far.chunks.nbytes() == Store(url).chunks.nbytes()
    assert {n: data for n, data in files(far).items() if "/c/" in n} == {
        n: data for n, data in files(near).items() if "/c/" in n
    }
    for command in (("info",), ("stats",), ("keys",), ("export", f"{bucket}/table.parquet")):
        said = run("inspect", command[0], url, *command[1:])
        assert said.exit_code == 0, said.output
    same = run("inspect", "diff", url, tmp_path / "c.zarr")
    assert same.exit_code == 0, same.output
    assert run("inspect", "verify", url, "--shards", shards, "--device", "cpu").exit_code == 0


def test_stores_are_merged_packed_and_trained_from_where_they_are(
    bucket: str, store: Store, shards: str, teacher: Teacher
) -> None:
    for number, shard in enumerate(expand(shards)):
        cached(path_of(f"{bucket}/part-{number}.zarr"), [shard], teacher, views=3)
    for command in (
        ("inspect", "merge", f"{bucket}/all.zarr", f"{bucket}/part-0.zarr", f"{bucket}/part-1.zarr"),
        ("pack", f"{bucket}/all.zarr", f"{bucket}/all.zarr.zip"),
        ("unpack", f"{bucket}/all.zarr.zip", f"{bucket}/again.zarr"),
    ):
        said = run(*command)
        assert said.exit_code == 0, said.output
    merged = Store(path_of(f"{bucket}/all.zarr"))
    assert not list(merged.units()) and files(Store(path_of(f"{bucket}/again.zarr"))) == files(merged)
    np.testing.assert_array_equal(merged.cycle(0).label, store.cycle(0).label)


def test_a_run_goes_on_where_it_is(
    bucket: str, store: Store, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped when it has written its first checkpoint, and run again."""
    saved = checkpoint.save

    def save_and_stop(*given: Any, **more: Any) -> None:
        saved(*given, **more)
        os.kill(os.getpid(), signal.SIGTERM)

    command = ["train-student", "--shards", shards, "--cache", store.path, "--epochs", 3, "--batch-size", 8]
    command += ["--model-kwargs", f"img_size={SIZE}", "patch_size=8", "embed_dim=24", "depth=1", "num_heads=1"]
    command += ["--device", "cpu", "--val-shards", shards, "--warmup-epochs", 0]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_stop)
        assert run(*command, "--out", f"{bucket}/run").exit_code == 128 + signal.SIGTERM
    assert not s3fs.S3FileSystem().exists(f"{bucket}/run/student.safetensors")
    assert not s3fs.S3FileSystem().exists(f"{bucket}/run/claim")
    for out in (f"{bucket}/run", tmp_path / "run"):
        said = run(*command, "--out", out)
        assert said.exit_code == 0, said.output
    far, _ = checkpoint.read_weights(path_of(f"{bucket}/run"))
    near, _ = checkpoint.read_weights(tmp_path / "run")
    assert all(torch.equal(far[name], near[name]) for name in near)
    measured = run("evaluate", "--checkpoint", f"{bucket}/run", "--shards", shards, "--device", "cpu")
    assert measured.exit_code == 0, measured.output


SLOW = """
import sys, time
from distillcache.runtime import claim
claim.RENEWED_EVERY = 0.1
from distillcache.cache.store import Store
written = Store.write
def write(*given):
    written(*given)
    print("written", flush=True)
    time.sleep(60)
Store.write = write
from distillcache.cli import run
run()
"""


def test_a_killed_job_is_taken_over(bucket: str, shards: str, teacher_folder: Path, tmp_path: Path) -> None:
    url = f"{bucket}/killed.zarr"
    command = ["cache-teacher", "--shards", shards, "--cache", url, "--teacher", str(teacher_folder)]
    command += ["--image-size", str(SIZE), "--views", "6", "--device", "cpu", "--workers", "0"]
    process = subprocess.Popen([sys.executable, "-c", SLOW, *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "written\n"
    alive = run(*command, "--take-over")
    assert alive.exit_code == 2 and f"found one filled by pid {process.pid}" in alive.output
    process.kill()
    process.wait()
    assert "add --take-over" in run(*command).output
    said = run(*command, "--take-over")
    assert said.exit_code == 0, said.output
    assert not s3fs.S3FileSystem().exists(f"{url}.claim")
    near = run(*command[:4], tmp_path / "c.zarr", *command[5:])
    assert near.exit_code == 0
    assert files(Store(path_of(url))) == files(Store(tmp_path / "c.zarr"))


def test_a_job_that_was_taken_over_writes_no_more(shards: str, teacher: Teacher) -> None:
    url = path_of("memory://taken/c.zarr")
    store = cached(url, expand(shards), teacher, views=3)
    with claims_on(url) as first:
        with pytest.raises(InputError, match="one filled by pid"):
            claims_on(url).__enter__()
        fsspec.filesystem("memory").pipe_file("/taken/c.zarr.claim", b'{"nonce": "another"}')
        time.sleep(0.5)
        with pytest.raises(InputError, match="a claim of this job"):
            fill(store, store.samples(expand(shards)), teacher, first, views=6, batch_size=16, workers=0)
    assert fsspec.filesystem("memory").exists("/taken/c.zarr.claim")  # the other's


def test_what_is_left_of_an_unfinished_store_goes_and_what_is_not_ours_stays(shards: str, teacher: Teacher) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/left/c.zarr/label/c/0/0/0": b"old", "/left/c.zarr/seed/zarr.json": b"{}"})
    whole = cached(path_of("memory://left/c.zarr"), expand(shards), teacher, views=3)
    assert not list(whole.units()) and (whole.cycle(0).label[:, 0] < whole.missing).all()
    memory.pipe("/others/c.zarr/holiday.jpg", b"")
    with pytest.raises(InputError, match=r"a place where nothing is yet, found 1 objects, such as holiday.jpg"):
        cached(path_of("memory://others/c.zarr"), expand(shards), teacher, views=3)
    assert memory.exists("/others/c.zarr/holiday.jpg")


class Counting(MemoryFileSystem):
    """Counts requests; every third of reading and writing fails once `failing`."""

    protocol = "counting"
    asked: ClassVar[Counter[str]] = Counter()
    failing = False

    def _note(self, kind: str, path: str) -> None:
        self.asked[f"{kind} {path}"] += 1
        if self.failing and self.asked.total() % 3 == 0:
            raise OSError("503 Slow Down")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        self._note("get", self._strip_protocol(path))
        return bytes(super().cat_file(path, start, end, **more))

    def pipe_file(self, path: str, value: bytes, **more: Any) -> None:
        self._note("put", self._strip_protocol(path))
        super().pipe_file(path, value, **more)

    def find(self, path: str, **more: Any) -> Any:
        self._note("list", self._strip_protocol(path))
        return super().find(path, **more)


fsspec.register_implementation("counting", Counting, clobber=True)


def test_requests_are_few_and_those_that_fail_are_made_again(
    shards: str, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = cached(tmp_path / "c.zarr", expand(shards), teacher, views=15)
    monkeypatch.setattr(Counting, "failing", True)
    far = cached(path_of("counting://c.zarr"), expand(shards), teacher, views=15)
    assert {n: d for n, d in files(far).items() if "/c/" in n} == {n: d for n, d in files(near).items() if "/c/" in n}
    monkeypatch.setattr(Counting, "failing", False)
    Counting.asked.clear()
    store = Store(path_of("counting://c.zarr"))
    assert store.views_of_all() == 15
    store.samples()
    assert Counting.asked.total() < 30
    Counting.asked.clear()
    for cycle in range(4):
        np.testing.assert_array_equal(store.cycle(cycle).label, near.cycle(cycle).label)
    chunks = {path: n for path, n in Counting.asked.items() if path.startswith("get") and "/c/" in path}
    assert len(chunks) == 4 and set(chunks.values()) == {1}


def test_nobody_waits_for_a_server_that_keeps_a_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """It went away while the job ran: the job ends, and its claim is left."""
    monkeypatch.setattr(claim, "_LEFT_WITHIN", 0.2)
    with claims_on(path_of("memory://away/c.zarr")):
        monkeypatch.setattr(claim.Claim, "_read", lambda self: time.sleep(30))
        began = time.monotonic()
    assert time.monotonic() - began < 5 and fsspec.filesystem("memory").exists("/away/c.zarr.claim")
