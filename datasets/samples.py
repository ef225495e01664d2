"""Samples: the images of an ordered list of shards, each read by its place in a file."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import InputError
from .order import ALONE, Rows, sample_seeds
from .shards.files import base_name, read_range
from .shards.index import Shard, ShardIndex
from .shards.mirror import DEFAULT, Mirror
from .shards.parquet import is_parquet, read_row
from .supply import Supply

MISSING = -1
"""The number of the file of an image that is not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Where the samples of an ordered list of shards are: one row a shard, one column a sample, padded with zeros.

    file int32 (its number in `files`), seed uint64, target int32, offset uint64 and nbytes uint32 are (shard, sample);
    `count` says how many are real. `keys`, NumPy's variable-width strings, and `digest`, uint64 (see `image_digest`),
    are there where the shards were just indexed: a store reads its own when they are asked for, and processes that
    render are sent none. `files` says where
    users keep the files and `paths` where they are read, which for those from far away is the mirror; `supply` brings
    them there, for this process and those that render for it. Of an image that a copy lacks `file` is `MISSING`.
    """

    files: Sequence[str]
    paths: Sequence[str]
    supply: Supply | None
    count: NDArray[np.int64]
    file: NDArray[np.int32]
    seed: NDArray[np.uint64]
    target: NDArray[np.int32]
    offset: NDArray[np.uint64]
    nbytes: NDArray[np.uint32]
    keys: NDArray[Any] | None = None
    digest: NDArray[np.uint64] | None = None

    def read(self, shard: int, sample: int) -> bytes:
        """Return the image file of one sample.

        Raises ValueError if the file it lies in ends before it, or is far away and does not come; LostError, in
        processes that fetch nothing, if that went from the mirror.
        """
        file, place = self._file(shard, sample), (int(self.offset[shard, sample]), int(self.nbytes[shard, sample]))
        try:
            return self._read(file, *place)
        except LostError:
            if not self.supply:
                raise
            self.supply.hold(file)
        try:
            return self._read(file, *place)
        finally:
            self.supply.let_go(file)

    def _read(self, file: int, start: int, length: int) -> bytes:
        if file == MISSING:
            raise InputError("", "an image", "none in this copy of the images", "name what holds it too")
        path, mirrored = self.paths[file], self.paths[file] != self.files[file]
        try:
            data = read_row(path, start) if is_parquet(self.files[file]) else read_range(path, start, length)
        except FileNotFoundError:
            if mirrored:
                raise LostError from None
            raise
        if len(data) != length:
            if mirrored:
                raise LostError
            raise InputError("", f"{length} bytes at {start}", f"{len(data)}: the shard is shorter than it was")
        return data

    @property
    def there(self) -> NDArray[np.bool_]:
        """Which samples (shard, sample) have an image here."""
        there: NDArray[np.bool_] = self.file != MISSING
        return there

    @property
    def as_stored(self) -> bool:
        """Whether each shard's samples lie in a file of its own, and no other file is needed."""
        return bool((self.file == one_file_a_shard(*self.file.shape)).all())

    def file_name(self, shard: int, sample: int) -> str:
        """Return the name of the file that a sample lies in."""
        return base_name(self.files[self._file(shard, sample)])

    def difference(self, shard: int, expected: Shard) -> InputError | None:
        """Return how a shard's bytes differ from what is expected of them, or None; reads them all.

        Those of a mirrored shard are compared whenever it comes to the mirror, and not here.
        """
        file = self._file(shard, 0)
        return None if self.paths[file] != self.files[file] else expected.difference(self.paths[file])

    def files_of(self, rows: Rows) -> frozenset[int]:
        """Return in which files the samples of `rows` and their partners lie."""
        mixed = rows.partner != ALONE
        own, partners = self.file[rows.shard, rows.sample], self.file[rows.shard[mixed], rows.partner[mixed]]
        return frozenset(np.union1d(own, partners).tolist()) - {MISSING}

    def _file(self, shard: int, sample: int) -> int:
        return int(self.file[shard, sample])

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave behind what is of no use where samples are rendered: the keys, and who fetches their files."""
        kept: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return functools.partial(Samples, **kept | {"keys": None, "digest": None, "supply": None}), ()


def one_file_a_shard(shards: int, columns: int) -> NDArray[np.int32]:
    """Return the `file` of samples of which each shard's lie in a file of its own, in their order."""
    return np.broadcast_to(np.arange(shards, dtype=np.int32)[:, None], (shards, columns))


class LostError(Exception):
    """What a sample is read from went from the mirror, or is shorter there than it was."""


class SampleError(ValueError):
    """An image that can't be read or decoded; `shard` and `sample` say which, `cause` why."""

    def __init__(self, shard: int, sample: int, name: str, cause: InputError) -> None:
        super().__init__(shard, sample, name, cause)
        self.shard, self.sample, self.name, self.cause = shard, sample, name, cause

    def __str__(self) -> str:
        return f"shard {self.name}, sample {self.sample}: {self.cause}"


class _Files(TypedDict):
    files: Sequence[str]
    paths: Sequence[str]
    supply: Supply | None


def files_at(urls: Sequence[str], shards: Sequence[Shard], mirror: Mirror) -> _Files:
    """Return what samples say of their files, which are `shards` at `urls`."""
    supply = Supply(mirror, urls, shards)
    return {"files": urls, "paths": supply.paths, "supply": supply if supply.remote else None}


def samples_of(indexes: Sequence[ShardIndex], seed: int, mirror: Mirror = DEFAULT) -> Samples:
    """Return the samples of freshly indexed shards, with augmentation seeds drawn from `seed`."""
    counts = np.array([len(index.keys) for index in indexes])
    columns = int(counts.max(initial=0))

    def table(rows: Iterable[Sequence[Any] | NDArray[np.uint64]], dtype: Any) -> NDArray[Any]:
        padded: NDArray[Any] = np.zeros((len(indexes), columns), dtype)
        for row, values in zip(padded, rows, strict=True):
            row[: len(values)] = values
        return padded

    return Samples(
        **files_at([index.url for index in indexes], [index.shard for index in indexes], mirror),
        count=counts,
        file=one_file_a_shard(len(indexes), columns),
        seed=table((sample_seeds(seed, i.shard.name, len(i.keys)) for i in indexes), np.uint64),
        target=table((i.targets for i in indexes), np.int32),
        offset=table((i.offsets for i in indexes), np.uint64),
        nbytes=table((i.nbytes for i in indexes), np.uint32),
        keys=table((i.keys for i in indexes), np.dtypes.StringDType()),
        digest=table((i.digests for i in indexes), np.uint64) if all(i.digests for i in indexes) else None,
    )
