"""What the teacher thought of a whole store: how often it agrees, with whom, and where it is in doubt."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context

import numpy as np

from ..cache.store import Store
from ..datasets.augment.mixes import KINDS
from ..runtime.cores import usable_cores
from ..runtime.errors import InputError
from ..runtime.reporting import SILENT, Reporter
from .counting import BINS, Counts, count, most_bits
from .lookup import class_name
from .relations import PARTNER, TARGET

_AT_ONCE = 32  # shards that a process counts before it tells
_LISTED = 1000  # samples and confusions that are kept by name


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Views that have something in common, and how many of them the teacher gives the target or the partner's."""

    kind: str
    """Of mix: mixup, cutmix or none."""
    low: float
    """Lambda is from `low` to below `high`."""
    high: float
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
class NeverAgreed:
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
    by_class: list[Class] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)
    entropy: float = 0.0
    """Mean over the samples of the entropy of their labels, bits."""
    entropy_histogram: list[int] = field(default_factory=list)
    """Samples in each tenth of 0 to `most_bits`."""
    never: int = 0
    """How many samples the teacher never gives their target."""
    never_agreed: list[NeverAgreed] = field(default_factory=list)
    """The first of those: where it says one and the same thing most often."""

    @property
    def most_bits(self) -> float:
        """The largest entropy that a sample's labels can have."""
        return most_bits(len(self.by_view), len(self.by_class))


def stats(store: Store, *, reporter: Reporter = SILENT) -> Stats:
    """Return statistics of all cached labels, counted shard by shard; ValueError if there are none.

    Of more than a few shards each core counts a part.
    """
    n = len(store.counts)
    parts = [range(first, min(first + _AT_ONCE, n)) for first in range(0, n, _AT_ONCE)]
    if len(parts) == 1:
        counts = count(store, parts[0])
        reporter.advance(n)
    else:
        counts = Counts.empty(store)
        workers = min(usable_cores(), len(parts))
        try:
            with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
                with _ignoring_interrupts():
                    counting = pool.map(partial(count, store), parts)
                for part, counted in zip(parts, counting, strict=True):
                    counts.merge(counted)
                    reporter.advance(len(part))
        except BrokenProcessPool as error:
            raise InputError(store.path, "all that count to end", "one killed", "is memory short? run again") from error
    if not counts.views.sum():
        raise InputError(store.path, "labels", "none yet", "run cache-teacher first")
    return _named(store, counts)


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Start processes that leave Ctrl-C to the main one: what is ignored stays so in those that are started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _named(store: Store, counts: Counts) -> Stats:
    """Return counts as shares, with names."""
    total, samples = int(counts.views.sum()), int(counts.of_class[0].sum())
    views = dict(zip(KINDS, counts.mixes.sum(axis=2), strict=True))
    return Stats(
        samples=samples,
        views=total,
        agreement=int(counts.agree.sum()) / total,
        partner=int(counts.mixes[..., PARTNER].sum()) / total,
        by_view=[float(a / n) if n else None for a, n in zip(counts.agree, counts.views, strict=True)],
        by_mix=[_group(counts, kind) for kind in sorted(KINDS) if views[kind].any()],
        by_lambda=[
            _group(counts, kind, b, b + 1) for kind in ("cutmix", "mixup") for b in np.flatnonzero(views[kind]).tolist()
        ],
        by_class=_classes(store, counts),
        confusions=[
            Confusion(
                target=target,
                target_name=class_name(store, target),
                label=label,
                label_name=class_name(store, label),
                views=n,
            )
            for target, label, n in counts.confused.most(_LISTED)
        ],
        entropy=counts.entropy / samples,
        entropy_histogram=counts.entropy_histogram.tolist(),
        never=counts.never,
        never_agreed=_never_agreed(store, counts),
    )


def _group(counts: Counts, kind: str, first: int = 0, end: int = BINS) -> Group:
    """Return the views of one kind of mix whose lambda is in some bins."""
    of_relation = counts.mixes[KINDS.index(kind), first:end].sum(axis=0)
    views = int(of_relation.sum())
    agreement, partner = (int(of_relation[relation]) / views for relation in (TARGET, PARTNER))
    return Group(kind=kind, low=first / BINS, high=end / BINS, views=views, agreement=agreement, partner=partner)


def _classes(store: Store, counts: Counts) -> list[Class]:
    return [
        Class(
            number=number,
            name=class_name(store, number),
            samples=samples,
            views=views,
            agreement=agree / views if views else None,
            labels=labels,
        )
        for number, (samples, views, agree, labels) in enumerate(counts.of_class.T.tolist())
    ]


def _never_agreed(store: Store, counts: Counts) -> list[NeverAgreed]:
    keys, targets = store.key_table(), store.targets()
    return [
        NeverAgreed(
            shard=store.manifest.shards[shard].name,
            key=str(keys[shard, sample]),
            target=(target := int(targets[shard, sample])),
            target_name=class_name(store, target),
            label=label,
            label_name=class_name(store, label),
            share=share,
        )
        for share, shard, sample, label in counts.never_agreed
    ]
