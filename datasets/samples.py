"""Samples: the images of an ordered list of shards, each read by its place in its tar."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .order import sample_seeds
from .shards.files import read_range
from .shards.index import ShardIndex


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Where the samples of an ordered list of shards are: one row a shard, one column a sample, padded with zeros.

    seed uint64, target int32, offset uint64 and nbytes uint32 are (shard, sample); `count` says how many are real.
    """

    urls: Sequence[str]
    count: NDArray[np.int64]
    seed: NDArray[np.uint64]
    target: NDArray[np.int32]
    offset: NDArray[np.uint64]
    nbytes: NDArray[np.uint32]

    def read(self, shard: int, sample: int) -> bytes:
        """Return the image file of one sample; ValueError if the shard ends before it."""
        start, length = int(self.offset[shard, sample]), int(self.nbytes[shard, sample])
        data = read_range(self.urls[shard], start, length)
        if len(data) != length:
            raise ValueError(f"expected {length} bytes at {start}, found {len(data)}: the shard is shorter than it was")
        return data


class SampleError(ValueError):
    """An image that can't be read or decoded; `shard` and `sample` say which, `reason` why."""

    def __init__(self, shard: int, sample: int, name: str, reason: str) -> None:
        super().__init__(shard, sample, name, reason)
        self.shard, self.sample, self.name, self.reason = shard, sample, name, reason

    def __str__(self) -> str:
        return f"shard {self.name}, sample {self.sample}: {self.reason}"


def samples_of(indexes: Sequence[ShardIndex], seed: int) -> Samples:
    """Return the samples of freshly indexed shards, with augmentation seeds drawn from `seed`."""
    columns = max((len(index.keys) for index in indexes), default=0)

    def table(rows: Iterable[Sequence[int] | NDArray[np.uint64]], dtype: type) -> NDArray[Any]:
        padded: NDArray[Any] = np.zeros((len(indexes), columns), dtype)
        for row, values in zip(padded, rows, strict=True):
            row[: len(values)] = values
        return padded

    return Samples(
        urls=[index.url for index in indexes],
        count=np.array([len(index.keys) for index in indexes]),
        seed=table((sample_seeds(seed, i.shard.name, len(i.keys)) for i in indexes), np.uint64),
        target=table((i.targets for i in indexes), np.int32),
        offset=table((i.offsets for i in indexes), np.uint64),
        nbytes=table((i.nbytes for i in indexes), np.uint32),
    )
