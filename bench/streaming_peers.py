"""mosaicml/streaming and LitData over the photos of `remote.py`: their own formats, from S3, timm's DeiT transform.

Neither is a dependency: pip install --target FOLDER --no-deps mosaicml-streaming litdata and what they miss, and
PYTHONPATH=FOLDER. Both fetch ahead into a folder that is empty at the start of each turn.
"""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import webdataset
from rendering import timms_transform

SHARD_BYTES = 10_000_000


def peers(shards: Path, served: Path, url: str, batch: int, workers: int) -> dict[str, Callable[[], int]]:
    """Pack the photos of `shards` into `served`/peers for those that are installed; return what shows all once."""
    os.environ |= {"AWS_ENDPOINT_URL": url, "S3_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "a"}
    os.environ |= {"AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    found: dict[str, Callable[[], int]] = {}
    if importlib.util.find_spec("streaming"):
        mds(shards, served / "peers" / "mds")
        found["mosaicml/streaming"] = lambda: by_streaming(batch, workers)
    if importlib.util.find_spec("litdata"):
        lit(shards, served / "peers" / "lit")
        found["LitData"] = lambda: by_litdata(url, batch, workers)
    return found


def photos(shards: Path) -> Iterator[bytes]:
    urls = sorted(map(str, shards.glob("*.tar")))
    yield from (sample["jpg"] for sample in webdataset.WebDataset(urls, shardshuffle=False))


def mds(shards: Path, out: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(out), columns={"jpg": "bytes"}, size_limit=SHARD_BYTES) as writer:
        for photo in photos(shards):
            writer.write({"jpg": photo})


def lit(shards: Path, out: Path) -> None:
    from litdata.streaming.cache import Cache

    cache = Cache(str(out), chunk_bytes=SHARD_BYTES)
    for number, photo in enumerate(photos(shards)):
        cache[number] = {"jpg": photo}
    cache.done()
    cache.merge()


class Transformed:
    """Decodes and transforms what a peer's dataset yields."""

    of_bytes = staticmethod(timms_transform())

    def of(self, sample: dict[str, bytes]) -> torch.Tensor:
        return self.of_bytes(sample["jpg"])


def by_streaming(batch: int, workers: int) -> int:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    class Dataset(Transformed, StreamingDataset):
        def __getitem__(self, at: int) -> torch.Tensor:
            return self.of(super().__getitem__(at))

    clean_stale_shared_memory()
    with tempfile.TemporaryDirectory() as local:
        dataset = Dataset(remote="s3://peers/mds", local=local, shuffle=False, batch_size=batch, predownload=8 * batch)
        loader = torch.utils.data.DataLoader(dataset, batch_size=batch, num_workers=workers)
        return sum(len(images) for images in loader)


def by_litdata(url: str, batch: int, workers: int) -> int:
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # it has no option for a server without TLS

    class Dataset(Transformed, StreamingDataset):
        def __getitem__(self, at: object) -> torch.Tensor:
            return self.of(super().__getitem__(at))

    with tempfile.TemporaryDirectory() as local:
        dataset = Dataset(
            "s3://peers/lit", cache_dir=local, shuffle=False, storage_options={"endpoint_url": url},
            max_pre_download=8,
        )  # fmt: skip
        shown = sum(len(images) for images in StreamingDataLoader(dataset, batch_size=batch, num_workers=workers))
        shutil.rmtree(local, ignore_errors=True)
        Path(local).mkdir()
        return shown
