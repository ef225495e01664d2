"""Estimating stage 1: a short measured run of it, before anyone spends days."""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..datasets.augment import pixels
from ..datasets.shards.files import size_of
from ..datasets.shards.index import ShardIndex, index_shards, only, without_bad_images
from ..datasets.shards.mirror import DEFAULT, Mirror
from .claims import claims_on
from .create import Request, create, describe
from .fill import fill
from .layout import arrays_by_view
from .store import Store
from .teacher import Teacher

_INDEXED = 16
_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What stage 1 will take, and what that was measured on."""

    shards: int
    indexed_shards: int
    """How many of them were looked into."""
    samples: int
    """Where not all were looked into, in proportion to their bytes."""
    views: int
    seconds: float
    """For one process on a device like this."""
    nbytes: int
    """Of the whole store."""
    views_per_second: float
    bytes_per_view: float
    """Of labels, checks and logits; the rest is samples and a few whole views."""
    memory: int
    """Bytes in which each process that trains from the store, `soft` where it has logits, holds a cycle's labels."""
    teacher_views_per_second: float
    """Of the teacher alone, on views that are ready."""
    shard_nbytes: int
    blocks: int
    """Of views, each a chunk of every shard's labels."""
    measured_views: int
    measured_seconds: float


def index_some(urls: Sequence[str], mirror: Mirror = DEFAULT) -> list[ShardIndex]:
    """Return the indexes of up to 16 shards evenly spread over `urls`, the first with its SHA-256."""
    first, *others = np.unique(np.linspace(0, len(urls) - 1, _INDEXED).astype(int))
    return [
        *index_shards([urls[first]], mirror=mirror),
        *index_shards([urls[i] for i in others], digest=False, mirror=mirror),
    ]


class _Timed:
    """A teacher that notes when it was asked; what is asked first warms up and does not count."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.views, self.began, self.ended = 0, 0.0, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._teacher, name)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return the teacher's logits, once they are there."""
        said = self._teacher.logits(images).cpu()
        self.ended = time.perf_counter()
        if self.began:
            self.views += len(images)
        else:
            self.began = self.ended
        return said


def estimate(
    indexes: Sequence[ShardIndex],
    urls: Sequence[str],
    request: Request,
    teacher: Teacher,
    mirror: Mirror,
    *,
    batch_size: int,
    workers: int,
    seconds: float,
) -> Estimate:
    """Run stage 1 on samples of the first of `indexes` for about `seconds` in a temporary place; scale it to `urls`.

    Raises ValueError as stage 1 would.
    """
    samples, nbytes = sum(len(index.keys) for index in indexes), sum(index.shard.nbytes for index in indexes)
    if len(indexes) < len(urls):
        indexed = nbytes
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # far away each is a request
            nbytes = sum(pool.map(size_of, urls))
        samples = round(samples * nbytes / indexed)
    with mirror.holding(indexes[0].url):
        index = without_bad_images(indexes[0], pixels.decode, skip=True)
    with tempfile.TemporaryDirectory(prefix="distillcache-") as folder:
        timed, _ = _run(Path(folder) / "few.zarr", index, 4 * batch_size, request, teacher, mirror, batch_size, workers)
        wanted = int(seconds * timed.views / (timed.ended - timed.began))
        timed, store = _run(Path(folder) / "more.zarr", index, wanted, request, teacher, mirror, batch_size, workers)
        rate, block = timed.views / (timed.ended - timed.began), store.manifest.block
        data = store.chunks.nbytes(metadata=False)
        by_view = sum(data[name] for name in store.by_view)
        by_sample = sum(data[name] for name in ("key", "seed", "target", "offset", "nbytes"))
        fixed = sum(store.chunks.nbytes().values()) - by_view - by_sample
        count = int(store.counts.sum())
    total = samples * request.views
    return Estimate(
        shards=len(urls),
        indexed_shards=len(indexes),
        samples=samples,
        views=request.views,
        seconds=total / rate,
        nbytes=round(total * by_view / (count * block) + samples * by_sample / count + fixed),
        views_per_second=rate,
        bytes_per_view=by_view / (count * block),
        memory=samples * request.recipe.repeats * sum(array.nbytes for array in arrays_by_view(store.manifest)),
        teacher_views_per_second=_alone(teacher, request.recipe.size, batch_size, seconds / 4),
        shard_nbytes=nbytes,
        blocks=-(-request.views // block),
        measured_views=timed.views,
        measured_seconds=timed.ended - timed.began,
    )


def _alone(teacher: Teacher, size: int, batch_size: int, seconds: float) -> float:
    """Return the views a second of a teacher to whom the same ones are shown again and again."""
    images = torch.randint(0, 256, (batch_size, size, size, 3), dtype=torch.uint8)
    teacher.logits(images).cpu()
    began, views = time.perf_counter(), 0
    while not views or time.perf_counter() - began < seconds:
        teacher.logits(images).cpu()
        views += batch_size
    return views / (time.perf_counter() - began)


def _run(
    path: Path,
    index: ShardIndex,
    views_in_all: int,
    request: Request,
    teacher: Teacher,
    mirror: Mirror,
    batch_size: int,
    workers: int,
) -> tuple[_Timed, Store]:
    """Cache a block of views of as many samples of `index` as make `views_in_all`, in at least four batches."""
    views = describe(request, teacher, []).block
    count = max(1, min(len(index.keys), -(-views_in_all // views)))
    batch_size = max(1, min(batch_size, count * views // 4))
    timed = _Timed(teacher)
    store = create(path, request, [only(index, range(count), ())], timed, mirror=mirror)
    timed.began, timed.views = 0.0, 0  # the probes were asked first
    samples = store.samples([index.url], mirror)
    with claims_on(path) as claims:
        fill(store, samples, timed, claims, views=views, batch_size=batch_size, workers=workers)
    return timed, store
