"""The store's layout: its arrays that have a value for each view, in the order in which a unit is written."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .manifest import Manifest
from .quantised import bytes_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayByView:
    """An array (view, shard, sample, ...) of which each unit, a block of views of one shard, is a chunk."""

    name: str
    dtype: Any
    fill: int = 0
    more: tuple[tuple[str, int], ...] = ()
    """Dimensions behind the sample's, by name, with their lengths."""

    @property
    def nbytes(self) -> int:
        """How many bytes a view takes, uncompressed."""
        return int(np.dtype(self.dtype).itemsize * math.prod(length for _, length in self.more))

    def chunk(self, block: int, shard: int) -> tuple[int, ...]:
        """Return the number of a unit's chunk."""
        return (block, shard, 0, *(0 for _ in self.more))


def arrays_by_view(manifest: Manifest) -> list[ArrayByView]:
    """Return the arrays that a unit writes, the label last: it commits."""
    label = np.uint16 if manifest.teacher.classes < 2**16 - 1 else np.uint32
    arrays = [ArrayByView(name="check", dtype=np.uint16)]
    if manifest.topk:
        k = (("k", manifest.topk),)
        arrays.append(ArrayByView(name="topk_index", dtype=label, more=k))
        arrays.append(ArrayByView(name="topk_logit", dtype=np.float16, more=k))
    if manifest.logits:
        codes = ("class" if manifest.logits == 8 else "byte", bytes_of(manifest.teacher.classes, manifest.logits))
        arrays.append(ArrayByView(name="logit_code", dtype=np.uint8, more=(codes,)))
        arrays += [ArrayByView(name=name, dtype=np.float32) for name in ("logit_scale", "logit_zero")]
    return [*arrays, ArrayByView(name="label", dtype=label, fill=int(np.iinfo(label).max))]
