"""Labels as tables for other programs: Parquet, CSV and NumPy's npz, shard by shard."""

import csv
import io
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ..cache.store import Store
from ..datasets.augment.mixes import KINDS
from ..datasets.order import ALONE
from ..runtime import atomic
from ..runtime.errors import InputError
from ..runtime.parquet import Table, parquet_writer
from ..runtime.paths import AnyPath
from ..runtime.reporting import SILENT, Reporter
from .lookup import Filter, largest
from .relations import RELATIONS, mixed, relations

FORMATS = (".parquet", ".csv", ".npz")


def export(store: Store, out: AnyPath, wanted: Filter, *, mixes: bool = False, reporter: Reporter = SILENT) -> int:
    """Write a row for each cached view of the samples `wanted`, and return how many; the suffix of `out` says how.

    Columns: shard, key, target, target_name, view, label, label_name, agrees, relation (what the label is to the view:
    target, partner or neither), partner, check. With `mixes` also mix and lam, its lambda. Of a store with logits also
    topk_class and topk_probability, the likeliest, as lists (in CSV separated by spaces): the k stored, or 5 of all.
    Parquet and CSV take the memory of one shard, npz that of all. Raises ValueError for another suffix, or if there is
    nothing to write.
    """
    if out.suffix not in FORMATS:
        raise InputError("`out`", f"a name that ends in {', '.join(FORMATS)}", out)
    write: Callable[[Iterator[Table], IO[bytes]], None]
    write = {".csv": _write_csv, ".npz": _write_npz}.get(out.suffix) or parquet_writer("`out`")
    chosen = wanted.select(store)
    if not chosen.any():
        raise InputError("export", "a sample that the filters choose", "none", "widen the filters")
    rows = 0

    def tables() -> Iterator[Table]:
        nonlocal rows
        for shard in range(len(store.counts)):
            table = _table(store, shard, np.flatnonzero(chosen[shard]), mixes)
            if n := len(table["view"]):
                yield table
            rows += n
            reporter.advance()
        if not rows:
            raise InputError(store.path, "labels", "none yet", "run cache-teacher first")

    atomic.write(out, lambda file: write(tables(), file))
    return rows


def _table(store: Store, shard: int, samples: NDArray[np.int64], mixes: bool) -> Table:
    """Return the columns of a shard's chosen samples, sample by sample."""
    cached = store.read(range(store.views), shard)
    views = np.flatnonzero(cached.label[:, 0] != store.missing)
    target = store.targets()[shard, : store.counts[shard]]
    keys = np.array([*store.keys(shard), ""], dtype=object)  # the last is ALONE's
    how = mixed(store, shard, range(store.views))
    relation = relations(cached.label[:, : len(target)], target, how.partner)
    at = np.ix_(views, samples)
    label = cached.label[at].T.astype(np.int32)
    names = np.array([*store.manifest.class_names] or [""], dtype=object)
    named = (lambda numbers: names[numbers]) if len(names) > 1 else lambda numbers: np.full(numbers.shape, "", object)
    n = len(views)
    table: Table = {
        "shard": np.full(label.size, store.manifest.shards[shard].name, object),
        "key": np.repeat(keys[samples], n),
        "target": np.repeat(target[samples], n),
        "target_name": np.repeat(named(target[samples]), n),
        "view": np.tile(views.astype(np.int32), len(samples)),
        "label": label.ravel(),
        "label_name": named(label.ravel()),
        "agrees": (label == target[samples][:, None]).ravel(),
        "relation": np.array(RELATIONS, object)[relation[at].T.ravel()],
        "partner": keys[np.where(how.partner == ALONE, len(keys) - 1, how.partner)[at].T.ravel()],
        "check": cached.check[at].T.ravel(),
    }
    if mixes:
        table["mix"] = np.array(KINDS, object)[how.kind[at].T.ravel()]
        table["lam"] = how.lam[at].T.ravel()
    by_sample = [largest(cached, (views, sample), store.manifest.teacher.classes) for sample in samples]
    if found := [one for one in by_sample if one]:
        table["topk_class"] = np.concatenate([one.classes for one in found]).astype(np.int32)
        table["topk_probability"] = np.concatenate([one.probability for one in found])
    return table


def _write_csv(tables: Iterator[Table], file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    for number, table in enumerate(tables):
        if not number:
            writer.writerow(table)
        columns = [
            [" ".join(f"{v:.6g}" for v in row) for row in values] if values.ndim == 2 else values.tolist()
            for values in table.values()
        ]
        writer.writerows(zip(*columns, strict=True))
    text.flush()
    text.detach()


def _write_npz(tables: Iterator[Table], file: IO[bytes]) -> None:
    parts = list(tables)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    np.savez_compressed(file, **{k: v.astype(str) if v.dtype == object else v for k, v in whole.items()})  # type: ignore[arg-type]
