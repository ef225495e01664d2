"""What a run is trained on: samples in an order and, from a store, what the teacher said of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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

    def shuffled_in(self, window: int) -> "TrainingSet":
        """Return the same in windows of so many shards; 0: of all."""
        return replace(self, order=replace(self.order, window=window))

    @classmethod
    def stored(
        cls, store: Store, shards: str | Sequence[str], window: int | None = None, mirror: Mirror = DEFAULT
    ) -> "TrainingSet":
        """Return the views of a store, rendered from `shards` (see `expand`), in the order of a `window` of those.

        Where no window is asked for they are shuffled as one, or in as many as `mirror` has room for, where they come
        from far away. Raises ValueError if they are others, or if `mirror` is too small for them.
        """
        manifest, samples = store.manifest, store.samples(expand(shards), mirror)
        return cls(
            order=store.order(_window(samples, window)),
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
        window: int | None = None,
        mirror: Mirror = DEFAULT,
        reporter: Reporter = SILENT,
    ) -> "TrainingSet":
        """Return as many views as are asked for, without labels, of `shards` (see `expand`), which are read.

        Of `window` see `stored`. Raises ValueError for what is wrong with the shards, or if `mirror` is too small.
        """
        indexes = index_shards(expand(shards), mirror=mirror, reporter=reporter)
        samples = samples_of(indexes, seed, mirror)
        names, counts = [index.shard.name for index in indexes], samples.count.tolist()
        return cls(
            order=Order(seed=seed, shards=names, samples=counts, recipe=recipe, window=_window(samples, window)),
            samples=samples,
            store=None,
            classes=max(len(class_names(samples.files)), 1 + int(samples.target.max())),
            fingerprint=fingerprint(recipe, seed, (index.shard for index in indexes)),
        )


def _window(samples: Samples, asked: int | None) -> int:
    return samples.supply.window(asked) if samples.supply else asked or 0
