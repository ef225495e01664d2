"""A store's images in whatever copy of them a user has: the label belongs to the image, not to the tar."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import numpy as np

from ..datasets.samples import MISSING, Samples, files_at
from ..datasets.shards.copies import Copy, copy_places, read_copy
from ..datasets.shards.files import image_digest
from ..datasets.shards.index import RESTORE
from ..datasets.shards.mirror import DEFAULT, Mirror
from ..runtime.errors import InputError
from ..runtime.reporting import SILENT, Reporter
from .store import Store

Missing = Literal["stop", "drop"]
"""What to do about images that a copy lacks: refuse it, or leave them out with the views that they are mixed into."""
_NAMED, _PLACES = 3, 5  # images and places that a line names
_AT_ONCE = 16


def find_samples(
    store: Store,
    shards: str | Sequence[str],
    mirror: Mirror = DEFAULT,
    *,
    missing: Missing = "stop",
    remedy: str = "name what holds them too",
    reporter: Reporter = SILENT,
) -> Samples:
    """Return the samples of a store, to be read from any copy of its images: `shards`, see `copy_places`.

    The shards that the store was made from are known by their names and sizes. Of other tars, Parquet files and folders
    every image is read once, and known by its digest; `reporter` counts them and logs how many were found where. Raises
    ValueError where the store has no digests and where images are missing, with what the caller's `remedy` for that is,
    unless `missing` is `drop`.
    """
    if missing not in get_args(Missing):
        raise InputError("`missing`", " or ".join(get_args(Missing)), repr(missing))
    urls = copy_places(shards)
    finding = partial(_matched, store, urls, mirror, None if missing == "drop" else remedy, reporter)
    try:
        samples = store.samples(urls, mirror)
    except InputError as other:
        return finding(other)
    if packed_otherwise := _packed_otherwise(store, samples):
        return finding(packed_otherwise)
    return samples


def _packed_otherwise(store: Store, samples: Samples) -> InputError | None:
    """Return how a local shard of a store's name and size begins with another image than the store's, if one does."""
    digest = store.digests()
    if digest is None or samples.supply:  # what comes from far away is verified whole
        return None

    def begins(shard: int) -> bool:
        try:
            return image_digest(samples.read(shard, 0)) == int(digest[shard, 0])
        except InputError:
            return False

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        alike = list(pool.map(begins, range(len(store.counts))))
    if all(alike):
        return None
    name = store.manifest.shard_names[alike.index(False)]
    return InputError(f"shard {name}", "what the store was made from", "other images in it", RESTORE)


def _matched(
    store: Store, urls: Sequence[str], mirror: Mirror, remedy: str | None, reporter: Reporter, other: InputError
) -> Samples:
    """Return the samples of a copy that is not the store's own shards, as `other` says."""
    digest, samples = store.digests(), store.samples()
    if digest is None:
        raise InputError(
            other.where,
            other.expected,
            other.found,
            f"{other.remedy}, or upgrade the store with its own, and any copy will do: distillcache upgrade",
        )
    copy, real = read_copy(urls, mirror, reporter), np.arange(digest.shape[1]) < store.counts[:, None]
    row = np.where(real, copy.find(digest, samples.nbytes), -1)
    found = row >= 0
    reporter.log(_told(copy, row[found], int(real.sum())))
    if not found.any():
        _require_all(store, found | ~real, other.remedy)
    if remedy is not None:
        _require_all(store, found | ~real, remedy)
    used, file = np.unique(copy.file[row[found]], return_inverse=True)
    files = files_at([copy.files[i] for i in used], [copy.shards[i] for i in used], mirror)
    columns = {name: np.zeros_like(getattr(samples, name)) for name in ("offset", "nbytes")}
    for name, values in columns.items():
        values[found] = getattr(copy, name)[row[found]]
    numbers = np.full(found.shape, MISSING, np.int32)
    numbers[found] = file
    return replace(samples, **files, **columns, file=numbers)


def _require_all(store: Store, there: "np.typing.NDArray[np.bool_]", remedy: str) -> None:
    """Raise ValueError that names the first of the images that are not there."""
    if there.all():
        return
    lacking, total = np.argwhere(~there), int(store.counts.sum())
    named = ", ".join(f"{store.manifest.shards[s].name} {store.keys(s)[i]}" for s, i in lacking[:_NAMED].tolist())
    found = f"{total - len(lacking):,}; missing are {named}{' ...' * (len(lacking) > _NAMED)}"
    raise InputError("`shards`", f"the store's {total:,} images, in any copy of them", found, remedy)


def _told(copy: Copy, rows: "np.typing.NDArray[np.int64]", total: int) -> str:
    """Return the line that says how many images were found where."""
    where: Counter[str] = Counter()
    for file, images in Counter(copy.file[rows].tolist()).items():
        where[copy.where[file]] += images
    told = [f"{images:,} in {folder}" for folder, images in where.most_common(_PLACES)]
    more = f", and in {len(where) - len(told):,} other folders" if len(where) > len(told) else ""
    return f"{len(rows):,} of the store's {total:,} images found" + f": {', '.join(told)}{more}" * bool(told)
