"""A store on an object store: a chunk is an object, which is put whole or not, and what is there is listed."""

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import zarr
from upath import UPath
from zarr.abc.store import OffsetByteRequest
from zarr.storage import FsspecStore, WrapperStore

from ...runtime.errors import InputError
from ...runtime.remote import ANSWER_WITHIN, Patience, RemoteFile, without_secrets
from .base import Storage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

Answer = TypeVar("Answer")
_AT_ONCE = 16
_ROOT = "zarr.json"


class ObjectStorage(Storage):
    """All objects below an fsspec URL: of S3, Google's or Azure's, or in memory."""

    def __init__(self, root: UPath) -> None:
        super().__init__(root)
        self._url = str(root).rstrip("/")
        self._chunks: dict[str, set[str]] = {}

    @property
    def writable(self) -> bool:
        """Whether this is not somebody's cache of it; who may write shows when it is written to."""
        return "::" not in self._url

    def open(self) -> zarr.Group:
        """Return the group that is there, with whatever is listed afresh from now on."""
        self._chunks.clear()
        store = FsspecStore.from_url(self._url, read_only=not self.writable)
        return zarr.open_group(_Patient(store, self._url), mode="r+" if self.writable else "r", zarr_format=3)

    def exists(self, name: str = "") -> bool:
        """Return whether there is an object of that name, or any; chunks are asked for once they are not in a list."""
        if not name:
            return RemoteFile(self._url).exists()
        folder, is_chunk, chunk = name.partition("/c/")
        if not is_chunk:
            return RemoteFile(f"{self._url}/{name}").exists()
        if folder not in self._chunks:
            self.sizes(f"{folder}/c")
        listed = self._chunks[folder]
        if chunk not in listed and RemoteFile(f"{self._url}/{name}").exists():  # written since
            listed.add(chunk)
        return chunk in listed

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return what one listing finds."""
        found = RemoteFile(f"{self._url}/{folder}").sizes()
        if folder.endswith("/c"):
            self._chunks[folder.removesuffix("/c")] = set(found)
        return found

    def read(self, name: str) -> bytes:
        """Return the bytes of an object."""
        return RemoteFile(f"{self._url}/{name}").read()

    def sync(self, name: str) -> None:
        """Note that a chunk is there: what was put is safe."""
        folder, _, chunk = name.partition("/c/")
        if folder in self._chunks:
            self._chunks[folder].add(chunk)

    def sweep(self) -> None:
        """Nothing is ever left of an object that was not put whole."""

    @contextlib.contextmanager
    def unfinished(self) -> Iterator[Path]:
        """Yield a folder of this machine whose files are put here, the root's last: without it there is no store."""
        with tempfile.TemporaryDirectory(prefix="distillcache-") as temporary:
            folder = Path(temporary) / "store"
            yield folder
            files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
            self._clear({name.partition("/")[0] for name in files})
            root = files.pop(_ROOT)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for put in [pool.submit(self._put, name, file) for name, file in files.items()]:
                    put.result()
            self._put(_ROOT, root)

    def _put(self, name: str, file: Path) -> None:
        RemoteFile(f"{self._url}/{name}").write(file.read_bytes())

    def _clear(self, ours: set[str]) -> None:
        """Remove what is left of a store that was not finished; ValueError for anything else that is here."""
        left = list(self.sizes())
        if foreign := [name for name in left if name == _ROOT or name.partition("/")[0] not in ours]:
            found = f"{len(left):,} objects, such as {foreign[0]}"
            raise InputError(without_secrets(self._url), "a place where nothing is yet", found, "name another")
        for name in left:
            RemoteFile(f"{self._url}/{name}").remove()


class _Patient(WrapperStore[FsspecStore]):
    """Zarr's store of objects, which asks again where a later request may succeed."""

    def __init__(self, store: FsspecStore, url: str) -> None:
        super().__init__(store)
        self._url = url

    def _with_store(self, store: FsspecStore) -> "_Patient":
        return _Patient(store, self._url)

    async def get(
        self, key: str, prototype: "BufferPrototype", byte_range: "ByteRequest | None" = None
    ) -> "Buffer | None":
        # Asked for all of an object, clients ask for its size first.
        wanted = byte_range or OffsetByteRequest(0)
        return await self._answered(key, lambda: self._store.get(key, prototype, wanted))

    async def get_partial_values(
        self, prototype: "BufferPrototype", key_ranges: "Iterable[tuple[str, ByteRequest | None]]"
    ) -> "list[Buffer | None]":
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def set(self, key: str, value: "Buffer") -> None:
        await self._answered(key, lambda: self._store.set(key, value))

    async def exists(self, key: str) -> bool:
        return await self._answered(key, lambda: self._store.exists(key))

    async def _answered(self, key: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        patience = Patience(f"{without_secrets(self._url)}/{key}")
        while True:
            try:
                return await asyncio.wait_for(ask(), ANSWER_WITHIN)
            except Exception as error:  # each client has errors of its own
                await asyncio.sleep(patience.after(error))
