"""More shards for a store: their samples join it, and every label, check and place that it holds stays as it is."""

from collections.abc import Callable, Sequence

from ..datasets.samples import samples_of
from ..datasets.shards.index import ShardIndex
from ..datasets.shards.mirror import DEFAULT, Mirror
from ..runtime.crew import Crew
from ..runtime.errors import InputError
from .arrays import append_shards
from .claims import Claims
from .create import require_known_classes
from .store import Store


def add_shards(
    store: Store, index: Callable[[], Sequence[ShardIndex]], claims: Claims, crew: Crew, mirror: Mirror = DEFAULT
) -> None:
    """Let the samples of the shards that `index` reads join `store`, behind its own, without labels yet.

    The first rank of a crew does that, and the others see it. Those that the store has already are left alone, so that
    who was stopped may do the same again. Processes that fill the store meanwhile go on with the shards that they know.
    Raises ValueError for a shard of a name that the store has that is another one, or of more samples than its arrays
    have columns; for a class that the teacher does not know; and for a store without digests, to be upgraded first.
    """
    with crew.first_before_others("added"):
        if crew.first:
            _add(store, index(), claims, mirror)
    store.reopen()


def _add(store: Store, indexes: Sequence[ShardIndex], claims: Claims, mirror: Mirror) -> None:
    with claims.structure():
        store.reopen()
        known = {shard.name: shard for shard in store.manifest.shards}
        for index in indexes:
            if (other := known.get(index.shard.name)) and other != index.shard:
                expected = f"another name than that of the store's own shard of {other.nbytes} bytes"
                raise InputError(f"shard {other.name}", expected, f"{index.shard.nbytes} bytes", "rename it")
        new = [index for index in indexes if index.shard.name not in known]
        if not new:
            return
        if store.digests() is None:
            raise InputError(store.path, "digests of its images", "none", "first run: distillcache upgrade")
        for index in new:
            if len(index.keys) > store.columns:
                remedy = f"pack them anew: distillcache make-shards, `per_shard={store.columns}`"
                expected = f"at most the {store.columns} samples of the store's largest shard"
                raise InputError(f"shard {index.shard.name}", expected, len(index.keys), remedy)
        samples = samples_of(new, store.manifest.seed, mirror)
        require_known_classes(samples, new, store.manifest.teacher.classes)
        for name in append_shards(store.storage.open(), store.manifest, samples):
            for file in store.storage.sizes(name) if name not in store.by_view else ["zarr.json"]:
                store.storage.sync(f"{name}/{file}")
        skipped = [sample for index in new for sample in index.skipped]
        store.record(
            shards=(*store.manifest.shards, *(index.shard for index in new)),
            skipped=(*store.manifest.skipped, *skipped),
        )
