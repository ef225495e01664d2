"""A store in a folder."""

import contextlib
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import zarr

from ...runtime.atomic import sync
from ...runtime.errors import InputError
from .base import Storage


class LocalStorage(Storage):
    """A folder of a local or a shared file system."""

    root: Path

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._durable: set[Path] = set()  # folders that are on disk by name: each look at the disk costs a flush of it

    @property
    def writable(self) -> bool:
        """Whether the folder's permissions allow it."""
        return os.access(self.root, os.W_OK)

    def open(self) -> zarr.Group:
        """Return the group that the folder is."""
        if self.root.is_file():
            raise InputError("", "a store, which is a folder", "a file")
        return zarr.open_group(self.root, mode="r+" if self.writable else "r", zarr_format=3)

    def exists(self, name: str = "") -> bool:
        """Return whether there is a file or a folder of that name."""
        return os.path.exists(f"{self.root}/{name}")  # noqa: PTH110 (a Path takes many times as long)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return what one walk of the folder finds."""
        return dict(_sizes(f"{self.root}/{folder}", "")) if self.exists(folder) else {}

    def read(self, name: str) -> bytes:
        """Return the bytes of a file."""
        return (self.root / name).read_bytes()

    def sync(self, name: str) -> None:
        """Flush a file, and each folder above it once."""
        file = self.root / name
        sync(file)
        for folder in file.parents[: len(Path(name).parts)]:
            sync(folder)
            if folder in self._durable:
                return
            if folder != file.parent:
                self._durable.add(folder)

    def sweep(self) -> None:
        """Remove files and folders that end in .partial."""
        for path in self.root.rglob("*.partial"):
            path.unlink(missing_ok=True)
        for folder in self.root.parent.glob(f"{glob.escape(self.root.name)}.{'[0-9a-f]' * 32}.partial"):
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def unfinished(self) -> Iterator[Path]:
        """Yield a folder beside this one, which takes its place by one rename."""
        folder = self.root.with_name(f"{self.root.name}.{uuid.uuid4().hex}.partial")
        try:
            yield folder
            for path in (*folder.rglob("*"), folder):
                sync(path)
            folder.rename(self.root)
            sync(self.root.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sizes(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    """Pathlib would take many times as long for ImageNet's chunks."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _sizes(entry.path, f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}", entry.stat().st_size
