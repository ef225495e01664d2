"""Two stores of the same views: where do their teachers disagree?"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..cache.store import Store
from ..runtime.errors import InputError
from ..runtime.reporting import SILENT, Reporter
from .counting import Confusions
from .lookup import class_name

_LISTED = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleDisagreement:
    """One sample, and in how many of the compared views the two teachers say different things."""

    shard: str
    key: str
    target: int
    target_name: str
    views: int
    differing: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassDisagreement:
    """What one teacher says where the other says something else."""

    first: int
    first_name: str
    second: int
    second_name: str
    views: int


@dataclass(kw_only=True, slots=True)
class Diff:
    """What two teachers said of the same views."""

    views: int = 0
    """Views with a label in both stores."""
    differing: int = 0
    first_agreement: float = 0.0
    """Share of those views in which the first teacher says the target."""
    second_agreement: float = 0.0
    classes: list[ClassDisagreement] = field(default_factory=list)
    """The most frequent disagreements."""
    samples: list[SampleDisagreement] = field(default_factory=list)
    """The samples with the most."""


def diff(first: Store, second: Store, *, reporter: Reporter = SILENT) -> Diff:
    """Compare two stores shard by shard; ValueError if their views are not the same, or none is in both."""
    require_same_views(first, second)
    targets, classes = first.targets(), max(store.manifest.teacher.classes for store in (first, second))
    found, confused = Diff(), Confusions(classes)
    worst: list[tuple[int, int, int, int]] = []  # minus how often they differ, shard, sample, views
    agreeing = np.zeros(2, np.int64)
    views = min(first.views, second.views)
    for shard, count in enumerate(first.counts.tolist()):
        one, other = (store.labels(shard)[:views, :count].astype(np.int32) for store in (first, second))
        rows = np.flatnonzero((one[:, 0] != first.missing) & (other[:, 0] != second.missing))
        one, other, truth = one[rows], other[rows], targets[shard, :count]
        differs = one != other
        found.views += one.size
        found.differing += int(differs.sum())
        agreeing += (int((one == truth).sum()), int((other == truth).sum()))
        confused.add(one[differs], other[differs])
        times = differs.sum(axis=0)
        top = [i for i in np.argsort(-times, kind="stable")[:_LISTED].tolist() if times[i]]
        worst = sorted([*worst, *((-int(times[i]), shard, i, len(rows)) for i in top)])[:_LISTED]
        reporter.advance()
    if not found.views:
        raise InputError("diff", "labels of the same views in both stores", "none", "fill one first")
    found.first_agreement, found.second_agreement = (agreeing / found.views).tolist()
    found.classes = [
        ClassDisagreement(
            first=a, first_name=class_name(first, a), second=b, second_name=class_name(second, b), views=n
        )
        for a, b, n in confused.most(_LISTED)
    ]
    keys = first.key_table()
    for minus_times, shard, sample, of in worst:
        target = int(targets[shard, sample])
        found.samples.append(
            SampleDisagreement(
                shard=first.manifest.shards[shard].name,
                key=str(keys[shard, sample]),
                target=target,
                target_name=class_name(first, target),
                views=of,
                differing=-minus_times,
            )
        )
    return found


def require_same_views(first: Store, second: Store) -> None:
    """Raise ValueError naming the first thing because of which view v of a sample is not the same in both stores."""
    other = _plan(second)
    for name, ours in _plan(first).items():
        if ours != (theirs := other[name]):
            found = (_first_of(ours, theirs), _first_of(theirs, ours)) if isinstance(ours, list) else (ours, theirs)
            raise InputError(
                name,
                "two stores of the same views",
                f"{found[0]} in {first.path} and {found[1]} in {second.path}",
                "compare stores that were made alike",
            )


def _plan(store: Store) -> dict[str, Any]:
    """Return what decides a store's views."""
    return {
        **{f"recipe field {k}": v for k, v in store.manifest.recipe.to_dict().items() if k != "name"},
        "seed": store.manifest.seed,
        "shards": [(shard.name, shard.sha256[:16]) for shard in store.manifest.shards],
        "skipped samples": [(sample.shard, sample.key) for sample in store.manifest.skipped],
    }


def _first_of(entries: list[tuple[str, str]], others: list[tuple[str, str]]) -> str:
    """Return the first entry that is not among the others, in words."""
    return next((" ".join(entry) for entry in entries if entry not in others), "no other")
