"""ImageNet's store with 300 views, simulated, on an object store and in one file: requests, seconds, bytes.

The object store is a server of S3's listing and reading, 30 ms before every answer.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obstore
import zarr
from figures import Figure, report
from store import limit, simulated
from zarr.storage import FsspecStore, ObjectStore

from distillcache.cache.pack import pack, unpack
from distillcache.cache.store import Store
from distillcache.runtime.paths import path_of
from distillcache.tests.servers import ASKED

DELAY = 0.03
SHARDS = int(os.environ.get("SHARDS", "1024"))
WHAT = f"ImageNet simulated ({SHARDS:,} shards, 300 views)"


def main() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "bucket").mkdir()
        store = simulated(folder / "bucket" / "c.zarr", shards=SHARDS)
        yield from in_one_file(store, folder)
        command = [sys.executable, "-m", "distillcache.tests.servers", str(folder), str(DELAY), "inf"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            yield from on_an_object_store(server.stdout.readline().strip())
        finally:
            server.kill()
            server.wait()


def on_an_object_store(server: str) -> Iterator[Figure]:
    os.environ |= {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    opened: list[Store] = []

    def open_store() -> None:
        opened.append(Store(path_of("s3://bucket/c.zarr")))
        assert opened[0].views_of_all() == 300
        opened[0].samples()

    seconds, requests, _ = measured(server, open_store)
    yield limit(f"{WHAT} in S3: requests to open it, find what is cached, and read the samples", requests, "-", "", 100)
    print(f"        in {seconds:.1f} s, 30 ms before every answer")
    for cycle in range(5):
        seconds, requests, _ = measured(server, lambda cycle=cycle: opened[0].cycle(cycle))
        print(f"        cycle {cycle}: {requests} requests, {seconds:.1f} s")
    chunks = [f"{name}/c/20/{shard}/0" for name in ("label", "check") for shard in range(SHARDS)]
    fsspec_store: Any = FsspecStore.from_url("s3://bucket/c.zarr", storage_options={"max_concurrency": 1})
    rust = obstore.store.S3Store(
        "bucket", prefix="c.zarr", endpoint=server, client_options={"allow_http": True}, region="us-east-1"
    )
    for name, one in (("s3fs", fsspec_store), ("obstore", ObjectStore(rust, read_only=True))):
        found = [measured(server, lambda one=one: read(one, chunks)) for _ in range(3)]
        seconds, requests, cpu = min(found)
        print(f"        {len(chunks):,} chunks by {name}: {requests} requests, {seconds:.2f} s, of a core {cpu:.2f} s")


def read(store: Any, chunks: list[str]) -> None:
    """Read chunks as zarr does, 32 at a time."""

    async def all_of_them() -> None:
        import asyncio

        prototype, free = zarr.core.buffer.default_buffer_prototype(), asyncio.Semaphore(32)

        async def one(name: str) -> None:
            async with free:
                assert await store.get(name, prototype)

        await asyncio.gather(*map(one, chunks))

    zarr.core.sync.sync(all_of_them())


def in_one_file(store: Store, folder: Path) -> Iterator[Figure]:
    packed, started = folder / "c.zarr.zip", time.perf_counter()
    pack(store, packed)
    seconds = time.perf_counter() - started
    yield limit(f"{WHAT} packed", packed.stat().st_size / 1e9, "-", " GB", 1.3)
    yield limit(f"{WHAT} packed: members", len(zipfile.ZipFile(packed).namelist()), "-", "", 1000)
    print(f"        packed in {seconds:.1f} s")
    started = time.perf_counter()
    opened = Store(packed)
    opened.views_of_all()
    print(f"        opened, and found complete, in {time.perf_counter() - started:.2f} s")
    for name, one in (("packed", opened), ("a folder", Store(Path(store.path)))):
        started = time.perf_counter()
        one.cycle(0)
        print(f"        first cycle of a block, {name}: {time.perf_counter() - started:.2f} s")
    started = time.perf_counter()
    unpack(opened, folder / "again.zarr")
    print(f"        unpacked in {time.perf_counter() - started:.1f} s")
    same = subprocess.run(["diff", "-rq", str(store.path), str(folder / "again.zarr")], check=False).returncode == 0
    print(f"        every file as before: {same}")


def measured(server: str, act: Callable[[], object]) -> tuple[float, int, float]:
    """Return the seconds, the requests and the CPU seconds of this process that something takes."""
    before, started, cpu = asked(server), time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    act()
    seconds, now = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    return seconds, asked(server) - before - 1, now.ru_utime + now.ru_stime - cpu.ru_utime - cpu.ru_stime


def asked(server: str) -> int:
    with urllib.request.urlopen(f"{server}{ASKED}") as answer:
        return int(answer.read())


if __name__ == "__main__":
    report(main)
