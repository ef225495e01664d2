"""Shards from far away: fetched before the rows that need them are rendered, and held in the mirror meanwhile."""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ..runtime.errors import InputError
from .order import Rows
from .shards.files import is_local
from .shards.index import Shard
from .shards.mirror import Mirror

_AT_ONCE = 4
_ROWS_AHEAD = 1 << 15
"""How many rows are known before they are rendered, so that what they need is there by then."""


class Supply:
    """The files of a run, by number, of which those from far away come through a mirror."""

    def __init__(self, mirror: Mirror, urls: Sequence[str], shards: Sequence[Shard]) -> None:
        """`shards` says what lies at `urls`; what is on this machine is read where it is."""
        self._mirror, self._urls, self._shards = mirror, urls, shards
        self.remote = frozenset(number for number, url in enumerate(urls) if not is_local(url))
        self.paths = [
            str(mirror.path(shards[number].sha256)) if number in self.remote else url for number, url in enumerate(urls)
        ]

    def nbytes(self, files: Iterable[int]) -> int:
        """Return how many bytes some files take in the mirror."""
        return sum(self._shards[file].nbytes for file in files if file in self.remote)

    def window(self, asked: int | None) -> int:
        """Return in how many shards to shuffle: as is `asked`, or in all if the mirror holds them, or in half of what
        it holds, so that the next window comes while one is used.

        Raises ValueError if it can't hold two windows of what is asked for, or of one shard.
        """
        sizes = sorted((self.nbytes([file]) for file in self.remote), reverse=True)
        fitting = sum(1 for total in itertools.accumulate(sizes) if total <= self._mirror.limit)
        if asked is None:
            asked = 0 if fitting == len(sizes) else max(1, fitting // 2)
        needed = sum(sizes[: 2 * asked] if asked else sizes)
        if needed > self._mirror.limit:
            what = f"two windows of {asked} shards" if asked else f"all {len(sizes)} shards, shuffled as one"
            remedy = "enlarge it" if asked == 1 else f"enlarge it, or ask for `window={max(1, fitting // 2)}`"
            raise InputError("`mirror_size`", f"{needed:,} bytes for {what}", f"{self._mirror.limit:,}", remedy)
        return asked

    def window_of_all(self) -> int:
        """Return 0, the window of all shards, for files that are packed otherwise: any shard may need any of them.

        Raises ValueError if the mirror can't hold them all.
        """
        if (needed := self.nbytes(self.remote)) > self._mirror.limit:
            what = f"{needed:,} bytes for all files, which are not packed as the store's shards are"
            remedy = "enlarge it, or pack them alike: distillcache make-shards with `like`"
            raise InputError("`mirror_size`", what, f"{self._mirror.limit:,}", remedy)
        return 0

    def fits(self, files: Iterable[int]) -> bool:
        """Return whether the mirror may hold some files at once."""
        return self.nbytes(files) <= self._mirror.limit

    def fetch(self, file: int) -> None:
        """Have a file here, as long as nothing else needs its room. Raises ValueError as `Mirror.hold` does."""
        self.hold(file)
        self.let_go(file)

    def hold(self, file: int) -> None:
        """Have a file here until it is `let_go`. Raises ValueError as `Mirror.hold` does."""
        if file in self.remote:
            self._mirror.hold(self._urls[file], self._shards[file].sha256, self._shards[file].nbytes)

    def want(self, file: int, *, wanted: bool = True) -> None:
        """Note that a file will be used, or no longer: others make room before it."""
        if file in self.remote:
            self._mirror.want(self._shards[file].sha256, wanted=wanted)

    def let_go(self, file: int) -> None:
        """Let a file make room for others."""
        if file in self.remote:
            self._mirror.let_go(self._shards[file].sha256)


class LookAhead:
    """Batches of rows on their way to be rendered: fetches what later ones read from, holds what those that are out do.

    What was fetched ahead makes room for others if it must, such as for the held-out shards between two epochs.
    """

    def __init__(self, supply: Supply, files_of: Callable[[Rows], frozenset[int]]) -> None:
        """`files_of` says from which files rows are rendered."""
        self._supply, self._files_of = supply, files_of
        self._ahead: deque[tuple[Rows, frozenset[int]]] = deque()
        self._needs: Counter[int] = Counter()  # of each file, by batches that are ahead
        self._coming: dict[int, Future[None]] = {}
        self._out: deque[frozenset[int]] = deque()
        self._uses: Counter[int] = Counter()  # of each file that is held, by batches that are out

    def supplied(self, batches: Iterable[Rows]) -> Iterator[Rows]:
        """Yield each batch once its files are here, and fetch those of later ones meanwhile."""
        source = iter(batches)
        following = next(source, None)
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            while following is not None or self._ahead:
                while following is not None and self._take(following, pool):
                    following = next(source, None)
                rows, files = self._ahead.popleft()
                self._hold(files)
                for file in _count_off(self._needs, files):
                    self._supply.want(file, wanted=False)
                self._out.append(files)
                yield rows
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for file in self._needs:
                self._supply.want(file, wanted=False)
            self._forget()

    def done(self) -> None:
        """Note that the first of the batches that are out has been rendered."""
        self._let_go(self._out.popleft())

    def _take(self, rows: Rows, pool: ThreadPoolExecutor) -> bool:
        """Begin to fetch what `rows` need, if it is time and there is room for it."""
        files = self._files_of(rows)
        full = sum(len(ahead) for ahead, _ in self._ahead) > _ROWS_AHEAD
        if self._ahead and (full or not self._supply.fits(files | self._needs.keys() | self._uses.keys())):
            return False
        for file in files - self._needs.keys():
            self._supply.want(file)
            if file not in self._uses:
                self._coming[file] = pool.submit(self._supply.fetch, file)
        self._needs.update(files)
        self._ahead.append((rows, files))
        return True

    def _hold(self, files: frozenset[int]) -> None:
        if not self._supply.fits(files | self._uses.keys()):
            self._forget()
        for file in files:
            if file in self._coming:
                self._coming.pop(file).result()
            if not self._uses[file]:
                self._supply.hold(file)
            self._uses[file] += 1

    def _let_go(self, files: frozenset[int]) -> None:
        for file in _count_off(self._uses, files):
            self._supply.let_go(file)

    def _forget(self) -> None:
        """Let go of what the batches that are out need; what goes before they are rendered comes again."""
        for files in self._out:
            self._let_go(files)
        self._out = deque(frozenset() for _ in self._out)


def _count_off(counts: Counter[int], files: frozenset[int]) -> list[int]:
    """Count each of `files` once less, and return those of which none is left."""
    counts.subtract(files)
    gone = [file for file in files if not counts[file]]
    for file in gone:
        del counts[file]
    return gone
