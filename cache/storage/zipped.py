"""A packed store: one zip file, in which each member has the chunks of many shards, as Zarr's sharding keeps them.

Zarr and xarray read it as it is. By this storage it has the files that the store had before it was packed: chunks are
in it byte for byte, so that to pack is to copy, and to unpack is to copy back.
"""

import functools
import itertools
import json
import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import WrapperStore, ZipStore

from ...datasets.shards.files import digests, sha256_of
from ...datasets.shards.index import RESTORE
from ...datasets.shards.mirror import DEFAULT, Mirror
from ...runtime.errors import InputError
from ...runtime.paths import AnyPath
from .base import Storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_SHARDING = "sharding_indexed"
_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a member: how long its name is, and what else stands before its bytes
_NO_CHUNK = 2**64 - 1


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes of a member."""

    member: str
    start: int
    end: int


class ZippedStorage(Storage):
    """A packed store, on this machine or far away: then it is fetched whole into `mirror`."""

    writable = False

    def __init__(self, root: AnyPath, mirror: Mirror = DEFAULT) -> None:
        super().__init__(root)
        self._mirror = mirror

    def open(self) -> zarr.Group:
        """Return the group that the zip file has."""
        return zarr.open_group(_RangedZip(self._members), mode="r", zarr_format=3)

    def exists(self, name: str = "") -> bool:
        """Return whether there is a file of that name, as it was before it was packed; far away it is fetched first."""
        if isinstance(self.root, Path) and not self.root.exists():
            return False
        return not name or name in self._files

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return what the zip file's directory and the indexes of its members say."""
        below = f"{folder}/" if folder else ""
        files = [name for name in self._files if name.startswith(below)]
        return {name.removeprefix(below): self._size(name) for name in files}

    def read(self, name: str) -> bytes:
        """Return the bytes that a file had before it was packed."""
        if name not in self._files:
            raise FileNotFoundError(f"{self.root}/{name}")
        span = self._files[name]
        data = self._members.read(span.member, span.start, span.end)
        return unsharded(data) if self._is_sharded(name) else data

    @functools.cached_property
    def sha256(self) -> str:
        """Of the zip file, hex."""
        return sha256_of(str(self._members.file))

    @functools.cached_property
    def _members(self) -> "_Members":
        if isinstance(self.root, Path):
            file = self.root
        else:
            url = str(self.root)
            file = self._mirror.path(self._mirror.hold(url, digests([url]).get(url, "")))
        try:
            return _Members(file)
        except zipfile.BadZipFile as error:
            raise InputError(self.root, "a packed store", f"another file ({error})", RESTORE) from error

    @functools.cached_property
    def _files(self) -> dict[str, _Span]:
        found: dict[str, _Span] = {}
        for member, nbytes in self._members.sizes.items():
            array, _, inside = member.partition("/")
            if inside.startswith("c/") and (grid := self._in_a_member(array)):
                found |= self._chunks(member, nbytes, grid)
            else:
                found[member] = _Span(member, 0, nbytes)
        return found

    def _size(self, name: str) -> int:
        span = self._files[name]
        return len(self.read(name)) if self._is_sharded(name) else span.end - span.start

    def _is_sharded(self, name: str) -> bool:
        """Return whether a file is the metadata of an array of which a member has several chunks."""
        array, _, inside = name.partition("/")
        return inside == "zarr.json" and self._in_a_member(array) is not None

    @functools.cache  # noqa: B019 (a storage lives as long as the process)
    def _in_a_member(self, array: str) -> tuple[int, ...] | None:
        """Return how many chunks a member has in each dimension, where it has several."""
        metadata = json.loads(self._members.read(f"{array}/zarr.json"))
        codec = metadata["codecs"][0]
        if codec["name"] != _SHARDING:
            return None
        outer, inner = metadata["chunk_grid"]["configuration"]["chunk_shape"], codec["configuration"]["chunk_shape"]
        return tuple(a // b for a, b in zip(outer, inner, strict=True))

    def _chunks(self, member: str, nbytes: int, grid: tuple[int, ...]) -> Iterator[tuple[str, _Span]]:
        """Yield the chunks in a member by the names of the files that they were."""
        array, _, *at = member.split("/")
        index = self._members.read(member, nbytes - 16 * int(np.prod(grid)) - 4)
        if google_crc32c.value(index[:-4]) != int.from_bytes(index[-4:], "little"):
            raise InputError(self.root, f"the member {member}", "one whose index is damaged", RESTORE)
        spans = np.frombuffer(index[:-4], "<u8").reshape(*grid, 2)
        for local in itertools.product(*map(range, grid)):
            start, length = (int(n) for n in spans[local])
            if start != _NO_CHUNK:
                number = (int(outer) * count + inner for outer, count, inner in zip(at, grid, local, strict=True))
                yield f"{array}/c/{'/'.join(map(str, number))}", _Span(member, start, start + length)


class _Members:
    """The members of a zip file, any bytes of which are read at once where they are not compressed."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._zip = zipfile.ZipFile(file)
        self._bytes = file.open("rb", buffering=0)
        self.infos = {info.filename: info for info in self._zip.infolist() if not info.is_dir()}
        self.sizes = {name: info.file_size for name, info in self.infos.items()}

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        info = self.infos[name]
        end = info.file_size if end is None else end
        if info.compress_type != zipfile.ZIP_STORED:
            return bytes(self._zip.read(info)[start:end])
        return os.pread(self._bytes.fileno(), end - start, self._begin(name) + start)

    @functools.cache  # noqa: B019
    def _begin(self, name: str) -> int:
        offset = self.infos[name].header_offset
        lengths = _LOCAL_HEADER.unpack(os.pread(self._bytes.fileno(), _LOCAL_HEADER.size, offset))
        return int(offset + _LOCAL_HEADER.size + sum(lengths))


class _RangedZip(WrapperStore[ZipStore]):
    """Zarr's zip file, that need not read a member from its start to find a chunk in it."""

    def __init__(self, members: _Members) -> None:
        super().__init__(ZipStore(members.file))
        self._members = members

    async def get(
        self, key: str, prototype: "BufferPrototype", byte_range: "ByteRequest | None" = None
    ) -> "Buffer | None":
        if key not in self._members.sizes:
            return None
        start, end = 0, self._members.sizes[key]
        match byte_range:
            case RangeByteRequest():
                start, end = byte_range.start, byte_range.end
            case OffsetByteRequest():
                start = byte_range.offset
            case SuffixByteRequest():
                start = max(0, end - byte_range.suffix)
        return prototype.buffer.from_bytes(self._members.read(key, start, end))

    async def get_partial_values(
        self, prototype: "BufferPrototype", key_ranges: "Iterable[tuple[str, ByteRequest | None]]"
    ) -> "list[Buffer | None]":
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]


