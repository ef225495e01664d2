"""A teacher from scratch, for those without pretrained weights: the student's loop without a store."""

import hashlib
from collections.abc import Sequence

from torch import nn

from ..datasets.order import Order
from ..datasets.recipes import Recipe
from ..datasets.shards import Samples, ShardIndex, samples_of
from .config import Config, Place
from .loop import Run, train
from .replay import Replay


def fingerprint(indexes: Sequence[ShardIndex], recipe: Recipe) -> str:
    """Return 16 hex digits that identify what is trained on: recipe and shards."""
    parts = [recipe.fingerprint, *(index.shard.sha256 for index in indexes)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def train_teacher(
    classifier: nn.Module,
    classes: int,
    indexes: Sequence[ShardIndex],
    recipe: Recipe,
    held_out: Samples | None,
    config: Config,
    place: Place,
) -> list[dict[str, float]]:
    """Train `classifier` on fresh views of the shards and return a row of figures an epoch; see `loop.train`."""
    samples = samples_of(indexes, config.seed)
    order = Order(
        seed=config.seed,
        shards=[index.shard.name for index in indexes],
        samples=samples.count.tolist(),
        recipe=recipe,
        window=config.window,
    )
    replay = Replay(order, samples, None, batch_size=config.batch_size, workers=place.workers)
    run = Run(
        student=classifier,
        classes=classes,
        replay=replay,
        config=config,
        place=place,
        held_out=held_out,
        size=recipe.size,
    )
    return train(run)
