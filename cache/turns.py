"""Who does which unit: the ranks of a crew draw from one list, turn by turn, until nothing is missing."""

import json
from collections.abc import Iterator

from ..datasets.samples import Samples
from ..runtime.crew import Crew
from ..runtime.reporting import SILENT, Reporter
from .records import Unit
from .store import Store

_MOST_SHARDS = 1 << 24


class Turn:
    """All units that were missing when it began, which the ranks of a crew share out; `missing` views in all.

    Fast and slow ranks end together, as each draws its next unit when it is through with the one before.
    """

    def __init__(self, number: int, store: Store, samples: Samples, crew: Crew, *, reporter: Reporter = SILENT) -> None:
        """Begin the turn of that number: the first rank lists what is missing, for all, and reports what all do."""
        self._name, self._store, self._crew, self._reporter = f"turn {number}", store, crew, reporter
        self._reported = self.missing = 0
        self._tasks: list[list[int]] = json.loads(crew.agreed(self._name, lambda: json.dumps(self._missing(samples))))

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self._tasks)

    def _missing(self, samples: Samples) -> list[list[int]]:
        """Return the numbers of units, by what is drawn at once, block by block: the first epochs are whole first."""
        counts = self._store.counts[: len(samples.count)].tolist()  # another process may be adding shards
        units = [unit for unit in self._store.units() if unit.shard < len(counts)]
        total = self._store.views * sum(counts)
        self.missing = sum(len(unit.views) * counts[unit.shard] for unit in units)
        self._reporter.start_at(total - self.missing, total)
        if samples.supply and not samples.supply.fits(samples.supply.remote):
            by_shard: dict[int, list[int]] = {}  # so that a mirror fetches each shard once
            for unit in units:
                by_shard.setdefault(unit.shard, []).append(number_of(unit))
            return [by_shard[shard] for shard in sorted(by_shard)]
        return [[number_of(unit)] for unit in units]

    def draw(self) -> Iterator[Unit]:
        """Yield units for this rank until all are drawn."""
        while (drawn := self._crew.draw(f"{self._name} drawn")) < len(self._tasks):
            for number in self._tasks[drawn]:
                block, shard = divmod(number, _MOST_SHARDS)
                yield Unit(shard=shard, block=block, views=self._store.blocks[block])

    def committed(self, views: int) -> None:
        """Count views that this rank has committed."""
        self._crew.add(f"{self._name} views", views)
        self._report()

    def end(self) -> int:
        """In the first rank wait for the others, and return how many views the crew has committed."""
        self._crew.gather(f"{self._name} done", "", or_left=True, meanwhile=self._report)
        return self._crew.add(f"{self._name} views", 0)

    def _report(self) -> None:
        if self._crew.first:
            views = self._crew.add(f"{self._name} views", 0)
            self._reporter.advance(views - self._reported)
            self._reported = views


def number_of(unit: Unit) -> int:
    """Return a unit's number: of (block, shard), in that order, however many shards there are."""
    return unit.block * _MOST_SHARDS + unit.shard