def sharded(metadata: bytes, grid: "Sequence[int]") -> bytes:
    """Return an array's metadata with `grid` of its chunks in each file."""
    array: dict[str, Any] = json.loads(metadata)
    shape = array["chunk_grid"]["configuration"]["chunk_shape"]
    inner = {"chunk_shape": shape, "codecs": array["codecs"], "index_codecs": _INDEX_CODECS, "index_location": "end"}
    whole = [length * count for length, count in zip(shape, grid, strict=True)]
    array["chunk_grid"]["configuration"]["chunk_shape"] = whole
    array["codecs"] = [{"name": _SHARDING, "configuration": inner}]
    return _as_zarr_writes(array)


def unsharded(metadata: bytes) -> bytes:
    """Return the metadata that `sharded` was given."""
    array: dict[str, Any] = json.loads(metadata)
    inner = array["codecs"][0]["configuration"]
    array["chunk_grid"]["configuration"]["chunk_shape"] = inner["chunk_shape"]
    array["codecs"] = inner["codecs"]
    return _as_zarr_writes(array)


def index_of(lengths: "Sequence[int]", places: int) -> bytes:
    """Return what ends a member of chunks in a row: where in it each starts and how long it is; `places` for chunks."""
    index = np.full((places, 2), _NO_CHUNK, "<u8")
    index[: len(lengths), 0] = np.cumsum([0, *lengths[:-1]])
    index[: len(lengths), 1] = lengths
    data = index.tobytes()
    return data + int.to_bytes(google_crc32c.value(data), 4, "little")


def _as_zarr_writes(array: dict[str, Any]) -> bytes:
    return json.dumps(array, indent=2).encode()
