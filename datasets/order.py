"""Order: which pairs a view has and in which order an epoch shows them. Integers only; no file is read here."""

import functools
import hashlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, fields

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
    """Shuffle within this many shards at a time, all groups of a shard in one epoch of a cycle; 0: within all shards,
    some groups of each in every epoch. Smaller keeps fewer shards busy at once."""
    by_group: bool = False
    """With a window too, some groups of each shard in every epoch, as runs had it before checkpoints of format 4."""
    chosen: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    """Whose views epochs show, (shard, sample); None: all."""
    there: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    """Which images there are, (shard, sample); epochs lack the views of the others and those mixed with them."""
    _left_out: dict[int, int] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def repeats(self) -> int:
        """Views of a group within an epoch, and epochs in a cycle."""
        return self.recipe.repeats

    def groups(self, shard: int, cycle: int) -> Int32s:
        """Return the groups of a shard in a cycle: (n, size) sample numbers, of which the last ends in ALONE.

        Each view of the cycle splits a group into other pairs. Without mixing a group is a sample and ALONE.
        """
        n, size = self.samples[shard], self.recipe.group
        shuffled = permutation(self.seed, Stream.PAIRS, (stream_of(self.shards[shard]), cycle, 0), n).astype(np.int32)
        if not self.recipe.mixes:
            return np.stack([shuffled, np.full(n, ALONE, np.int32)], axis=1)
        return np.append(shuffled, np.full(-n % size, ALONE, np.int32)).reshape(-1, size)

    def partners(self, shard: int, views: range) -> Int32s:
        """Return who each sample of a shard is paired with in each of `views` (view, sample), ALONE for nobody."""
        partners = np.empty((len(views), self.samples[shard]), np.int32)
        if views:
            first, end = views.start // self.repeats, -(-views.stop // self.repeats)
            rows = self.unit(shard, range(first * self.repeats, end * self.repeats))
            rows = rows[np.flatnonzero((rows.view >= views.start) & (rows.view < views.stop))]
            partners[rows.view - views.start, rows.sample] = rows.partner
        return partners

    def unit(self, shard: int, views: range) -> Rows:
        """Return all rows of a shard for `views` (whole cycles), group by group: stage 1's unit of work."""
        cycles = range(views.start // self.repeats, views.stop // self.repeats)
        groups = [self.groups(shard, cycle) for cycle in cycles]
        return _concatenate(
            [self._rows(np.full(len(g), shard), g, cycle) for cycle, g in zip(cycles, groups, strict=True)]
        )

    def epoch(self, epoch: int) -> Rows:
        """Return the rows of a whole epoch in training order.

        An epoch is one phase of a cycle: every `repeats`-th group of the dataset or, with a window, all groups of
        every `repeats`-th shard, each in all views of the cycle, one after the other (DeiT's repeated augmentation).
        Batches are slices of it, whatever the number of processes.
        """
        groups = self._groups_of(epoch, range(len(self.shards)))
        drawn = permutation(self.seed, Stream.ORDER, (epoch, 0, 0), len(self.shards)).tolist()
        shards = [shard for shard in drawn if shard in groups]
        window = self.window or len(shards)
        chosen = []
        for number, start in enumerate(range(0, len(shards), window), start=1):
            inside = shards[start : start + window]
            of_block = np.concatenate([groups[shard] for shard in inside])
            owners = np.repeat(inside, [len(groups[shard]) for shard in inside])
            shuffled = permutation(self.seed, Stream.ORDER, (epoch, number, 0), len(of_block))
            chosen.append(self._rows(owners[shuffled], of_block[shuffled], epoch // self.repeats))
        return self.shown(_concatenate(chosen))

    def shown(self, rows: Rows) -> Rows:
        """Return those of `rows` whose sample is `chosen`, and of which the images are `there`."""
        keep = np.ones(len(rows), np.bool_)
        if self.chosen is not None:
            keep &= self.chosen[rows.shard, rows.sample]
        if self.there is not None:
            keep &= self.there[rows.shard, rows.sample]
            keep &= (rows.partner == ALONE) | self.there[rows.shard, rows.partner]
        return rows if keep.all() else rows[np.flatnonzero(keep)]

    def size(self, epoch: int) -> int:
        """Return how many rows an epoch has, without shuffling it."""
        if self._thinned and epoch not in self._left_out:
            groups = self._groups_of(epoch, self._thinned)
            owners = np.repeat(list(groups), [len(of_shard) for of_shard in groups.values()])
            some = [*groups.values()]
            rows = self._rows(owners, np.concatenate(some), epoch // self.repeats) if some else None
            self._left_out[epoch] = len(rows) - len(self.shown(rows)) if rows else 0
        return self._whole_size(epoch) - self._left_out.get(epoch, 0)

    @property
    def _thinned(self) -> frozenset[int]:
        """The shards of which not all views are shown."""
        real = np.arange(max(self.samples)) < np.asarray(self.samples)[:, None]
        lacking = [~mask & real for mask in (self.chosen, self.there) if mask is not None]
        return frozenset(np.flatnonzero(np.any(lacking, axis=(0, 2))).tolist()) if lacking else frozenset()

    def _whole_size(self, epoch: int) -> int:
        if self._streams:
            shards: list[int] = self._shards_of(epoch).tolist()
            return sum(self.samples[shard] for shard in shards) * self.repeats
        phase, begun, samples = epoch % self.repeats, 0, 0
        size = self.recipe.group if self.recipe.mixes else 1
        for n in self.samples:
            groups = -(-n // size)
            chosen = range((phase - begun) % self.repeats, groups, self.repeats)
            samples += len(chosen) * size - (-n % size if groups - 1 in chosen else 0)  # the last may not be full
            begun += groups
        return samples * self.repeats

    def sizes(self, epochs: int) -> list[int]:
        """Return how many rows each of so many epochs has."""
        if self._streams or self._thinned:
            return [self.size(epoch) for epoch in range(epochs)]
        of_phase = [self.size(phase) for phase in range(min(epochs, self.repeats))]  # the same in every cycle
        return [of_phase[epoch % self.repeats] for epoch in range(epochs)]

    def _groups_of(self, epoch: int, shards: Container[int]) -> dict[int, Int32s]:
        """Return the groups that some shards have in an epoch."""
        cycle, phase = divmod(epoch, self.repeats)
        if self._streams:
            return {shard: self.groups(shard, cycle) for shard in self._shards_of(epoch).tolist() if shard in shards}
        chosen, first = {}, 0
        size = self.recipe.group if self.recipe.mixes else 1
        for shard, samples in enumerate(self.samples):
            if shard in shards:
                chosen[shard] = self.groups(shard, cycle)[(phase - first) % self.repeats :: self.repeats]
            first += -(-samples // size)
        return chosen

    @property
    def _streams(self) -> bool:
        """Whether an epoch has whole shards: not where there are too few for one in each epoch of a cycle."""
        return self.window > 0 and not self.by_group and len(self.shards) >= self.repeats

    def _shards_of(self, epoch: int) -> NDArray[np.int64]:
        """Return the shards of an epoch, of which each is in one epoch of a cycle."""
        cycle, phase = divmod(epoch, self.repeats)
        return permutation(self.seed, Stream.ORDER, (cycle, 0, 1), len(self.shards))[phase :: self.repeats]

    def _rows(self, shards: NDArray[np.int64], groups: Int32s, cycle: int) -> Rows:
        """Expand groups to rows: for each group, each view of the cycle, pair by pair, both ways."""
        views = np.arange(cycle * self.repeats, (cycle + 1) * self.repeats, dtype=np.int32)
        rounds = _rounds(groups.shape[1])
        places = rounds[np.arange(self.repeats) % len(rounds)]  # (view, pair, own and partner)
        shape = (len(groups), self.repeats, groups.shape[1])
        own, partner = (groups[:, way.reshape(self.repeats, -1)].ravel() for way in (places, places[..., ::-1]))
        keep = own != ALONE
        return Rows(
            shard=np.broadcast_to(shards.astype(np.int32)[:, None, None], shape).ravel()[keep],
            sample=own[keep],
            partner=partner[keep],
            view=np.broadcast_to(views[None, :, None], shape).ravel()[keep],
        )


@functools.cache
def _rounds(size: int) -> NDArray[np.int64]:
    """Return the places of a group that are paired in each round, so that all meet: (size - 1, size / 2, 2).

    The circle method of a tournament's rounds: the first place stands, the others go around.
    """
    places, rounds = np.arange(size), []
    for _ in range(size - 1):
        rounds.append(np.sort(np.stack([places[: size // 2], places[: size // 2 - 1 : -1]], axis=1), axis=1))
        places = np.concatenate([places[:1], places[-1:], places[1:-1]])
    return np.stack(rounds)


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
