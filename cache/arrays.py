"""The arrays of a new store, as they are before the first unit is written."""

import warnings
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from ..datasets.samples import Samples
from .layout import arrays_by_view
from .manifest import Manifest
from .records import Probes

DIGEST = "digest"
"""Of the image files, see `image_digest`; stores of formats 1 to 3 have none until they are upgraded."""
PROBE_VIEWS, PROBE_DIGEST = "probe_views", "probe_digest"
"""The pixels of the probes or, in a published store, what they are known by."""
_COMPRESSION = ZstdCodec(level=3, checksum=True)
_SHARDS_IN_A_CHUNK = 256  # of the arrays by sample: about two megabytes of seeds for ImageNet's shards


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
    by_sample = {name: getattr(samples, name) for name in ("seed", "target", "offset", "nbytes")}
    for name, values in {**by_sample, "key": samples.keys}.items():
        _put_by_sample(group, name, values)
    if samples.digest is not None:
        put_digests(group, samples.digest)
    _put(group, "samples", samples.count.astype(np.uint32), ("shard",))
    if probes.views is None:
        put_probe_digests(group, probes)
    else:
        _put(group, PROBE_VIEWS, probes.views, ("probe", "height", "width", "rgb"))
    _put(group, "probe_logits", probes.logits, ("probe", "class"))
    _put(group, "probe_at", probes.at, ("probe", "place"))


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
