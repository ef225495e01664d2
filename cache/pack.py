"""Packing: a finished store as one zip file, and back."""

import hashlib
import itertools
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from ..datasets.shards.files import SUMS, format_sums, parse_sums
from ..runtime import atomic
from ..runtime.errors import InputError
from ..runtime.paths import AnyPath, read_if_there
from ..runtime.reporting import SILENT, Reporter
from .chunks import chunk_file
from .layout import arrays_by_view
from .storage import PACKED, storage_at
from .storage.zipped import index_of, sharded
from .store import Store

_SHARDS_IN_A_MEMBER = 256
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # no time of its own: the digest of a packed store is that of what is in it
_MODE, _UNIX = 0o644 << 16, 3
_LARGE = 2**31 - 1


def pack(store: Store, out: AnyPath, *, reporter: Reporter = SILENT) -> str:
    """Write a finished store to `out` as one zip file, and return that file's SHA-256, hex.

    Chunks are copied as they are, and the file's bytes depend on nothing else. Its digest goes into the SHA256SUMS
    beside it, by which it is verified where it is fetched from far away. `reporter` counts bytes. Raises ValueError if
    labels are missing, if something is at `out`, or if that is no name of a packed store.
    """
    if out.suffix != PACKED:
        raise InputError("`out`", f"a name that ends in {PACKED}", out)
    if (complete := store.views_of_all()) < store.views:
        expected, found = f"labels of all {store.views} views", f"of {complete}"
        raise InputError(store.path, expected, found, "run cache-teacher again first")
    for block in range(len(store.blocks)):
        store.chunks.require_whole(store.by_view, [block], range(len(store.counts)))
    _require_nothing(out)
    digest = ""

    def write(file: BinaryIO) -> None:
        nonlocal digest
        _write(store, reporter, file)
        file.seek(0)
        digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()

    atomic.write(out, write)
    beside = out.with_name(SUMS)
    atomic.write_text(beside, format_sums(parse_sums(read_if_there(beside)) | {out.name: digest}))
    return digest


def unpack(store: Store, out: AnyPath, *, reporter: Reporter = SILENT) -> Store:
    """Write the files that a packed store had before to `out`, and return the store that is there then.

    `reporter` counts bytes. Raises ValueError if something is at `out`.
    """
    _require_nothing(out)
    with storage_at(out).unfinished() as folder:
        for name in store.storage.sizes():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            reporter.advance(file.write_bytes(store.storage.read(name)))
    return Store(out)


def _require_nothing(out: AnyPath) -> None:
    if out.exists():
        raise InputError(out, "a path where nothing is yet", "something", "name another")


def _write(store: Store, reporter: Reporter, file: BinaryIO) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, parts, nbytes in _members(store):
            member = zipfile.ZipInfo(name, _LONG_AGO)
            member.external_attr, member.create_system = _MODE, _UNIX
            with archive.open(member, "w", force_zip64=nbytes > _LARGE) as writer:
                for part in parts:
                    reporter.advance(writer.write(part))


def _members(store: Store) -> Iterator[tuple[str, Iterator[bytes], int]]:
    """Yield the members of the zip file: their names, their bytes in parts, and how many those are at most."""
    storage, sizes, arrays = store.storage, store.storage.sizes(), {a.name: a for a in arrays_by_view(store.manifest)}
    for name in sorted(sizes):
        folder, _, inside = name.partition("/")
        if folder not in arrays and (inside in ("", "zarr.json") or inside.startswith("c/")):
            yield name, iter([storage.read(name)]), sizes[name]
    shards = len(store.counts)
    together = min(shards, _SHARDS_IN_A_MEMBER)
    for name, array in arrays.items():
        grid = (1, together, 1, *(1 for _ in array.more))
        metadata = sharded(storage.read(f"{name}/zarr.json"), grid)
        yield f"{name}/zarr.json", iter([metadata]), len(metadata)
        for block in range(len(store.blocks)):
            for first in range(0, shards, together):
                units = range(first, min(first + together, shards))
                files = [chunk_file(name, array.chunk(block, shard)) for shard in units]
                lengths = [sizes[file] for file in files]
                index = index_of(lengths, together)
                member = chunk_file(name, array.chunk(block, first // together))
                yield member, itertools.chain(map(storage.read, files), [index]), sum(lengths) + len(index)
