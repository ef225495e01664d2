"""What goes into a store and comes out of it: arrays that belong together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.shards.files import image_digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Probes:
    """A few whole views and what the teacher said of them, so that a replay can say how far it drifted.

    views uint8 (probe, height, width, 3); logits float32 (probe, class); at int32 (probe, 3): shard, sample, view.
    A published store has no pixels, and instead of views their `digest`, uint64 (probe,).
    """

    views: NDArray[np.uint8] | None
    logits: NDArray[np.float32]
    at: NDArray[np.int32]
    digest: NDArray[np.uint64] | None = None

    def digests(self) -> NDArray[np.uint64]:
        """Return the digests of the views, as `view_digests` has them."""
        if self.views is not None:
            return view_digests(self.views)
        assert self.digest is not None
        return self.digest


def view_digests(views: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the digest of each view's bytes (n, height, width, 3), row by row, RGB: as of an image file's."""
    return np.array([image_digest(view.tobytes()) for view in views], np.uint64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What is committed at once: some views (whole cycles of one block) of one shard."""

    shard: int
    block: int
    views: range


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What the teacher said of a batch (n,), a unit (view, sample) or a cycle (view, shard, sample).

    Integers, as wide as the store has them or wider. Of the logits there is what the store keeps, if anything: the k
    largest, on one more axis, largest first; or all of them, as `quantised.Quantised` has them.
    """

    label: NDArray[np.unsignedinteger[Any]]
    check: NDArray[np.uint16]
    topk_index: NDArray[np.unsignedinteger[Any]] | None = None
    topk_logit: NDArray[np.float16] | None = None
    logit_code: NDArray[np.uint8] | None = None
    logit_scale: NDArray[np.float32] | None = None
    logit_zero: NDArray[np.float32] | None = None
