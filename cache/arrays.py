"""The arrays of a store: as they are before the first unit is written, how shards join them, how they are read."""

import warnings
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from ..datasets.samples import Samples
from ..datasets.shards.index import RESTORE
from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from .chunks import Chunks
from .layout import arrays_by_view
from .manifest import Manifest
from .records import Probes

DIGEST = "digest"
"""Of the image files, see `image_digest`; stores of formats 1 to 3 have none until they are upgraded."""
PROBE_VIEWS, PROBE_DIGEST = "probe_views", "probe_digest"
"""The pixels of the probes or, in a published store, what they are known by."""
_COMPRESSION = ZstdCodec(level=3, checksum=True)
_SHARDS_IN_A_CHUNK = 256  # of the arrays by sample: about two megabytes of seeds for ImageNet's shards
_OPENED = {"array.write_empty_chunks": True, "codec_pipeline.batch_size": 16}  # by ones, reading takes half longer


class Arrays:
    """The arrays of an open store, each opened once. A shard that the manifest does not name is never read."""

    def __init__(self, group: zarr.Group, root: AnyPath) -> None:
        self._group, self._root = group, root
        self._opened: dict[str, zarr.Array[Any]] = {}

    def know(self, manifest: Manifest, chunks: Chunks) -> None:
        """Take from the manifest what is in the store; before that nothing is read."""
        self._shards, self._chunks = len(manifest.shards), chunks
        self._by_view = {array.name for array in arrays_by_view(manifest)}

    def __getitem__(self, name: str) -> "zarr.Array[Any]":
        if name not in self._opened:
            with zarr.config.set(_OPENED):
                self._opened[name] = cast("zarr.Array[Any]", self._group[name])
        return self._opened[name]

    def is_whole(self, name: str) -> bool:
        """Return whether every chunk of an array is there."""
        return all(self._chunks.exists(name, *chunk) for chunk in self._chunks_of(self[name]))

    def read(self, name: str, index: Any = slice(None)) -> Any:
        """Return what an array holds at `index`; ValueError names what of it is lost or damaged."""
        try:
            array = self[name]
            if name in self._by_view or self.is_whole(name):
                return np.asarray(array[self._known(array, index)])
        except KeyError as error:
            raise InputError(self._root, f"the array {name}", "none", RESTORE) from error
        except InputError:
            raise
        except (RuntimeError, ValueError) as error:
            cause = error  # what zarr says names no chunk
        for chunk in self._chunks_of(array):
            try:
                if name not in self._by_view and not self._chunks.exists(name, *chunk):
                    raise self._chunks.damage(name, chunk, "none")
                array[tuple(slice(i * n, (i + 1) * n) for i, n in zip(chunk, array.chunks, strict=True))]
            except RuntimeError as error:
                raise self._chunks.damage(name, chunk, "one that can't be decompressed") from error
        if isinstance(cause, RuntimeError):  # of something else: torch raises a killed worker's wherever a process is
            raise cause
        raise InputError(self._root, f"the array {name}", "a damaged one", RESTORE) from cause

    def _known(self, array: "zarr.Array[Any]", index: Any) -> tuple[Any, ...]:
        """Return `index` without the shards that are still being added."""
        given = index if isinstance(index, tuple) else (index,)
        parts = (*given, *(slice(None) for _ in range(array.ndim - len(given))))
        names = _dimensions(array)
        return tuple(
            slice(self._shards) if name == "shard" and part == slice(None) else part
            for name, part in zip(names, parts, strict=True)
        )

    def _chunks_of(self, array: "zarr.Array[Any]") -> Iterator[tuple[int, ...]]:
        names, lengths = _dimensions(array), array.chunks
        for chunk in np.ndindex(*array.cdata_shape):
            if "shard" not in names or chunk[n := names.index("shard")] * lengths[n] < self._shards:
                yield chunk


def _dimensions(array: "zarr.Array[Any]") -> tuple[str, ...]:
    return tuple(str(name) for name in cast(Any, array.metadata).dimension_names)


def create_arrays(group: zarr.Group, manifest: Manifest, samples: Samples, probes: Probes) -> None:
    """Create all arrays: those by view empty, for no views yet, the others with their values."""
    shards, columns = samples.seed.shape
    for array in arrays_by_view(manifest):
        lengths = [length for _, length in array.more]
        group.create_array(
            array.name,
            shape=(0, shards, columns, *lengths),
            chunks=(manifest.block, 1, columns, *lengths),
            dtype=array.dtype,
            fill_value=array.fill,
            compressors=_COMPRESSION,
            dimension_names=("view", "shard", "sample", *(name for name, _ in array.more)),
        )
    for name, values in _by_sample(samples).items():
        _put_by_sample(group, name, values)
    _put(group, "samples", samples.count.astype(np.uint32), ("shard",))
    if probes.views is None:
        put_probe_digests(group, probes)
    else:
        _put(group, PROBE_VIEWS, probes.views, ("probe", "height", "width", "rgb"))
    _put(group, "probe_logits", probes.logits, ("probe", "class"))
    _put(group, "probe_at", probes.at, ("probe", "place"))


def append_shards(group: zarr.Group, manifest: Manifest, samples: Samples) -> list[str]:
    """Put `samples` behind the shards of the manifest, which does not name theirs yet; return the arrays changed.

    They have no more columns than the store. What an attempt that was killed left there goes.
    """
    first = len(manifest.shards)
    end = first + len(samples.count)
    by_sample: dict[str, Any] = {**_by_sample(samples), "samples": samples.count.astype(np.uint32)}
    with zarr.config.set(_OPENED):
        for name, values in by_sample.items():
            array = cast("zarr.Array[Any]", group[name])
            array.resize((end, *array.shape[1:]))
            padded = np.zeros((len(values), *array.shape[1:]), values.dtype)
            padded[tuple(slice(length) for length in values.shape)] = values
            array[first:end] = padded
        for by_view in arrays_by_view(manifest):
            array = cast("zarr.Array[Any]", group[by_view.name])
            array.resize((array.shape[0], end, *array.shape[2:]))
    return [*by_sample, *(array.name for array in arrays_by_view(manifest))]


def _by_sample(samples: Samples) -> dict[str, Any]:
    """Return the values of the arrays (shard, sample)."""
    named = {name: getattr(samples, name) for name in ("seed", "target", "offset", "nbytes", DIGEST)}
    return {name: values for name, values in named.items() if values is not None} | {"key": samples.keys}


def put_digests(group: zarr.Group, digest: NDArray[np.uint64]) -> None:
    """Write what the image files are known by, uint64 (shard, sample)."""
    _put_by_sample(group, DIGEST, digest)


def put_probe_digests(group: zarr.Group, probes: Probes) -> None:
    """Write what the probes' views are known by, uint64 (probe,)."""
    _put(group, PROBE_DIGEST, probes.digests(), ("probe",))


def _put_by_sample(group: zarr.Group, name: str, values: Any) -> None:
    shards, columns = values.shape
    _put(group, name, values, ("shard", "sample"), chunks=(min(shards, _SHARDS_IN_A_CHUNK), columns))


def _put(
    group: zarr.Group, name: str, values: Any, dims: tuple[str, ...], chunks: tuple[int, ...] | None = None
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=chunks or values.shape,
            dtype=str if name == "key" else values.dtype,
            overwrite=name == DIGEST,  # where an upgrade was killed
            compressors=_COMPRESSION,
            dimension_names=dims,
            config={"write_empty_chunks": True},  # else a chunk of zeros would look like a lost one
        )
        array[...] = values
