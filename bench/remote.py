"""Rendering from shards far away: through a mirror, beside the same shards on disk and webdataset's streaming.

One web server, 30 ms before every answer and 200 MB/s in all, for every contender; each shows all images once in a
turn, ours in three views each, webdataset's by timm's DeiT transform in one. Two processes render.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import unittest.mock
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import webdataset
from figures import Figure, Skipped, median, photo_shards, rates, ratio, report
from rendering import timms_transform
from streaming_peers import peers

from distillcache.datasets.augment.recipes import named
from distillcache.datasets.loader import Loader
from distillcache.datasets.order import Order
from distillcache.datasets.samples import Samples, samples_of
from distillcache.datasets.shards.index import index_shards
from distillcache.datasets.shards.mirror import Mirror
from distillcache.datasets.views import Renderer
from distillcache.tests.servers import SENT

DELAY, RATE = 0.03, 200e6
SHARDS, PHOTOS = 48, 100
BATCH, WORKERS, TURNS = 64, 2, 2


def main() -> Iterator[Figure | Skipped]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        served = folder / "served"
        pack(served / "shards")
        command = [sys.executable, "-m", "distillcache.tests.servers", served, DELAY, RATE]
        server = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            yield from measured(folder, served, server.stdout.readline().strip())
        finally:
            server.kill()
            server.wait()


def measured(folder: Path, served: Path, url: str) -> Iterator[Figure | Skipped]:
    local = sorted(map(str, (served / "shards").glob("*.tar")))
    urls = [f"{url}/shards/{Path(path).name}" for path in local]
    others = peers(served / "shards", served, url, BATCH, WORKERS)
    total = sum(Path(path).stat().st_size for path in local)
    small, large = Mirror(folder / "small", total // 4), Mirror(folder / "large", 2 * total)
    near = samples_of(index_shards(local), 0)
    streamed, mirrored = (samples_of(index_shards(urls, mirror=mirror), 0, mirror) for mirror in (small, large))
    assert streamed.supply
    window = streamed.supply.window(None)
    fetched: list[int] = []
    waited: list[float] = []

    def stream() -> int:
        small.empty()
        before = sent(url)
        with arrivals(streamed) as arrived:
            views = shown(streamed, window, first=lambda files: waited.append(time.monotonic() - arrived(files)))
        fetched.append(sent(url) - before)
        return views

    found = rates(
        {
            "local": lambda: shown(near, window),
            "mirrored": lambda: shown(mirrored, window),
            "streamed": stream,
            "webdataset": lambda: by_webdataset(urls),
        },
        rounds=TURNS,
    )
    for ours, what, theirs, target in (
        ("mirrored", "shards far away, once the mirror holds them, beside local ones", "local", 0.98),
        ("streamed", "shards far away, through a mirror of a quarter of them, beside local ones", "local", 0.9),
        ("streamed", "the same beside webdataset's streaming with timm's transform", "webdataset", 4.0),
    ):
        yield Figure(
            what=what,
            ours=median(found, ours),
            theirs=median(found, theirs),
            value=ratio(found, ours, theirs),
            unit="x",
            target=target,
        )
    yield Figure(
        what="first batch of an empty mirror, after the shards that it is rendered from have arrived",
        ours=f"{statistics.median(waited):.2f} s",
        theirs="",
        value=max(waited),
        unit=" s",
        target=1.0,
        at_least=False,
    )
    for name, act in others.items():
        yield beside(name, act, statistics.median(found["streamed"]))
    yield Figure(
        what="bytes fetched in a streamed cycle, of those of all shards",
        ours=f"{max(fetched):,}",
        theirs=f"{total:,}",
        value=max(fetched) / total,
        unit="x",
        target=1.02,
        at_least=False,
    )


def beside(name: str, act: Callable[[], int], ours: float) -> Figure | Skipped:
    """Return a peer's median of the turns that it came through."""
    theirs, failed = [], ""
    for _ in range(TURNS):
        started = time.perf_counter()
        try:
            theirs.append(act() / (time.perf_counter() - started))
        except Exception as error:  # whatever a peer fails with
            failed = str(error).strip().splitlines()[-1].partition(":")[0]
    what = f"the same beside {name} from S3 with timm's transform"
    if not theirs:
        return Skipped(what=what, reason=f"it failed {TURNS} times: {failed}")
    if failed:
        what += f", which failed in {TURNS - len(theirs)} of {TURNS} turns ({failed})"
    middle = statistics.median(theirs)
    return Figure(
        what=what, ours=f"{ours:,.0f}/s", theirs=f"{middle:,.0f}/s", value=ours / middle, unit="x", target=1.0
    )


def pack(folder: Path) -> None:
    """Write shards of real photos, which repeat."""
    folder.mkdir(parents=True)
    source = webdataset.WebDataset(photo_shards(Path("runs/bench")), shardshuffle=False)
    photos = [sample.get("jpg") or sample["jpeg"] for sample in source]
    for shard in range(SHARDS):
        with webdataset.TarWriter(str(folder / f"photos-{shard:02d}.tar"), mtime=0.0) as tar:
            for i in range(PHOTOS):
                number = shard * PHOTOS + i
                tar.write({"__key__": f"{number:06d}", "jpg": photos[number % len(photos)], "cls": number % 10})


@contextlib.contextmanager
def arrivals(samples: Samples) -> Iterator[Callable[[Iterable[int]], float]]:
    """Note when files have come meanwhile; what is yielded says when the last of some did."""
    supply, at = samples.supply, dict[int, float]()
    assert supply
    fetch = supply.fetch

    def noted(file: int) -> None:
        fetch(file)
        at.setdefault(file, time.monotonic())

    with unittest.mock.patch.object(supply, "fetch", noted):
        yield lambda files: max(at[file] for file in files)


def shown(samples: Samples, window: int, first: Callable[[Iterable[int]], None] = lambda files: None) -> int:
    """Render a cycle in windows of shards and return how many views it has; `first` is told of the first batch."""
    names = [Path(name).name for name in samples.files]
    order = Order(seed=0, shards=names, samples=samples.count.tolist(), recipe=named("deit"), window=window)
    batches = (batch for epoch in range(3) for batch in order.epoch(epoch).batches(BATCH))
    with Loader(Renderer(order.recipe, samples), workers=WORKERS) as loader:
        views = 0
        for rows, _ in loader.load(batches):
            if not views:
                first(samples.files_of(rows))
            views += len(rows)
        return views


def by_webdataset(urls: list[str]) -> int:
    transform = timms_transform()
    pipes = [f"pipe:curl --silent --fail {url}" for url in urls]
    dataset = webdataset.WebDataset(pipes, shardshuffle=False, nodesplitter=webdataset.split_by_node)
    images = dataset.to_tuple("jpg").map_tuple(transform)
    loader = webdataset.WebLoader(images.batched(BATCH), batch_size=None, num_workers=WORKERS)
    return sum(len(batch) for (batch,) in loader)


def sent(url: str) -> int:
    with urllib.request.urlopen(f"{url}{SENT}") as answer:
        return int(answer.read())


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    report(main)
