"""A part of a store to try something on: which of its images are trained on."""

import fnmatch
import re

import numpy as np
from numpy.typing import NDArray

from ..cache.store import Store
from ..runtime.errors import InputError

_EXPECTED = "a share such as 0.1, images a class such as 50/class, or a pattern of shards' names"


def subset(store: Store, text: str) -> NDArray[np.bool_]:
    """Return which images of a store (shard, sample) `text` names.

    A share of every shard's images or so many of each class are those of the lowest seeds, so that a smaller part lies
    within a larger one; a pattern names shards, of which all images are in. Raises ValueError if that is none.
    """
    samples = store.samples()
    real = np.arange(samples.seed.shape[1]) < samples.count[:, None]
    if per_class := re.fullmatch(r"(\d+)/class", text):
        chosen = _lowest(samples.seed, samples.target.astype(np.int64), real, int(per_class[1]))
    elif share := re.fullmatch(r"\d*\.\d+|\d+(?:\.\d*)?%", text):
        part = float(share[0].rstrip("%")) / (100 if share[0].endswith("%") else 1)
        if part > 1:
            raise InputError("`subset`", "a share of at most 1, or 100%", repr(text))
        shard = np.broadcast_to(np.arange(len(real))[:, None], real.shape)
        chosen = _lowest(samples.seed, shard, real, np.ceil(part * samples.count).astype(np.int64)[shard[real]])
    else:
        named = [fnmatch.fnmatchcase(name, text) for name in store.manifest.shard_names]
        chosen = np.array(named)[:, None] & real
    if not chosen.any():
        raise InputError("`subset`", _EXPECTED, repr(text))
    return chosen


def _lowest(
    seed: NDArray[np.uint64], group: NDArray[np.int64], real: NDArray[np.bool_], count: int | NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return, of the images that are `real`, the `count` of the lowest seeds in each group."""
    order = np.lexsort((seed[real], group[real]))
    groups = group[real][order]
    begins = np.searchsorted(groups, groups)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - begins
    chosen = np.zeros_like(real)
    chosen[real] = rank < count
    return chosen
