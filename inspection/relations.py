"""What a label is to its view: the target's, the partner's or neither's. Every command asks here."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..cache.store import Store
from ..datasets.augment.mixes import mixes
from ..datasets.order import ALONE

RELATIONS = ("target", "partner", "neither")
TARGET, PARTNER, NEITHER = range(len(RELATIONS))
MARKS = {"target": "=", "partner": "~", "neither": "!"}


class Mixed(NamedTuple):
    """How views of a shard are mixed, (view, sample).

    partner int32, ALONE where a view shows nothing of another; kind uint8, a number of `KINDS`; lam float64.
    """

    partner: NDArray[np.int32]
    kind: NDArray[np.uint8]
    lam: NDArray[np.float64]


def mixed(store: Store, shard: int, views: range) -> Mixed:
    """Return how `views` of a shard are mixed.

    Who is paired with nobody has no partner, nor has a view whose lambda is 1: its pair was left unmixed, or lambda
    came out as 1, or the box as empty.
    """
    paired = store.order().partners(shard, views)
    kind, lam = mixes(store.manifest.recipe, store.seeds(shard), paired, np.arange(views.start, views.stop))
    return Mixed(np.where(lam < 1, paired, np.int32(ALONE)), kind, lam)


def lambda_text(lam: float) -> str:
    """Return lambda with three digits, or with five where three would round it to 0 or 1."""
    return f"{lam:.{5 if 0.4995 < abs(lam - 0.5) < 0.5 else 3}f}"


def relations(label: NDArray[Any], target: NDArray[np.int32], partner: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return what labels (view, sample) are to their views, uint8 numbers of `RELATIONS`.

    `target` is the samples' (sample,), `partner` that of `mixed`. A label that is both targets' is the target's.
    """
    partners_target = np.where(partner == ALONE, target, target[partner])
    either = np.where(label == partners_target, np.uint8(PARTNER), np.uint8(NEITHER))
    return np.where(label == target, np.uint8(TARGET), either)
