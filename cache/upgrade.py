"""An older store brought to the format that is written now: its images get digests, by which any copy is known."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..datasets.samples import Samples
from ..datasets.shards.files import image_digest
from ..runtime.cores import usable_cores
from ..runtime.reporting import SILENT, Reporter
from .arrays import DIGEST, put_digests
from .claims import Claims
from .store import Store


def upgrade(store: Store, samples: Samples, claims: Claims, *, reporter: Reporter = SILENT) -> None:
    """Keep the digests of a store's images, read from the shards that it was made from.

    `reporter` counts shards. Labels and checks stay as they are. Raises ValueError for a shard that was changed.
    """
    digest = np.zeros(samples.seed.shape, np.uint64)
    pool = ThreadPoolExecutor(usable_cores())

    def read(shard: int) -> None:
        if samples.supply:  # verified as it comes
            samples.supply.hold(shard)
        try:
            if changed := samples.difference(shard, store.manifest.shards[shard]):
                raise changed
            for sample in range(int(store.counts[shard])):
                digest[shard, sample] = image_digest(samples.read(shard, sample))
        finally:
            if samples.supply:
                samples.supply.let_go(shard)
        reporter.advance()

    try:
        list(pool.map(read, range(len(store.counts))))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    with claims.structure():
        put_digests(store.storage.open(), digest)
        for file in store.storage.sizes(DIGEST):
            store.storage.sync(f"{DIGEST}/{file}")
        store.record()  # with the format that is written now
        store.reopen()
