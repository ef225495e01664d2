"""Merging stores that hold different shards, or different blocks of views, of one plan."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from ..datasets.samples import Samples, files_at, one_file_a_shard
from ..datasets.shards.mirror import DEFAULT
from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from ..runtime.reporting import SILENT, Reporter
from .records import Labels, Probes, Unit
from .storage import storage_at
from .store import Store

_PROBES = 8


def merge(out: AnyPath, stores: Sequence[Store], *, reporter: Reporter = SILENT) -> Store:
    """Write a store at `out` that holds every unit of `stores`; what several hold must be the same in all of them.

    Raises ValueError if they were not made alike (recipe, seed, teacher, top-k), if a shard or a label differs, or if
    `out` is there already. `reporter` counts the units that were written.
    """
    if out.exists():
        raise InputError(out, "a path where nothing is yet", "something", "name another")
    first = stores[0]
    for store in stores[1:]:
        _require_alike(first, store)
    views = max(store.views for store in stores)
    homes: dict[str, list[tuple[Store, int]]] = {}
    for store in stores:
        for number, shard in enumerate(store.manifest.shards):
            homes.setdefault(shard.name, []).append((store, number))
    names = sorted(homes)
    for name in names:
        _require_one_shard(name, homes[name])
    chosen = [homes[name][0] for name in names]
    skipped = {(s.shard, s.key): s for store in stores for s in store.manifest.skipped}
    partial = {n for store in stores for n in (*store.manifest.extended, store.views) if n < views}
    manifest = replace(
        first.manifest,
        shards=tuple(store.manifest.shards[number] for store, number in chosen),
        versions={name: _versions(name, stores) for name in first.manifest.versions},
        created=max(store.manifest.created for store in stores),
        extended=tuple(sorted(partial)),
        skipped=tuple(skipped[place] for place in sorted(skipped)),
    )
    with storage_at(out).unfinished() as folder:
        merged = Store.create(folder, manifest, _samples(chosen), _probes(stores, names))
        merged.extend(views)
        for block in range(len(merged.blocks)):
            for number, name in enumerate(names):
                if unit := _unit(merged, homes[name], block, number):
                    merged.write(*unit)
                    reporter.advance()
    return Store(out)


def _require_alike(first: Store, other: Store) -> None:
    theirs = other.manifest.identity()
    for name, have in first.manifest.identity().items():
        if not name.startswith("shard ") and have != theirs.get(name):
            raise InputError(name, "stores made alike", f"{have} in {first.path}, {theirs.get(name)} in {other.path}")


def _require_one_shard(name: str, homes: Sequence[tuple[Store, int]]) -> None:
    (first, a), *others = homes
    for other, b in others:
        same = first.manifest.shards[a] == other.manifest.shards[b] and first.keys(a) == other.keys(b)
        if not same or not np.array_equal(first.seeds(a)[: first.counts[a]], other.seeds(b)[: other.counts[b]]):
            raise InputError(
                f"shard {name}",
                f"the same in {first.path} and {other.path}",
                "another there",
                "merge stores of the same shards",
            )


def _samples(chosen: Sequence[tuple[Store, int]]) -> Samples:
    """Return the samples of the merged store as a new one's are given."""
    tables = {
        id(store): replace(store.samples(), keys=store.key_table(), digest=store.digests()) for store, _ in chosen
    }
    counts = np.array([int(store.counts[number]) for store, number in chosen])
    columns = int(counts.max())
    arrays: dict[str, Any] = {}
    known = all(table.digest is not None for table in tables.values())
    for name in ("seed", "target", "offset", "nbytes", "keys", *(["digest"] if known else [])):
        rows = [getattr(tables[id(store)], name)[number] for store, number in chosen]
        arrays[name] = np.zeros((len(rows), columns), rows[0].dtype)
        for row, values, count in zip(arrays[name], rows, counts, strict=True):
            row[:count] = values[:count]
    return Samples(**files_at([], [], DEFAULT), count=counts, file=one_file_a_shard(len(chosen), columns), **arrays)


def _probes(stores: Sequence[Store], names: Sequence[str]) -> Probes:
    """Return a few probes of all stores, at the shards' new numbers; with their pixels, if all stores have those."""
    all_of = [store.probes() for store in stores]
    pixels = all(probes.views is not None for probes in all_of)
    found: dict[tuple[int, ...], tuple[Any, Any]] = {}
    for store, probes in zip(stores, all_of, strict=True):
        seen: Any = probes.views if pixels else probes.digests()
        for place, view, logits in zip(probes.at.tolist(), seen, probes.logits, strict=True):
            found[(names.index(store.manifest.shards[place[0]].name), *place[1:])] = (view, logits)
    places = sorted(found)
    kept = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, min(_PROBES, len(places))).astype(int))]
    views: Any = np.stack([found[place][0] for place in kept])
    return Probes(
        views=views if pixels else None,
        digest=None if pixels else views,
        logits=np.stack([found[place][1] for place in kept]),
        at=np.array(kept, np.int32),
    )


def _unit(merged: Store, homes: Sequence[tuple[Store, int]], block: int, number: int) -> tuple[Unit, Labels] | None:
    """Return the most complete form of a unit that a store has; ValueError if two stores differ in it."""
    first = merged.blocks[block].start
    held = []
    for store, shard in homes:
        if first < store.views and (done := store.missing_views(block, shard).start) > first:
            held.append((done, store, shard))
    if not held:
        return None
    last, best, shard = max(held, key=lambda one: one[0])
    count = int(best.counts[shard])
    labels = _cut(best.read(range(first, last), shard), count)
    for done, store, other in held:
        same = _cut(store.read(range(first, done), other), count)
        if any(getattr(same, a).tobytes() != getattr(labels, a)[: done - first].tobytes() for a in ("label", "check")):
            name = merged.manifest.shards[number].name
            raise InputError(
                f"shard {name}, views {first} to {done - 1}",
                f"the same labels in {best.path} and {store.path}",
                "others",
                "run inspect verify on both",
            )
    return Unit(shard=number, block=block, views=range(first, last)), labels


def _cut(labels: Labels, count: int) -> Labels:
    """Return a shard's labels without the padding behind its `count` samples."""
    arrays: dict[str, Any] = {field.name: getattr(labels, field.name) for field in fields(labels)}
    cut: dict[str, Any] = {name: None if array is None else array[:, :count] for name, array in arrays.items()}
    return Labels(**cut)


def _versions(library: str, stores: Sequence[Store]) -> str:
    return " or ".join(sorted({store.manifest.versions.get(library, "unknown") for store in stores}))
