"""What the teacher thought of a whole store: how often it agrees, with whom, and where it is in doubt."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...datasets.order import ALONE
from ...datasets.plans import plan_mix
from ..store import Store
from .lookup import class_name, partners_of

_DENSE = 4096  # classes up to which all pairs of them are counted in one array
_MIXES = 200_000  # pairs of views whose lambda is drawn again; of a larger store as many, at random
_BINS = 10  # of lambda and of entropy
_LISTED = 1000  # samples and confusions that are kept by name


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Views that have something in common, and how many of them the teacher gives the target or the partner's."""

    name: str
    views: int
    agreement: float
    """Share of the views with the target as their label."""
    partner: float
    """Share with another label that is the partner's target."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Class:
    """One class: as the ground truth has it, and as the teacher says it."""

    number: int
    name: str
    samples: int
    views: int
    """Cached views of its samples."""
    agreement: float | None
    labels: int
    """Views, of any sample, that the teacher gives this class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """How often views of one class, mixed with none of the other, get the other as their label."""

    target: int
    target_name: str
    label: int
    label_name: str
    views: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """A sample on which the teacher never agrees with the target."""

    shard: str
    key: str
    target: int
    target_name: str
    label: int
    """What it says most often."""
    label_name: str
    share: float
    """Share of the views in which it says that."""


@dataclass(kw_only=True, slots=True)
class Stats:
    """Statistics of all cached labels."""

    samples: int = 0
    views: int = 0
    """Labels, of all samples."""
    agreement: float = 0.0
    partner: float = 0.0
    by_view: list[float | None] = field(default_factory=list)
    by_mix: list[Group] = field(default_factory=list)
    by_lambda: list[Group] = field(default_factory=list)
    mixes_drawn: int = 0
    """Views behind `by_mix` and `by_lambda`: all, or of a large store as many as are drawn at random."""
    by_class: list[Class] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)
    entropy: float = 0.0
    """Mean over the samples of the entropy of their labels, bits."""
    entropy_histogram: list[int] = field(default_factory=list)
    """Samples in each tenth of 0 to log2(views) bits."""
    never: int = 0
    """How many samples the teacher never gives their target."""
    never_agreed: list[Doubt] = field(default_factory=list)
    """The first of those: where it says one and the same thing most often."""


def stats(store: Store, report: Callable[[int], None] = lambda shards: None) -> Stats:
    """Return statistics of all cached labels, read shard by shard; ValueError if there are none."""
    totals = _Totals(store)
    for shard in range(len(store.counts)):
        totals.add(shard)
        report(1)
    if not totals.views.sum():
        raise ValueError(f"{store.path}: expected labels, found none yet; run cache-teacher first")
    return totals.result()


class _Said(NamedTuple):
    """Of each sample (n,): the entropy of its labels in bits, what is said most often, and how often."""

    entropy: NDArray[np.float64]
    most: NDArray[np.int64]
    times: NDArray[np.int64]


