"""A store's shards once more, out of any copy of its images: in its own order and names, which streams best."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from ..datasets.samples import Samples
from ..datasets.shards.writing import Entry, pack, write_shards
from ..runtime.reporting import SILENT, Reporter
from .store import Store

FORMAT = 1
_MAGIC = {b"\x89PNG": "png", b"RIFF": "webp"}
_JPEG = ("jpg", "jpeg")


def repack(store: Store, samples: Samples, out: Path, *, reporter: Reporter = SILENT) -> tuple[int, int]:
    """Write the shards of `store` into `out`; return how many there are, and how many are the store's, byte by byte.

    That is all of them where `make_shards` made those. The others hold the same images under the same keys. What a
    killed run has written is kept.
    """
    manifest, numbered = store.manifest, dict(enumerate(store.manifest.shard_names))
    jpeg = next((one for one in _JPEG if _is_alike(store, _Shard(store, samples, 0, one))), _JPEG[0])
    shards = {name: _Shard(store, samples, number, jpeg) for number, name in numbered.items()}
    packing = {"format": FORMAT, "like": manifest.fingerprint, "jpeg": jpeg}
    write_shards(out, shards, manifest.class_names, packing, reporter=reporter)
    return len(shards), sum(not shard.difference(str(out / shard.name)) for shard in manifest.shards)


@dataclass(frozen=True, slots=True)
class _Shard:
    """What a shard holds, read as it is packed; JPEG images get the extension `jpeg`, which no store knows."""

    store: Store
    samples: Samples
    number: int
    jpeg: str

    def __iter__(self) -> Iterator[Entry]:
        targets = self.samples.target[self.number].tolist()
        for sample, key in enumerate(self.store.keys(self.number)):
            image = self.samples.read(self.number, sample)
            extension = _MAGIC.get(image[:4], self.jpeg)
            yield Entry(key=key, target=targets[sample], extension=extension, read=partial(bytes, image))


def _is_alike(store: Store, shard: _Shard) -> bool:
    """Return whether a shard, packed so, has the bytes that the store was made from."""
    pack(shard, cast(BinaryIO, digest := _Digest()))
    return digest.sha256.hexdigest() == store.manifest.shards[shard.number].sha256


class _Digest:
    """A file of whose bytes nothing is kept but their SHA-256."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Take in some bytes."""
        self.sha256.update(data)
        return len(data)
