"""Finding samples by key, pattern, class or shard, and what the store holds of one."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..cache.quantised import dequantise
from ..cache.records import Labels
from ..cache.store import Store
from ..datasets.augment.mixes import KINDS
from ..datasets.order import ALONE
from ..runtime.errors import InputError
from ..runtime.reporting import SILENT, Reporter
from .counting import spread
from .relations import RELATIONS, mixed, relations

_LARGEST = 5
"""Classes that are shown of a store that has all logits."""
Position = tuple[int, int]
"""A sample's shard and its number there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewLabel:
    """What the store holds of one view of one sample, and how the view was mixed."""

    view: int
    label: int | None
    label_name: str
    agrees: bool | None
    relation: str | None
    """What the label is to the view, one of `RELATIONS`."""
    check: int
    partner: str | None
    """The key of the sample of which the view shows a part, if it does."""
    partner_target: int | None
    partner_target_name: str
    mix: str
    lam: float
    topk: list[tuple[int, str, float]]
    """Class, its name and its probability, of the largest that are stored: the k, or 5 of all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleLabels:
    """One sample with all its views."""

    shard: str
    key: str
    target: int
    target_name: str
    seed: int
    views: list[ViewLabel]

    @property
    def agreement(self) -> float | None:
        """Share of the cached views in which the teacher says the target."""
        agrees = [view.agrees for view in self.views if view.agrees is not None]
        return sum(agrees) / len(agrees) if agrees else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Which samples are meant; an empty filter means all."""

    keys: Sequence[str] = ()
    """Keys, or shell patterns of them (`n0144*`)."""
    classes: Sequence[str] = ()
    """Numbers, or parts of class names."""
    shards: Sequence[str] = ()
    """Names of shards, or shell patterns of them."""

    def select(self, store: Store) -> NDArray[np.bool_]:
        """Return which samples (shard, sample) are meant; ValueError for a pattern that nothing matches."""
        targets = store.targets()
        chosen = np.arange(targets.shape[1]) < store.counts[:, None]
        if self.shards:
            names = np.array(store.manifest.shard_names, dtype=object)
            chosen &= _any(names, self.shards, "shard")[:, None]
        if self.classes:
            chosen &= np.isin(targets, [number for text in self.classes for number in classes_named(store, text)])
        if self.keys:
            flat = np.flatnonzero(chosen)
            chosen.ravel()[flat] = _any(store.key_table().ravel()[flat].astype(object), self.keys, "key")
        return chosen


class Agreement(NamedTuple):
    """Of each sample (shard, sample): shares of its labels that are its target, and that are its most frequent one.

    NaN for samples that are not asked for or have no labels yet.
    """

    target: NDArray[np.float64]
    likeliest: NDArray[np.float64]

    def order(self, at: tuple[NDArray[np.int64], ...]) -> NDArray[np.int64]:
        """Return the order of the samples `at` some shards and numbers: lowest agreement first.

        Of samples of the same agreement, those that are most alike labelled come first: there the teacher is surest.
        """
        return np.lexsort((-self.likeliest[at], self.target[at]))


def listed(
    store: Store, chosen: NDArray[np.bool_], agreement: Agreement | None = None, limit: int | None = None
) -> dict[str, list[Any]]:
    """Return columns of the chosen samples, in the store's order; with `agreement`, lowest first."""
    shards, samples = np.nonzero(chosen)
    if agreement is not None:
        order = agreement.order((shards, samples))
        shards, samples = shards[order], samples[order]
    shards, samples = shards[:limit], samples[:limit]
    names, classes = store.manifest.shard_names, dict(enumerate(store.manifest.class_names))
    targets = store.targets()[shards, samples].tolist()
    columns = {
        "shard": [names[shard] for shard in shards.tolist()],
        "key": store.key_table()[shards, samples].tolist(),
        "target": targets,
        "target_name": [classes.get(target, "") for target in targets],
    }
    return columns | ({} if agreement is None else {"agreement": agreement.target[shards, samples].tolist()})


def agreement(store: Store, chosen: NDArray[np.bool_], *, reporter: Reporter = SILENT) -> Agreement:
    """Return how much the labels of the chosen samples agree, with the target and with each other.

    Only shards with a chosen sample are read; `reporter` counts them.
    """
    found, targets = Agreement(np.full(chosen.shape, np.nan), np.full(chosen.shape, np.nan)), store.targets()
    for shard in np.flatnonzero(chosen.any(axis=1)).tolist():
        samples, label = np.flatnonzero(chosen[shard]), store.labels(shard)
        label = label[label[:, 0] != store.missing][:, samples]
        if len(label):
            found.target[shard, samples] = (label == targets[shard, samples]).mean(axis=0)
            found.likeliest[shard, samples] = spread(label).times / len(label)
        reporter.advance()
    return found


def _any(names: NDArray[np.object_], patterns: Sequence[str], what: str) -> NDArray[np.bool_]:
    """Return which names match any of the patterns."""
    matched = np.zeros(len(names), bool)
    for pattern in patterns:
        match = re.compile(fnmatch.translate(pattern)).match
        found = np.fromiter((match(name) is not None for name in names), bool, len(names))
        if not found.any():
            examples = ", ".join(map(str, names[:3])) or "none"
            raise InputError(what, "names or patterns of some", repr(pattern), f"there are {examples}")
        matched |= found
    return matched


