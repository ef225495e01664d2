"""Counting a store's labels, shard by shard; counts of parts of it add up."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..cache.store import Store
from ..datasets.augment.plans import plan_mix
from ..datasets.order import ALONE
from .lookup import partners_of

BINS = 10
"""Of lambda and of entropy."""
_DENSE = 4096  # classes up to which all pairs of them are counted in one array
_MIXES = 100_000  # pairs of views whose lambda is drawn again; of a larger store as many, at random
_DOUBTS = 1000  # samples that are kept of those never agreed with


@dataclass(kw_only=True, slots=True)
class Counts:
    """What is counted while shards go by; its size depends on classes and views, not on samples."""

    views: NDArray[np.int64]
    """Of each view, labels and (`agree`) those that are the target."""
    agree: NDArray[np.int64]
    of_class: NDArray[np.int64]
    """Of each class, samples, their views, those of them that agree, and labels: (4, class)."""
    confused: "Confusions"
    """Target and label where the label is neither the target nor the partner's."""
    mixes: dict[tuple[str, int], NDArray[np.int64]]
    """By kind and bin of lambda: views, those that agree, those that are the partner's."""
    entropy_histogram: NDArray[np.int64]
    entropy: float = 0.0
    partner: int = 0
    never: int = 0
    doubts: list[tuple[float, int, int, int]]
    """Of samples never agreed with: share of what is said most, shard, sample, and that label."""

    @classmethod
    def empty(cls, store: Store) -> "Counts":
        """Return counts of no shard."""
        classes = store.manifest.teacher.classes
        return cls(
            views=np.zeros(store.views, np.int64),
            agree=np.zeros(store.views, np.int64),
            of_class=np.zeros((4, classes), np.int64),
            confused=Confusions(classes),
            mixes={},
            entropy_histogram=np.zeros(BINS, np.int64),
            doubts=[],
        )

    def merge(self, other: "Counts") -> None:
        """Add the counts of other shards."""
        for name in ("views", "agree", "of_class", "entropy_histogram", "entropy", "partner", "never"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for key, counted in other.mixes.items():
            self.mixes[key] = self.mixes.get(key, 0) + counted
        self.confused.merge(other.confused)
        self.add_doubts(other.doubts)

    def add_doubts(self, doubts: list[tuple[float, int, int, int]]) -> None:
        """Keep those of which the teacher is surest."""
        self.doubts = sorted([*self.doubts, *doubts], key=lambda doubt: (-doubt[0], *doubt[1:]))[:_DOUBTS]


def count(path: Path, shards: range) -> Counts:
    """Return the counts of some shards of the store at `path`."""
    store = Store(path)
    found, targets = Counts.empty(store), store.targets()
    for shard in shards:
        _count_shard(store, found, shard, targets[shard])
    return found


def _count_shard(store: Store, found: Counts, shard: int, targets: NDArray[np.int32]) -> None:
    count, classes = int(store.counts[shard]), found.of_class.shape[1]
    label, target = store.labels(shard)[:, :count].astype(np.int32), targets[:count]
    rows = np.flatnonzero(label[:, 0] != store.missing)
    if not len(rows):
        return
    label = label[rows]
    partner = partners_of(store.order(), shard, range(store.views))[rows]
    theirs = np.where(partner == ALONE, target, target[partner])
    agrees = label == target
    partners = ~agrees & (label == theirs)
    found.views[rows] += count
    found.agree[rows] += agrees.sum(axis=1)
    found.partner += int(partners.sum())
    found.of_class += [
        np.bincount(target, minlength=classes),
        np.bincount(target, minlength=classes) * len(rows),
        np.bincount(target, agrees.sum(axis=0), minlength=classes).astype(np.int64),
        np.bincount(label.ravel(), minlength=classes),
    ]
    neither = ~agrees & ~partners
    found.confused.add(np.broadcast_to(target, label.shape)[neither], label[neither])
    _count_mixes(store, found, shard, rows, partner, agrees, partners)
    said = _said(label)
    found.entropy += float(said.entropy.sum())
    found.entropy_histogram += np.histogram(said.entropy, BINS, (0, np.log2(max(2, store.views))))[0]
    never = np.flatnonzero(~agrees.any(axis=0))
    found.never += len(never)
    found.add_doubts([(int(said.times[i]) / len(rows), shard, i, int(said.most[i])) for i in never.tolist()])


def _count_mixes(
    store: Store, found: Counts, shard: int, rows: Any, partner: NDArray[np.int32], agrees: Any, partners: Any
) -> None:
    """Draw the mix of each pair again, or of a large store's of some, and count both of its sides."""
    seeds, recipe = store.seeds(shard), store.manifest.recipe
    cells, total = partner.size, store.views * int(store.counts.sum())
    chosen = np.arange(cells)
    if total > 2 * _MIXES:
        chosen = np.random.default_rng(shard).choice(cells, 2 * _MIXES * cells // total, replace=False, shuffle=False)
    at = divmod(chosen, partner.shape[1])
    once = (partner[at] == ALONE) | (partner[at] > at[1])  # of a pair, the first
    for row, sample in zip(at[0][once].tolist(), at[1][once].tolist(), strict=True):
        other = int(partner[row, sample])
        mixed = other != ALONE
        mix = plan_mix(recipe, int(seeds[sample]), int(seeds[other]), int(rows[row])) if mixed else None
        key = (mix.kind, min(BINS - 1, int(mix.lam * BINS))) if mix else ("none", BINS - 1)
        counted = found.mixes.setdefault(key, np.zeros(3, np.int64))
        for side in (sample, other) if mixed else (sample,):
            counted += (1, agrees[row, side], partners[row, side])


class _Said(NamedTuple):
    """Of each sample (n,): the entropy of its labels in bits, what is said most often, and how often."""

    entropy: NDArray[np.float64]
    most: NDArray[np.int64]
    times: NDArray[np.int64]


class Confusions:
    """Counts of pairs of classes: in one array, or where that would be large only of those that occur."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._all = np.zeros(classes**2, np.int64) if classes <= _DENSE else None
        self._some: Counter[int] = Counter()

    def add(self, first: NDArray[np.int32], second: NDArray[np.int32]) -> None:
        """Count pairs, class by class (n,)."""
        codes = first * np.int64(self._classes) + second
        if self._all is not None:
            self._all += np.bincount(codes, minlength=len(self._all))
        else:
            codes, counts = np.unique(codes, return_counts=True)
            self._some.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))

    def merge(self, other: "Confusions") -> None:
        """Add the counts of others of as many classes."""
        if self._all is not None and other._all is not None:
            self._all += other._all
        self._some.update(other._some)

    def most(self, n: int) -> list[tuple[int, int, int]]:
        """Return the `n` most frequent pairs with their counts."""
        found = self._some.most_common(n)
        if self._all is not None:
            top = np.argsort(-self._all, kind="stable")[:n]
            found = [(int(code), int(self._all[code])) for code in top if self._all[code]]
        return [(*divmod(code, self._classes), count) for code, count in found]


def _said(label: NDArray[Any]) -> _Said:
    """Summarise labels (view, sample) by sample."""
    views, samples = label.shape
    ordered = np.sort(label.T.astype(np.uint32), axis=1)
    starts = np.ones(ordered.shape, bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    at = np.flatnonzero(starts)  # where a run of one label begins
    counts = np.diff(np.append(at, starts.size))
    shares = counts / views
    entropy = np.bincount(at // views, -shares * np.log2(shares), minlength=samples)
    first = np.searchsorted(at, np.arange(samples) * views)  # of each sample's runs
    longest = np.maximum.reduceat((counts << 32) | ordered.ravel()[at], first)
    return _Said(entropy.astype(np.float64), longest & (2**32 - 1), longest >> 32)
