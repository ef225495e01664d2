"""Order: which pairs a cycle has and in which order an epoch shows them. Integers only; no file is read here."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from .augment.philox import Stream, permutation, words
from .augment.recipes import Recipe

Int32s = NDArray[np.int32]
ALONE = -1
"""The partner of a sample that is not mixed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """One row for each view to be made: which view of which sample, mixed with which other sample of its shard."""

    shard: Int32s
    sample: Int32s
    partner: Int32s
    view: Int32s

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, index: slice | NDArray[np.int64]) -> "Rows":
        return Rows(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def batches(self, size: int) -> Iterator["Rows"]:
        """Yield consecutive slices of `size` rows; the last may be shorter."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The order of everything, a pure function of a store's seed, shard names and sizes, and its recipe."""

    seed: int
    shards: Sequence[str]
    samples: Sequence[int]
    recipe: Recipe
    window: int = 0
    """Shuffle within this many shards at a time; 0: within all. Smaller keeps fewer remote shards busy at once."""

    @property
    def repeats(self) -> int:
        """Views of a pair within an epoch, and epochs in a cycle."""
        return self.recipe.repeats

    def pairs(self, shard: int, cycle: int) -> Int32s:
        """Return the pairs of a shard in a cycle: (n, 2) sample numbers; an odd one out is paired with ALONE."""
        n = self.samples[shard]
        shuffled = permutation(self.seed, Stream.PAIRS, (stream_of(self.shards[shard]), cycle, 0), n)
        if not self.recipe.mixes:
            return np.stack([shuffled, np.full(n, ALONE)], axis=1).astype(np.int32)
        if n % 2:
            shuffled = np.append(shuffled, ALONE)
        return shuffled.reshape(-1, 2).astype(np.int32)

    def partners(self, shard: int, views: range) -> Int32s:
        """Return who each sample of a shard is paired with in each of `views` (view, sample), ALONE for nobody."""
        partners = np.full((len(views), self.samples[shard]), ALONE, np.int32)
        cycles = np.arange(views.start, views.stop) // self.repeats
        for cycle in np.unique(cycles).tolist():
            first, second = self.pairs(shard, cycle).T
            of_cycle = np.full(self.samples[shard], ALONE, np.int32)
            of_cycle[first] = second
            of_cycle[second[second != ALONE]] = first[second != ALONE]
            partners[cycles == cycle] = of_cycle
        return partners

    def unit(self, shard: int, views: range) -> Rows:
        """Return all rows of a shard for `views` (whole cycles), pair by pair: stage 1's unit of work."""
        cycles = range(views.start // self.repeats, views.stop // self.repeats)
        return _concatenate([self._rows(np.full(len(p), shard), p, c) for c in cycles for p in [self.pairs(shard, c)]])

    def epoch(self, epoch: int) -> Rows:
        """Return the rows of a whole epoch in training order.

        An epoch is one phase of a cycle: every `repeats`-th pair of the dataset, each in all views of the cycle, one
        after the other (DeiT's repeated augmentation). Batches are slices of it, whatever the number of processes.
        """
        cycle, phase = divmod(epoch, self.repeats)
        pairs, owners, first = [], [], 0
        for shard in range(len(self.shards)):
            all_pairs = self.pairs(shard, cycle)
            pairs.append(all_pairs[(phase - first) % self.repeats :: self.repeats])
            owners.append(np.full(len(pairs[-1]), shard))
            first += len(all_pairs)
        shards = permutation(self.seed, Stream.ORDER, (epoch, 0, 0), len(self.shards))
        window = self.window or len(self.shards)
        chosen = []
        for number, start in enumerate(range(0, len(shards), window), start=1):
            inside = shards[start : start + window]
            block_pairs, block_owners = (
                np.concatenate([pairs[s] for s in inside]),
                np.concatenate([owners[s] for s in inside]),
            )
            shuffled = permutation(self.seed, Stream.ORDER, (epoch, number, 0), len(block_pairs))
            chosen.append(self._rows(block_owners[shuffled], block_pairs[shuffled], cycle))
        return _concatenate(chosen)

    def size(self, epoch: int) -> int:
        """Return how many rows an epoch has, without drawing it: as many as that of its phase in any cycle."""
        phase, begun, rows = epoch % self.repeats, 0, 0
        for n in self.samples:
            pairs = -(-n // 2) if self.recipe.mixes else n
            chosen = range((phase - begun) % self.repeats, pairs, self.repeats)
            rows += len(chosen) * (2 if self.recipe.mixes else 1)
            rows -= self.recipe.mixes and n % 2 == 1 and pairs - 1 in chosen  # the odd one out is the last pair
            begun += pairs
        return rows * self.repeats

    def _rows(self, shards: NDArray[np.int64], pairs: Int32s, cycle: int) -> Rows:
        """Expand pairs to rows: for each pair, each view of the cycle, both ways."""
        views = np.arange(cycle * self.repeats, (cycle + 1) * self.repeats, dtype=np.int32)
        both_ways = np.stack([pairs, pairs[:, ::-1]], axis=1)  # (pair, way, own and partner)
        shape = (len(pairs), self.repeats, 2)
        own, partner = (np.broadcast_to(both_ways[:, None, :, i], shape).ravel() for i in (0, 1))
        keep = own != ALONE
        return Rows(
            shard=np.broadcast_to(shards.astype(np.int32)[:, None, None], shape).ravel()[keep],
            sample=own[keep],
            partner=partner[keep],
            view=np.broadcast_to(views[None, :, None], shape).ravel()[keep],
        )


def in_sequence(samples: Sequence[int]) -> Rows:
    """Return view 0 of every sample, unmixed and in the shards' order: for evaluation."""
    counts = np.asarray(samples)
    shard = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    sample = np.concatenate([np.arange(n, dtype=np.int32) for n in counts]) if len(counts) else shard
    return Rows(shard=shard, sample=sample, partner=np.full_like(sample, ALONE), view=np.zeros_like(sample))


def sample_seeds(seed: int, shard_name: str, n: int) -> NDArray[np.uint64]:
    """Return the augmentation seeds of a shard's `n` samples, uint64: drawn once, in stage 1, and then stored."""
    return words(seed, Stream.SEED, (stream_of(shard_name), 0, 0), n)


def stream_of(shard_name: str) -> int:
    """Return the counter word of a shard: 64 bits of its name's SHA-256, so that a list of shards has no order."""
    return int.from_bytes(hashlib.sha256(shard_name.encode()).digest()[:8], "little")


def _concatenate(parts: Sequence[Rows]) -> Rows:
    return Rows(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Rows)})
