"""Chunks: the files in which a store keeps its arrays; what is there, or lost, by their names alone."""

from collections import Counter
from collections.abc import Iterable, Sequence

from ..datasets.shards.index import RESTORE
from ..runtime.errors import InputError
from .layout import ArrayByView
from .storage.base import Storage


class Chunks:
    """The chunks of one store. A unit is one of each array by view, of which the label's is written last."""

    def __init__(self, storage: Storage, by_view: Sequence[ArrayByView]) -> None:
        self._storage, self._by_view = storage, {array.name: array for array in by_view}

    def exists(self, name: str, *chunk: int) -> bool:
        """Return whether a chunk of the array `name` is there."""
        return self._storage.exists(chunk_file(name, chunk))

    def cached(self, name: str, block: int, shard: int) -> bool:
        """Return whether a unit's chunk of the array by view `name` is there."""
        return self.exists(name, *self._by_view[name].chunk(block, shard))

    def units(self, name: str) -> set[tuple[int, int]]:
        """Return the (block, shard) of all units whose chunk of `name` is there, from one listing."""
        files = (file.split("/") for file in self._storage.sizes(f"{name}/c"))
        return {(int(block), int(shard)) for block, shard, *_, last in files if last == "0"}

    def require_whole(self, names: Iterable[str], blocks: Iterable[int], shards: Iterable[int]) -> None:
        """Raise ValueError if a unit of `blocks` and `shards` that has its label chunk lacks another of `names`."""
        for block in blocks:
            for shard in shards:
                lost = [name for name in names if not self.cached(name, block, shard)]
                if lost and self.cached("label", block, shard):
                    raise self.damage(lost[0], self._by_view[lost[0]].chunk(block, shard), "none")

    def damage(self, name: str, chunk: tuple[int, ...], found: str) -> InputError:
        """Return the error of a chunk that is lost or damaged, with what mends it."""
        remedy, root = RESTORE, self._storage.root
        if name in self._by_view:
            remedy = f"remove {root}/{chunk_file('label', (*chunk[:2], 0))} and run cache-teacher again"
        return InputError(root, f"the chunk {chunk_file(name, chunk)}", found, remedy)

    def nbytes(self, *, metadata: bool = True) -> dict[str, int]:
        """Return how many bytes each array takes, compressed; its chunks alone, or with its metadata."""
        nbytes: Counter[str] = Counter()
        for file, size in self._storage.sizes().items():
            name, _, inside = file.partition("/")
            if inside.startswith("c/") or (inside and metadata):
                nbytes[name] += size
        return dict(sorted(nbytes.items()))

    def sync(self, names: Iterable[str], block: int, shard: int) -> None:
        """Have a unit's chunks of `names` on disk."""
        for name in names:
            self._storage.sync(chunk_file(name, self._by_view[name].chunk(block, shard)))


def chunk_file(name: str, chunk: tuple[int, ...]) -> str:
    """Return the name of the file of a chunk of the array `name`."""
    return f"{name}/c/{'/'.join(map(str, chunk))}"
