"""Storage: where a store's files are, by their names below its root. Zarr reads and writes what is in them."""

import contextlib
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..runtime.atomic import sync


class LocalStorage:
    """A folder of a local or a shared file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._durable: set[Path] = set()  # folders that are on disk by name: each look at the disk costs a flush of it

    @property
    def writable(self) -> bool:
        """Whether files can be written here."""
        return os.access(self.root, os.W_OK)

    def exists(self, name: str = "") -> bool:
        """Return whether there is something of that name."""
        return os.path.exists(f"{self.root}/{name}")  # noqa: PTH110 (a Path takes many times as long)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the size in bytes of every file below a folder, by its name from there; nothing if it is not there."""
        return dict(_sizes(f"{self.root}/{folder}", "")) if self.exists(folder) else {}

    def sync(self, name: str) -> None:
        """Have a file on disk, and the folders by which it is found from the root on."""
        file = self.root / name
        sync(file)
        for folder in file.parents[: len(Path(name).parts)]:
            sync(folder)
            if folder in self._durable:
                return
            if folder != file.parent:
                self._durable.add(folder)

    def sweep(self) -> None:
        """Remove what killed processes left unfinished. Only where no process is at work."""
        for path in self.root.rglob("*.partial"):
            path.unlink(missing_ok=True)
        for folder in self.root.parent.glob(f"{glob.escape(self.root.name)}.{'[0-9a-f]' * 32}.partial"):
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def unfinished(self) -> Iterator[Path]:
        """Yield where to write what becomes this root: all of it, once it is on disk, or after an error nothing."""
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
