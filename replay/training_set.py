"""What a run is trained on: samples in an order and, from a store, what the teacher said of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..cache.manifest import fingerprint
from ..cache.matching import Missing, find_samples
from ..cache.store import Store
from ..datasets.augment.recipes import Recipe
from ..datasets.order import Order
from ..datasets.samples import Samples, samples_of
from ..datasets.shards.files import class_names, expand, listed
from ..datasets.shards.index import index_shards
from ..datasets.shards.mirror import DEFAULT, Mirror
from ..runtime.reporting import SILENT, Reporter
from .subset import subset


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSet:
    """What a run is trained on: samples in an order and, from a store, what the teacher said of them."""

    order: Order
    samples: Samples
    store: Store | None
    classes: int
    fingerprint: str
    shards: Sequence[str]
    """Paths and URLs as a user named them."""

    def images(self, epochs: int, batch_size: int = 1) -> int:
        """Return how many images `epochs` show in whole batches of `batch_size`, which is all that is trained on."""
        return sum(size // batch_size * batch_size for size in self.order.sizes(epochs))

    def shuffled_in(self, window: int) -> "TrainingSet":
        """Return the same in windows of so many shards; 0: of all."""
        return replace(self, order=replace(self.order, window=window))

    @classmethod
    def stored(
        cls,
        store: Store,
        shards: str | Sequence[str],
        window: int | None = None,
        mirror: Mirror = DEFAULT,
        *,
        missing: Missing = "stop",
        part: str | None = None,
        reporter: Reporter = SILENT,
    ) -> "TrainingSet":
        """Return the views of a store, rendered from any copy of its images (see `find_samples`).

        They are in the order of a `window` of shards. Where none is asked for they are shuffled as one, or in as many
        as `mirror` has room for, where they come from far away. `part`: only the views of some images, see `subset`;
        what they are mixed with, and their order, are those of the whole store. Raises ValueError if images are
        missing, unless `missing` is `drop`, or if `mirror` is too small.
        """
        manifest, chosen = store.manifest, subset(store, part) if part else None
        remedy = "name what holds them too, or leave them out: `missing=drop`"
        samples = find_samples(store, shards, mirror, missing=missing, remedy=remedy, reporter=reporter)
        order, fingerprint = replace(store.order(_window(samples, window)), chosen=chosen), manifest.fingerprint
        if chosen is not None:
            reporter.log(f"subset {part}: {int(chosen.sum()):,} of {int(store.counts.sum()):,} images")
            fingerprint = f"{fingerprint}, subset {part}"
        if (lacking := int(store.counts.sum()) - int(samples.there.sum())) > 0:
            whole, order = sum(order.sizes(order.repeats)), replace(order, there=samples.there)
            left_out = 1 - sum(order.sizes(order.repeats)) / max(whole, 1)
            reporter.log(f"left out: {lacking:,} images, and with those mixed with them {left_out:.2%} of the views")
            digest = hashlib.sha256(np.packbits(samples.there).tobytes()).hexdigest()
            fingerprint = f"{fingerprint}, without {lacking} images {digest[:8]}"
        return cls(
            order=order,
            samples=samples,
            store=store,
            classes=manifest.teacher.classes,
            fingerprint=fingerprint,
            shards=listed(shards),
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
            shards=listed(shards),
        )


def _window(samples: Samples, asked: int | None) -> int:
    if not samples.supply:
        return asked or 0
    return samples.supply.window(asked) if samples.as_stored else samples.supply.window_of_all()