def classes_named(store: Store, text: str) -> list[int]:
    """Return the classes that a number, or a part of their names, means; ValueError if there is none."""
    names = store.manifest.class_names
    if text.isdecimal():
        found = [int(text)] if int(text) < store.manifest.teacher.classes else []
    else:
        found = [number for number, name in enumerate(names) if text.lower() in name.lower()]
    if not found:
        known = f"a part of a name such as {names[0]}" if names else "no name, as the store has none"
        most = store.manifest.teacher.classes - 1
        raise InputError("class", f"a number from 0 to {most} or {known}", repr(text))
    return found


def find(store: Store, key: str) -> Position:
    """Return where a key is, or of SHARD/KEY where several shards have it; ValueError if there is none."""
    keys = store.key_table()
    names = store.manifest.shard_names
    found = [(int(shard), int(sample)) for shard, sample in np.argwhere(keys == key) if sample < store.counts[shard]]
    for shard, name in enumerate(names):
        if key.startswith(f"{name}/"):
            inside = np.flatnonzero(keys[shard, : store.counts[shard]] == key.removeprefix(f"{name}/"))
            found += [(shard, int(sample)) for sample in inside]
    if not found:
        like = keys[np.strings.find(keys, key) >= 0]
        examples = ", ".join(like[:3] if len(like) else keys[0, :3])
        raise InputError("key", f"one that {store.path} has, such as {examples}", repr(key))
    if len(found) > 1:
        shards = ", ".join(names[shard] for shard, _ in found)
        raise InputError("key", "one of one shard", f"{key!r} in several ({shards})", f"say SHARD/{key}")
    return found[0]


def label(store: Store, place: Position) -> SampleLabels:
    """Return what the teacher said of every view of one sample."""
    shard, sample = place
    manifest, keys, targets = store.manifest, store.keys(shard), store.targets()[shard, : store.counts[shard]]
    cached, views = store.read(range(store.views), shard), []
    how = mixed(store, shard, range(store.views))
    relation = relations(cached.label[:, : len(targets)], targets, how.partner)[:, sample]
    for view, partner in enumerate(how.partner[:, sample].tolist()):
        number = int(cached.label[view, sample])
        known = number != store.missing
        partner_target = int(targets[partner]) if partner != ALONE else None
        views.append(
            ViewLabel(
                view=view,
                label=number if known else None,
                label_name=class_name(store, number) if known else "not cached",
                agrees=number == int(targets[sample]) if known else None,
                relation=RELATIONS[relation[view]] if known else None,
                check=int(cached.check[view, sample]),
                partner=keys[partner] if partner != ALONE else None,
                partner_target=partner_target,
                partner_target_name=class_name(store, partner_target) if partner_target is not None else "",
                mix=KINDS[how.kind[view, sample]],
                lam=float(how.lam[view, sample]),
                topk=_named(store, largest(cached, ([view], [sample]), manifest.teacher.classes)) if known else [],
            )
        )
    return SampleLabels(
        shard=manifest.shards[shard].name,
        key=keys[sample],
        target=int(targets[sample]),
        target_name=class_name(store, int(targets[sample])),
        seed=int(store.seeds(shard)[sample]),
        views=views,
    )


def class_name(store: Store, number: int) -> str:
    """Return a class's name where the store has it."""
    names = store.manifest.class_names
    return names[number] if number < len(names) else ""


class Largest(NamedTuple):
    """The likeliest classes of n views, integers (n, k), and their probabilities, float32 (n, k), falling."""

    classes: NDArray[np.integer[Any]]
    probability: NDArray[np.float32]


def largest(labels: Labels, at: Any, classes: int) -> Largest | None:
    """Return the likeliest classes of the views `at` a place of `labels`: the k stored, or 5 of all; else None."""
    if labels.topk_index is not None and labels.topk_logit is not None:
        return Largest(labels.topk_index[at], np.exp(labels.topk_logit[at].astype(np.float32)))
    if labels.logit_code is None or labels.logit_scale is None or labels.logit_zero is None:
        return None
    logits = dequantise(labels.logit_code[at], labels.logit_scale[at], labels.logit_zero[at], classes)
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    rest, likeliest = share.copy(), [labels.label[at].astype(np.int64)]  # of those that got the same code, the label
    while len(likeliest) < min(_LARGEST, classes):
        rest[np.arange(len(rest)), likeliest[-1]] = -1
        likeliest.append(rest.argmax(1))
    index = np.stack(likeliest, axis=1)
    return Largest(index, np.take_along_axis(share, index, axis=1))


def _named(store: Store, found: Largest | None) -> list[tuple[int, str, float]]:
    """Return class, its name and its probability, of the likeliest of one view."""
    if found is None:
        return []
    pairs = zip(found.classes[0].tolist(), found.probability[0].tolist(), strict=True)
    return [(number, class_name(store, number), share) for number, share in pairs]