class _Totals:
    """What is counted while shards go by; its size depends on classes and views, not on samples."""

    def __init__(self, store: Store) -> None:
        self.store, self.order = store, store.order()
        self.targets, self.classes = store.targets(), store.manifest.teacher.classes
        self.views, self.agree = np.zeros(store.views, np.int64), np.zeros(store.views, np.int64)
        self.partner = 0
        self.of_class = np.zeros((4, self.classes), np.int64)  # samples, views, agreeing views, labels
        self.confused = Confusions(self.classes)
        self.mixes: dict[tuple[str, int], NDArray[np.int64]] = {}  # by kind and bin of lambda: views, agree, partner
        self.entropy, self.entropy_histogram = 0.0, np.zeros(_BINS, np.int64)
        self.never = 0
        self.doubts: list[tuple[float, int, int, int]] = []  # minus the share, shard, sample, label
        self._share = min(1.0, _MIXES / max(1, store.views * int(store.counts.sum()) / 2))

    def add(self, shard: int) -> None:
        """Count one shard."""
        count = int(self.store.counts[shard])
        label = self.store.labels(shard)[:, :count].astype(np.int64)
        rows = np.flatnonzero(label[:, 0] != self.store.missing)
        if not len(rows):
            return
        label, target = label[rows], self.targets[shard, :count].astype(np.int64)
        partner = partners_of(self.order, shard, range(self.store.views))[rows]
        theirs = np.where(partner == ALONE, target, target[partner])
        agrees = label == target
        partners = ~agrees & (label == theirs)
        self.views[rows] += count
        self.agree[rows] += agrees.sum(axis=1)
        self.partner += int(partners.sum())
        self.of_class += [
            np.bincount(target, minlength=self.classes),
            np.bincount(target, minlength=self.classes) * len(rows),
            np.bincount(target, agrees.sum(axis=0), minlength=self.classes).astype(np.int64),
            np.bincount(label.ravel(), minlength=self.classes),
        ]
        neither = ~agrees & ~partners
        self.confused.add(np.broadcast_to(target, label.shape)[neither], label[neither])
        self._add_mixes(shard, rows, partner, agrees, partners)
        said = _said(label)
        self.entropy += float(said.entropy.sum())
        most = np.log2(max(2, self.store.views))
        self.entropy_histogram += np.histogram(said.entropy, _BINS, (0, most))[0]
        self._add_doubts(shard, said, len(rows), np.flatnonzero(~agrees.any(axis=0)))

    def _add_mixes(self, shard: int, rows: Any, partner: Any, agrees: Any, partners: Any) -> None:
        """Draw the mix of each pair again, or of a large store's of some, and count both of its sides."""
        seeds, recipe = self.store.seeds(shard), self.store.manifest.recipe
        own = np.arange(partner.shape[1])
        once = (partner == ALONE) | (partner > own)
        if self._share < 1:
            once &= np.random.default_rng(shard).random(once.shape) < self._share
        for row, sample in np.argwhere(once).tolist():
            other = int(partner[row, sample])
            mixed = other != ALONE
            mix = plan_mix(recipe, int(seeds[sample]), int(seeds[other]), int(rows[row])) if mixed else None
            key = (mix.kind, min(_BINS - 1, int(mix.lam * _BINS))) if mix else ("none", _BINS - 1)
            counted = self.mixes.setdefault(key, np.zeros(3, np.int64))
            for side in (sample, other) if mixed else (sample,):
                counted += (1, agrees[row, side], partners[row, side])

    def _add_doubts(self, shard: int, said: _Said, views: int, never: NDArray[np.int64]) -> None:
        """Keep those samples on which the teacher never agrees and is surest of something else."""
        self.never += len(never)
        for sample in never[np.argsort(-said.times[never], kind="stable")][:_LISTED].tolist():
            self.doubts.append((-int(said.times[sample]) / views, shard, sample, int(said.most[sample])))
        self.doubts = sorted(self.doubts)[:_LISTED]

    def result(self) -> Stats:
        """Return what was counted."""
        total, samples = int(self.views.sum()), int(self.of_class[0].sum())
        with np.errstate(invalid="ignore"):
            by_view = [None if n == 0 else float(a / n) for a, n in zip(self.agree, self.views, strict=True)]
        keys = self.store.key_table()
        return Stats(
            samples=samples,
            views=total,
            agreement=int(self.agree.sum()) / total,
            partner=self.partner / total,
            by_view=by_view,
            by_mix=[self._group(kind, range(_BINS), kind) for kind in sorted({kind for kind, _ in self.mixes})],
            by_lambda=[
                self._group(kind, [bin_], f"{kind} {bin_ / _BINS:.1f} to {(bin_ + 1) / _BINS:.1f}")
                for kind, bin_ in sorted(self.mixes)
                if kind != "none"
            ],
            mixes_drawn=int(sum(counted[0] for counted in self.mixes.values())),
            by_class=[
                Class(
                    number=number,
                    name=class_name(self.store, number),
                    samples=samples,
                    views=views,
                    agreement=agree / views if views else None,
                    labels=labels,
                )
                for number, (samples, views, agree, labels) in enumerate(self.of_class.T.tolist())
            ],
            confusions=[
                Confusion(
                    target=target,
                    target_name=class_name(self.store, target),
                    label=label,
                    label_name=class_name(self.store, label),
                    views=n,
                )
                for target, label, n in self.confused.most(_LISTED)
            ],
            entropy=self.entropy / samples,
            entropy_histogram=self.entropy_histogram.tolist(),
            never=self.never,
            never_agreed=[self._doubt(keys, *doubt) for doubt in self.doubts],
        )

    def _doubt(self, keys: Any, minus_share: float, shard: int, sample: int, label: int) -> Doubt:
        target = int(self.targets[shard, sample])
        return Doubt(
            shard=self.store.manifest.shards[shard].name,
            key=str(keys[shard, sample]),
            target=target,
            target_name=class_name(self.store, target),
            label=label,
            label_name=class_name(self.store, label),
            share=-minus_share,
        )

    def _group(self, kind: str, bins: Any, name: str) -> Group:
        counted = np.sum([self.mixes[kind, b] for b in bins if (kind, b) in self.mixes], axis=0)
        views, agree, partner = counted.tolist()
        return Group(name=name, views=views, agreement=agree / views, partner=partner / views)


class Confusions:
    """Counts of pairs of classes: in one array, or where that would be large only of those that occur."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._all = np.zeros(classes**2, np.int64) if classes <= _DENSE else None
        self._some: Counter[int] = Counter()

    def add(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        """Count pairs, class by class (n,)."""
        codes, counts = np.unique(first * self._classes + second, return_counts=True)
        if self._all is not None:
            self._all[codes] += counts
        else:
            self._some.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))

    def most(self, n: int) -> list[tuple[int, int, int]]:
        """Return the `n` most frequent pairs with their counts."""
        found = self._some.most_common(n)
        if self._all is not None:
            top = np.argsort(-self._all, kind="stable")[:n]
            found = [(int(code), int(self._all[code])) for code in top if self._all[code]]
        return [(*divmod(code, self._classes), count) for code, count in found]


def _said(label: NDArray[np.int64]) -> _Said:
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
