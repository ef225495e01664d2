"""The shards that a store is to be made of: read by all ranks, each image decoded once before a teacher sees any."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from ..datasets.augment import pixels
from ..datasets.shards.excluded import REASON, Excluded
from ..datasets.shards.index import ShardIndex, index_shards, without_bad_images
from ..datasets.shards.mirror import Mirror
from ..runtime.crew import Crew
from ..runtime.reporting import Reporter


def screened_index(
    urls: Sequence[str], crew: Crew, *, skip: bool, excluded: Excluded | None, mirror: Mirror, reporter: Reporter
) -> list[ShardIndex]:
    """Return the index of every shard once each image was decoded; bad ones are an error, or with `skip` left out.

    The ranks of a crew read a share each; the first returns what all of them found. Those that are `excluded` are left
    out before. Raises ValueError if that names a sample that no shard has.
    """

    def screen(index: ShardIndex) -> ShardIndex:
        wanted = excluded.without(index) if excluded else index
        return without_bad_images(wanted, pixels.decode, skip=skip)

    rank, world, own = crew.rank.rank, crew.world, list[ShardIndex]()
    if share := urls[rank::world]:
        with reporter.part("reading shards", None, "shards") as told:
            own = index_shards(share, screen=screen, mirror=mirror, reporter=told)
    shares = crew.gather("indexes", json.dumps([asdict(index) for index in own]))
    if not crew.first:
        return own
    indexes = own
    if world > 1:
        read = [[ShardIndex.from_dict(index) for index in json.loads(share)] for share in shares]
        indexes = [read[number % world][number // world] for number in range(len(urls))]
    _tell_of_skipped(indexes, excluded, reporter)
    return indexes


def _tell_of_skipped(indexes: Sequence[ShardIndex], excluded: Excluded | None, reporter: Reporter) -> None:
    skipped = [sample for index in indexes for sample in index.skipped]
    if excluded:
        left_out = [(sample.shard, sample.key) for sample in skipped if sample.reason == REASON]
        excluded.require_known(left_out)
        reporter.log(f"left out: {len(left_out):,} samples that {excluded.path} names")
    for sample in skipped:
        if sample.reason != REASON:
            reporter.log(f"skipped: shard {sample.shard}, key {sample.key}: {sample.reason}")
