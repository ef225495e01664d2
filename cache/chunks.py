"""Chunks: the files in which a store keeps its arrays; what is there, lost, or left over, by their names alone."""

import glob
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..runtime.atomic import sync
from .layout import ArrayByView


class Chunks:
    """The chunk files of one store. A unit's are numbered (block of views, shard, 0), the label's is written last."""

    def __init__(self, store: Path, block: int, by_view: Sequence[ArrayByView]) -> None:
        """Know the files of `store`, with `block` views in a chunk of each of the arrays `by_view`."""
        self._store, self._block = store, block
        self._by_view = {array.name: array for array in by_view}

    def file(self, name: str, *chunk: int) -> Path:
        """Return where a chunk of the array `name` is, or would be."""
        return Path(self._file(name, chunk))

    def _file(self, name: str, chunk: tuple[int, ...]) -> str:
        """As text, which is many times faster than a Path for ImageNet's chunks."""
        return f"{self._store}/{name}/c/{'/'.join(map(str, chunk))}"

    def missing(self, block: int, shard: int) -> list[str]:
        """Return the arrays by view that have no chunk for a unit."""
        chunks = ((name, array.chunk(block, shard)) for name, array in self._by_view.items())
        return [name for name, chunk in chunks if not os.path.exists(self._file(name, chunk))]  # noqa: PTH110

    def require_whole(self, names: Iterable[str], views: range, shards: Iterable[int]) -> None:
        """Raise ValueError if a unit of `views` and `shards` that has its label chunk lacks another of `names`."""
        for block in range(views.start // self._block, -(-views.stop // self._block)):
            for shard in shards:
                lost = [name for name in self.missing(block, shard) if name in names]
                if lost and "label" not in lost:
                    raise self.damage(lost[0], self._by_view[lost[0]].chunk(block, shard), "is lost")

    def damage(self, name: str, chunk: tuple[int, ...], how: str) -> ValueError:
        """Return the error that says which chunk is lost or damaged, and what to do about it."""
        remedy = "restore it, or cache again elsewhere"
        if name in self._by_view:
            remedy = f"remove {self.file('label', *chunk[:2], 0)} and run cache-teacher again"
        return ValueError(f"{self._store}: chunk {self.file(name, *chunk).relative_to(self._store)} {how}; {remedy}")

    def nbytes(self, *, metadata: bool = True) -> dict[str, int]:
        """Return how many bytes each array takes, compressed; its chunks alone, or with its metadata."""
        arrays = [folder for folder in sorted(self._store.iterdir()) if folder.is_dir()]
        return {array.name: sum(_sizes(str(array if metadata else array / "c"))) for array in arrays}

    def sync(self, names: Iterable[str], block: int, shard: int) -> None:
        """Have a unit's chunks of `names` on disk, with all folders that lead to them from the arrays' on."""
        for name in names:
            chunk = self._by_view[name].chunk(block, shard)
            file = self.file(name, *chunk)
            for path in (file, *file.parents[: len(chunk) + 1]):
                sync(path)


def publish(unfinished: Path, path: Path) -> None:
    """Move a whole store to its place, once all of it is on disk."""
    for written in (*unfinished.rglob("*"), unfinished):
        sync(written)
    unfinished.rename(path)
    sync(path.parent)


def sweep(store: Path) -> None:
    """Remove what killed processes left unfinished. Only where no process is at work on the store."""
    for path in store.rglob("*.partial"):
        path.unlink(missing_ok=True)
    for folder in store.parent.glob(f"{glob.escape(store.name)}.{'[0-9a-f]' * 32}.partial"):
        shutil.rmtree(folder, ignore_errors=True)


def _sizes(folder: str) -> Iterator[int]:
    """Yield the size of every file below a folder; pathlib would take many times as long for ImageNet's chunks."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _sizes(entry.path)
            else:
                yield entry.stat().st_size
