"""What a run is trained on: samples in an order and, from a store, what the teacher said of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..cache.manifest import fingerprint
from ..cache.store import Store
from ..datasets.augment.recipes import Recipe
from ..datasets.order import Order
from ..datasets.samples import Samples, samples_of
from ..datasets.shards.files import class_names, expand
from ..datasets.shards.index import index_shards
from ..datasets.shards.mirror import DEFAULT, Mirror
from ..runtime.reporting import SILENT, Reporter


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSet:
    """What a run is trained on: samples in an order and, from a store, what the teacher said of them."""

    order: Order
    samples: Samples
    store: Store | None
    classes: int
    fingerprint: str

    def images(self, epochs: int, batch_size: int = 1) -> int:
        """Return how many images `epochs` show in whole batches of `batch_size`, which is all that is trained on."""
        return sum(size // batch_size * batch_size for size in self.order.sizes(epochs))

    @classmethod
    def stored(
        cls, store: Store, shards: str | Sequence[str], window: int = 0, mirror: Mirror = DEFAULT
    ) -> "TrainingSet":
        """Return the views of a store, rendered from `shards` (see `expand`).

        Raises ValueError if those are others, or come from far away and `mirror` is too small for their order.
        """
        manifest, samples = store.manifest, store.samples(expand(shards, mirror.retry_for), mirror)
        if samples.supply:
            samples.supply.require_room(window)
        return cls(
            order=store.order(window),
            samples=samples,
            store=store,
            classes=manifest.teacher.classes,
            fingerprint=manifest.fingerprint,
        )

    @classmethod
    def fresh(
        cls,
        shards: str | Sequence[str],
        recipe: Recipe,
        seed: int,
        window: int = 0,
        mirror: Mirror = DEFAULT,
        reporter: Reporter = SILENT,
    ) -> "TrainingSet":
        """Return as many views as are asked for, without labels, of `shards` (see `expand`), which are read.

        Raises ValueError for what is wrong with those, or if they come from far away and `mirror` is too small.
        """
        indexes = index_shards(expand(shards, mirror.retry_for), mirror=mirror, reporter=reporter)
        samples = samples_of(indexes, seed, mirror)
        if samples.supply:
            samples.supply.require_room(window)
        names = [index.shard.name for index in indexes]
        return cls(
            order=Order(seed=seed, shards=names, samples=samples.count.tolist(), recipe=recipe, window=window),
            samples=samples,
            store=None,
            classes=max(len(class_names(samples.files)), 1 + int(samples.target.max())),
            fingerprint=fingerprint(recipe, seed, (index.shard for index in indexes)),
        )
