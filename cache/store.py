"""The Zarr store: its arrays, their chunks and the order in which they are written."""

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray

from ..datasets.order import Order
from ..datasets.samples import SampleError, Samples, files_at, one_file_a_shard
from ..datasets.shards.index import RESTORE
from ..datasets.shards.mirror import DEFAULT, Mirror
from ..runtime import atomic
from ..runtime.errors import InputError
from ..runtime.optional import optional
from ..runtime.paths import AnyPath
from .arrays import DIGEST, PROBE_DIGEST, PROBE_VIEWS, Arrays, create_arrays
from .chunks import Chunks
from .layout import arrays_by_view
from .manifest import Manifest
from .records import Labels, Probes, Unit
from .storage import storage_at


class Store:
    """One store, open for reading and, unless it is packed, for filling."""

    def __init__(self, path: AnyPath, mirror: Mirror = DEFAULT) -> None:
        """Open a store; ValueError if there is none, or none that this version reads.

        A packed one that is far away comes to `mirror`.
        """
        self.path, self._mirror, self.storage = path, mirror, storage_at(path, mirror)
        self._kept: dict[str, tuple[int, NDArray[Any]]] = {}
        self._open()

    def __reduce__(self) -> tuple[Any, ...]:
        """Have another process open it for itself."""
        return Store, (self.path, self._mirror)

    def reopen(self) -> None:
        """See what other processes have made of the store's shape and attributes since it was opened."""
        self._kept.clear()
        self.__dict__.pop("counts", None)
        self._open()

    def _open(self) -> None:
        path, storage = self.path, self.storage
        try:
            self._group = storage.open()
            self._arrays = Arrays(self._group, path)
            with contextlib.suppress(KeyError):
                self._arrays["label"]  # before the attributes: who extends a store changes the labels' shape last
            self.manifest = Manifest.from_dict(dict(self._group.attrs))
        except InputError as error:
            raise (error if str(error).startswith(str(path)) else error.within(str(path))) from error
        except (FileNotFoundError, ValueError, KeyError) as error:
            found = f"none; {'' if isinstance(path, Path) else 'check the URL, or '}run cache-teacher first"
            if storage.exists("zarr.json"):
                found = f"a damaged one (zarr.json); {RESTORE}"
            elif storage.exists():
                found = "a folder that is none; name another `cache`"
            raise InputError(path, "a store", found) from error
        self.chunks = Chunks(storage, arrays_by_view(self.manifest))
        self._arrays.know(self.manifest, self.chunks)

    @classmethod
    def create(cls, path: AnyPath, manifest: Manifest, samples: Samples, probes: Probes) -> "Store":
        """Write an empty store beside `path` and move it there."""
        with atomic.naming(path), storage_at(path).unfinished() as folder:
            group = zarr.create_group(folder, zarr_format=3, attributes=manifest.to_dict())
            create_arrays(group, manifest, samples, probes)
        return cls(path)

    @property
    def views(self) -> int:
        """How many views were asked for."""
        return int(self._arrays["label"].shape[0])

    @functools.cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many samples each shard has."""
        return cast(NDArray[np.int64], self._read("samples").astype(np.int64))

    @property
    def columns(self) -> int:
        """How many samples a shard may have."""
        return int(self._arrays["label"].shape[2])

    @property
    def missing(self) -> int:
        """The label that stands for `not cached`."""
        return int(self._arrays["label"].fill_value)

    @property
    def blocks(self) -> list[range]:
        """The views of each block; the last may have fewer."""
        views, block = self.views, self.manifest.block
        return [range(first, min(first + block, views)) for first in range(0, views, block)]

    @property
    def by_view(self) -> list[str]:
        """The arrays that a unit writes, in the order in which it writes them: the label commits."""
        return [array.name for array in arrays_by_view(self.manifest)]

    def extend(self, views: int) -> None:
        """Make room for `views` views; nothing that is there changes. Only for the holder of the store's claim."""
        if (before := (now := self._now()).views) < views:
            if before:
                self.record(extended=(*now.manifest.extended, before))
            for name in self.by_view:
                array = now._arrays[name]
                array.resize((views, *array.shape[1:]))
                self.storage.sync(f"{name}/zarr.json")
        self.reopen()

    def record(self, **changes: Any) -> None:
        """Change fields of the manifest as it is on disk now. Only for the holder of the store's claim."""
        current = self._now()
        self.manifest = replace(current.manifest, **changes)
        current._group.attrs.update(self.manifest.to_dict())
        self.storage.sync("zarr.json")

    def _now(self) -> "Store":
        return Store(self.path, self._mirror)

    def order(self, window: int = 0) -> Order:
        """Return the order of groups and epochs that this store fixes."""
        kept, counts = self.manifest, self.counts.tolist()
        return Order(seed=kept.seed, shards=kept.shard_names, samples=counts, recipe=kept.recipe, window=window)

    def samples(self, urls: Sequence[str] | None = None, mirror: Mirror = DEFAULT) -> Samples:
        """Return the stored samples, to be read from `urls`; ValueError if those are not the store's shards."""
        arrays = {name: self._read(name) for name in ("seed", "target", "offset", "nbytes")}
        files = files_at([] if urls is None else self.manifest.locate(urls), self.manifest.shards, mirror)
        return Samples(**files, count=self.counts, file=one_file_a_shard(*arrays["seed"].shape), **arrays)

    def units(self) -> Iterable[Unit]:
        """Yield what is still to do, block by block, so that the first epochs are complete first."""
        cached = self.chunks.units("label")
        for block, views in enumerate(self.blocks):
            for shard in range(len(self.manifest.shards)):
                missing = self._added_later(block, shard, views) if (block, shard) in cached else views
                if missing:
                    yield Unit(shard=shard, block=block, views=missing)

    def views_of_all(self) -> int:
        """Return how many views, from the first on, every sample has a label for."""
        return min((unit.views.start for unit in self.units()), default=self.views)

    def missing_views(self, block: int, shard: int) -> range:
        """Return the views of a block of a shard that have no labels yet."""
        views = self.blocks[block]
        return self._added_later(block, shard, views) if self.chunks.cached("label", block, shard) else views

    def _added_later(self, block: int, shard: int, views: range) -> range:
        """Return which `views` of a unit that has a label chunk were not asked for yet when that was written."""
        if all(end // self.manifest.block != block for end in self.manifest.extended):
            return views[len(views) :]  # present means done, but in a block in which the store once ended
        label = self._read("label", (slice(views.start, views.stop), shard, 0))
        return views[int(np.count_nonzero(label != self.missing)) :]

    def write(self, unit: Unit, labels: Labels) -> None:
        """Commit a unit: every other array first, the label chunk last, each atomically. Arrays are (view, sample)."""
        if not self.storage.exists("zarr.json"):
            raise InputError(self.path, "the store that is being filled", "it removed", "run again")
        first = unit.block * self.manifest.block
        for name in self.by_view:
            if name == "label":  # commits: what it stands for is on disk before it is, also if the power fails
                self.chunks.sync(self.by_view[:-1], unit.block, unit.shard)
            new, array = getattr(labels, name), self._arrays[name]
            chunk = np.full((unit.views.stop - first, *array.shape[2:]), array.fill_value, array.dtype)
            if unit.views.start > first:
                chunk[: unit.views.start - first] = self._read(name, (slice(first, unit.views.start), unit.shard))
            chunk[unit.views.start - first :, : new.shape[1]] = new
            array[first : unit.views.stop, unit.shard] = chunk
        self.chunks.sync(["label"], unit.block, unit.shard)

    def cycle(self, cycle: int, *, soft: bool = False) -> Labels:
        """Return labels, checks and, if `soft`, logits of one cycle (view, shard, sample); ValueError if incomplete."""
        repeats = self.manifest.recipe.repeats
        views = range(cycle * repeats, (cycle + 1) * repeats)
        names = self.by_view if soft else ["check", "label"]
        labels = self._cycle(views, names)
        if self._absent(labels).any():  # what was kept may be from before stage 1 came as far
            self._kept.clear()
            labels = self._cycle(views, names)
        if (absent := self._absent(labels)).any():
            view, shard, _ = (int(i) for i in np.argwhere(absent)[0])
            expected = f"labels for view {view + views.start} of shard {self.manifest.shards[shard].name}"
            raise InputError(self.path, expected, "none", "run cache-teacher again first")
        return labels

    def _absent(self, labels: Labels) -> NDArray[np.bool_]:
        real = np.arange(labels.label.shape[2]) < self.counts[:, None]
        return cast(NDArray[np.bool_], (labels.label == self.missing) & real)

    def _cycle(self, views: range, names: Sequence[str]) -> Labels:
        """Return what is cached of a cycle; of labels and checks the whole block is kept, as the next need it too."""
        block = views.start // self.manifest.block
        whole, found = self.blocks[block], dict[str, NDArray[Any]]()
        with zarr.config.set({"async.concurrency": 32}):  # a chunk of each shard: a quarter faster for ImageNet's
            for name in reversed(names):  # the label first: what it commits was written before it
                if name not in ("check", "label"):
                    found[name] = self._read(name, slice(views.start, views.stop))
                    continue
                if self._kept.get(name, (None,))[0] != block:
                    self._kept[name] = block, self._read(name, slice(whole.start, whole.stop))
                found[name] = self._kept[name][1][views.start - whole.start : views.stop - whole.start]
        self.chunks.require_whole(names, [block], range(len(self.counts)))
        return Labels(**found)

    def read(self, views: range, shard: int | None = None) -> Labels:
        """Return what is cached of `views`, of one shard (view, sample, ...) or of all (view, shard, sample, ...)."""
        index = (slice(views.start, views.stop), slice(None) if shard is None else shard)
        touched = range(views.start // self.manifest.block, -(-views.stop // self.manifest.block))
        self.chunks.require_whole(self.by_view, touched, range(len(self.counts)) if shard is None else [shard])
        return Labels(**{name: self._read(name, index) for name in self.by_view})

    def labels(self, shard: int) -> NDArray[np.unsignedinteger[Any]]:
        """Return the labels of a shard in all views (view, sample), `missing` where there are none yet."""
        self._require_shard(shard)
        with zarr.config.set({"async.concurrency": 32}):
            return cast("NDArray[np.unsignedinteger[Any]]", self._read("label", (slice(None), shard)))

    def agreement(self) -> float:
        """Return the share of the cached views whose label is their own image's class, 0 to 1; NaN without any."""
        agreeing = cached = 0
        for shard, targets in enumerate(self.targets()):
            labels, count = self.labels(shard), int(self.counts[shard])
            there = labels[:, :count] != self.missing
            agreeing += int((labels[:, :count] == targets[:count])[there].sum())
            cached += int(there.sum())
        return agreeing / cached if cached else math.nan

    def to_xarray(self) -> Any:
        """Return an xarray.Dataset of the arrays, read as they are used, with dimensions view, shard, sample, ...

        Raises InputError where xarray is not installed.
        """
        return optional("xarray", extra="xarray", where="`to_xarray`").open_zarr(self._group.store, consolidated=False)

    def key_table(self) -> "NDArray[Any]":
        """Return the keys of all samples (shard, sample), as NumPy's variable-width strings."""
        return cast("NDArray[Any]", self._read("key"))

    def keys(self, shard: int) -> list[str]:
        """Return the keys of a shard's samples."""
        self._require_shard(shard)
        return [str(key) for key in self._read("key", shard)[: self.counts[shard]]]

    def _require_shard(self, shard: int) -> None:
        if not 0 <= shard < len(self.counts):
            raise InputError("shard", f"a number from 0 to {len(self.counts) - 1}", shard)

    def digests(self) -> NDArray[np.uint64] | None:
        """Return what the image files are known by (shard, sample), see `image_digest`; None without them."""
        whole = self.storage.exists(f"{DIGEST}/zarr.json") and self._arrays.is_whole(DIGEST)  # else a killed upgrade's
        return cast(NDArray[np.uint64], self._read(DIGEST)) if whole else None

    def seeds(self, shard: int) -> NDArray[np.uint64]:
        """Return the augmentation seeds of a shard's samples."""
        return cast(NDArray[np.uint64], self._read("seed", shard))

    def targets(self) -> NDArray[np.int32]:
        """Return the ground truth (shard, sample)."""
        return cast(NDArray[np.int32], self._read("target"))

    def raw_nbytes(self) -> dict[str, int]:
        """Return how many bytes each array of numbers would take uncompressed."""
        return {name: self._arrays[name].nbytes for name in self.chunks.nbytes() if name != "key"}

    def where(self, shard: int, sample: int) -> str:
        """Return how to name a sample to a user."""
        return f"shard {self.manifest.shards[shard].name}, key {self.keys(shard)[sample]}"

    @contextlib.contextmanager
    def naming_samples(self) -> Iterator[None]:
        """Turn a SampleError into a InputError that names the sample's key."""
        try:
            yield
        except SampleError as error:
            where = self.where(error.shard, error.sample)
            raise error.cause.within(where, "is the shard what the store was made from?") from error

    def probes(self) -> Probes:
        """Return the probe views and what the teacher said of them."""
        kept = self.storage.exists(f"{PROBE_VIEWS}/zarr.json")
        pixels = {"views": self._read(PROBE_VIEWS)} if kept else {"views": None, "digest": self._read(PROBE_DIGEST)}
        return Probes(logits=self._read("probe_logits"), at=self._read("probe_at"), **pixels)

    def _read(self, name: str, index: Any = slice(None)) -> Any:
        return self._arrays.read(name, index)
