"""Counting a store's labels, shard by shard; counts of parts of it add up."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..cache.store import Store
from ..datasets.augment.mixes import KINDS
from .relations import NEITHER, RELATIONS, TARGET, mixed, relations

BINS = 10
"""Of lambda and of entropy."""
_DENSE = 4096  # classes up to which all pairs of them are counted in one array
_NEVER_AGREED = 1000  # samples that are kept of those never agreed with


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
    mixes: NDArray[np.int64]
    """Views by kind of mix, bin of lambda, and what their label is to them: (kind, bin, relation)."""
    entropy_histogram: NDArray[np.int64]
    entropy: float = 0.0
    never: int = 0
    never_agreed: list[tuple[float, int, int, int]]
    """Of samples never agreed with: share of their most frequent label, shard, sample, and that label."""

    @classmethod
    def empty(cls, store: Store) -> "Counts":
        """Return counts of no shard."""
        classes = store.manifest.teacher.classes
        return cls(
            views=np.zeros(store.views, np.int64),
            agree=np.zeros(store.views, np.int64),
            of_class=np.zeros((4, classes), np.int64),
            confused=Confusions(classes),
            mixes=np.zeros((len(KINDS), BINS, len(RELATIONS)), np.int64),
            entropy_histogram=np.zeros(BINS, np.int64),
            never_agreed=[],
        )

    def merge(self, other: "Counts") -> None:
        """Add the counts of other shards."""
        for name in ("views", "agree", "of_class", "mixes", "entropy_histogram", "entropy", "never"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.confused.merge(other.confused)
        self.add_never_agreed(other.never_agreed)

    def add_never_agreed(self, samples: list[tuple[float, int, int, int]]) -> None:
        """Keep those of which the teacher is surest."""
        surest_first = sorted([*self.never_agreed, *samples], key=lambda sample: (-sample[0], *sample[1:]))
        self.never_agreed = surest_first[:_NEVER_AGREED]


def count(store: Store, shards: range) -> Counts:
    """Return the counts of some shards of a store."""
    counts, targets = Counts.empty(store), store.targets()
    for shard in shards:
        _count_shard(store, counts, shard, targets[shard, : store.counts[shard]])
    return counts


def _count_shard(store: Store, counts: Counts, shard: int, target: NDArray[np.int32]) -> None:
    label = store.labels(shard)[:, : len(target)].astype(np.int32)
    rows = np.flatnonzero(label[:, 0] != store.missing)
    if not len(rows):
        return
    how = mixed(store, shard, range(store.views))
    label, partner, kind, lam = label[rows], how.partner[rows], how.kind[rows], how.lam[rows]
    relation = relations(label, target, partner)
    is_target, is_neither = relation == TARGET, relation == NEITHER
    counts.views[rows] += len(target)
    counts.agree[rows] += is_target.sum(axis=1)
    classes = counts.of_class.shape[1]
    samples_of_class = np.bincount(target, minlength=classes)
    counts.of_class += [
        samples_of_class,
        samples_of_class * len(rows),
        np.bincount(target, is_target.sum(axis=0), minlength=classes).astype(np.int64),
        np.bincount(label.ravel(), minlength=classes),
    ]
    counts.confused.add(np.broadcast_to(target, label.shape)[is_neither], label[is_neither])
    of_lambda = np.minimum(lam * BINS, BINS - 1).astype(np.uint8)
    group = (kind * np.uint8(BINS) + of_lambda) * np.uint8(len(RELATIONS)) + relation
    counts.mixes += np.bincount(group.ravel(), minlength=counts.mixes.size).reshape(counts.mixes.shape)
    labels = spread(label)
    counts.entropy += float(labels.entropy.sum())
    most = most_bits(store.views, classes)
    counts.entropy_histogram += np.histogram(np.minimum(labels.entropy, most), BINS, (0, most))[0]
    never = np.flatnonzero(~is_target.any(axis=0))
    counts.never += len(never)
    counts.add_never_agreed([(int(labels.times[i]) / len(rows), shard, i, int(labels.most[i])) for i in never.tolist()])


def most_bits(views: int, classes: int) -> float:
    """Return the largest entropy, bits, that labels of so many views and classes can have; 1 at least."""
    return math.log2(max(2, min(views, classes)))


class Spread(NamedTuple):
    """Of each sample (n,): the entropy of its labels in bits, the most frequent of them, and how often it occurs."""

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
        most = self._some.most_common(n)
        if self._all is not None:
            top = np.argsort(-self._all, kind="stable")[:n]
            most = [(int(code), int(self._all[code])) for code in top if self._all[code]]
        return [(*divmod(code, self._classes), count) for code, count in most]


def spread(label: NDArray[Any]) -> Spread:
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
    return Spread(entropy.astype(np.float64), longest & (2**32 - 1), longest >> 32)
