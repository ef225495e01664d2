"""The ranks of one job that share out work: what they tell each other through the job's own store of keys.

Unlike a process group, this outlives any of them, and needs as many of them as there happen to be.
"""

import contextlib
import functools
import itertools
import platform
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from .ranks import PeerError, Rank, launcher, this_rank
from .signals import StopRequested

_BEAT = 5.0
"""Seconds between two signs of life of a rank."""
_SILENT = 60.0
"""Seconds without one after which who waits for a rank gives it up; before its first, `_STARTING`."""
_STARTING = 300.0
_POLL = 0.1


class Crew:
    """The ranks of this job, or one process alone; a context manager, which ends once all of them are through.

    What fails in one ends all, and one line says why: every method that waits raises PeerError then, and where another
    rank shows no sign of life. One that is stopped, as its machine may be, leaves the others to go on: not the first.
    """

    def __init__(self, rank: Rank | None = None, store: Any = None) -> None:
        """`store` is a torch.distributed.Store that all ranks share; one of this process by default."""
        self.rank = rank or Rank()
        self._given = store
        self._ended = threading.Event()
        self._signs: dict[int, tuple[str, float]] = {}  # of each rank that is waited for: its last, and since when

    @functools.cached_property
    def _store(self) -> Any:
        from torch.distributed import HashStore  # type: ignore[attr-defined]  # torch takes seconds to load

        return self._given or HashStore()

    @property
    def world(self) -> int:
        """How many ranks there are."""
        return self.rank.world

    @property
    def launcher(self) -> int | None:
        """The process without which this one is to end."""
        return launcher(self.world)

    @property
    def first(self) -> bool:
        """Whether this is the rank that plans and reports."""
        return self.rank.rank == 0

    def __enter__(self) -> "Crew":
        if self.world > 1:
            threading.Thread(target=self._live, name="crew", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave together; of an error, only the first rank that has one says what it is."""
        if self.world == 1:
            return
        try:
            if error is None:
                self.gather("through", "", or_left=True)
            elif isinstance(error, StopRequested) and not self.first:
                raise PeerError("", error.exit_code) from error
            elif not (isinstance(error, PeerError) and not str(error)):
                code = getattr(error, "exit_code", 2)
                told = self._store.compare_set("failed", "", f"{self.rank.rank} {code}").decode()
                if told.split()[0] != str(self.rank.rank):
                    raise PeerError("", code) from error
        finally:
            self._ended.set()
            with contextlib.suppress(RuntimeError):
                self._tell(f"left/{self.rank.rank}", "")
            if error is None and self.first:  # which may be the host of the keys
                for rank in range(self.world):
                    self._wait(f"left/{rank}", rank)

    def draw(self, name: str) -> int:
        """Return 0, 1, 2, ...: of all ranks each number once."""
        return int(self._store.add(name, 1)) - 1

    def add(self, name: str, n: int) -> int:
        """Add to a number that all ranks share, 0 at first, and return what it is then."""
        return int(self._store.add(name, n))

    def mark(self, name: str) -> None:
        """Leave a mark for other ranks."""
        self._tell(name, "")

    def is_marked(self, name: str) -> bool:
        """Return whether a rank left that mark."""
        return bool(self._store.check([name]))

    def agreed(self, name: str, find: Callable[[], str]) -> str:
        """Return what the first rank finds; the others wait for it."""
        if self.first:
            self._tell(name, find())
        return self._wait(name, 0)

    @contextlib.contextmanager
    def first_before_others(self, name: str) -> Iterator[None]:
        """Do what is inside in the first rank, and then in the others."""
        if not self.first:
            self._wait(name, 0)
        yield
        if self.first:
            self._tell(name, "")

    def gather(
        self, name: str, text: str, *, or_left: bool = False, meanwhile: Callable[[], None] = lambda: None
    ) -> list[str]:
        """Return every rank's text, by rank, in the first; the others go on at once, with nothing.

        `or_left`: do without those that were stopped. `meanwhile` is called again and again while the first waits.
        """
        self._tell(f"{name}/{self.rank.rank}", text)
        return [self._wait(f"{name}/{r}", r, or_left, meanwhile) for r in range(self.world)] if self.first else []

    def require_well(self) -> None:
        """Raise PeerError if a rank has failed."""
        if self.world > 1 and self._store.check(["failed"]):
            _, code = self._store.get("failed").decode().split()
            raise PeerError("", int(code))

    def _tell(self, name: str, text: str) -> None:
        self._store.set(name, f" {text}")  # a key of nothing at all is none for some stores

    def _wait(self, name: str, rank: int, or_left: bool = False, meanwhile: Callable[[], None] = lambda: None) -> str:
        """Return what `rank` tells under that name, once it does; or nothing, if it left and may have."""
        self._signs.pop(rank, None)
        while not self._store.check([name]):
            self.require_well()
            if self.is_marked(f"left/{rank}") and not self.is_marked(name):  # which it may have left since
                if or_left:
                    return ""
                raise PeerError(f"rank {rank} was stopped; run the same command again to go on")
            self._require_alive(rank)
            meanwhile()
            time.sleep(_POLL)
        return str(self._store.get(name).decode()[1:])

    def _require_alive(self, rank: int) -> None:
        sign = self._store.get(f"alive/{rank}").decode() if self._store.check([f"alive/{rank}"]) else ""
        now, (last, since) = time.monotonic(), self._signs.get(rank, ("", time.monotonic()))
        self._signs[rank] = (sign, since if sign == last else now)
        if now - self._signs[rank][1] > (_SILENT if sign else _STARTING):
            where = f" on {sign.rpartition(' ')[0]}" if sign else ""
            raise PeerError(f"rank {rank}{where} shows no sign of life; run the same command again to go on")

    def _live(self) -> None:
        """Show signs of life."""
        beats = 0
        with contextlib.suppress(RuntimeError):  # of a store that went with its host: who uses it notices
            while True:
                self._store.set(f"alive/{self.rank.rank}", f"{platform.node()} {(beats := beats + 1)}")
                if self._ended.wait(_BEAT):
                    return


_joined: list[Crew] = []
"""The crew that this process is of, if any."""
_times = itertools.count()


@contextlib.contextmanager
def join() -> Iterator[Crew]:
    """Be one of the ranks that torchrun or srun started, if either did, or else a crew of one.

    Who is of a crew already stays of that. One process may join one after the other, as all of its ranks do.
    """
    if _joined:
        yield _joined[-1]
        return
    with _new_crew() as crew:
        _joined.append(crew)
        try:
            yield crew
        finally:
            _joined.remove(crew)


def _new_crew() -> Crew:
    rank = this_rank()
    if rank.world == 1:
        return Crew()
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    return Crew(rank, PrefixStore(f"distillcache/{rank.restarts}/{next(_times)}", _keys()))  # no keys of before


@functools.cache
def _keys() -> Any:
    """Return the job's store of keys, which the first rank may hold for the others."""
    from torch.distributed import rendezvous  # type: ignore[attr-defined]

    try:
        store, _, _ = next(rendezvous("env://"))
    except (RuntimeError, ValueError) as error:
        raise PeerError(f"the other processes of this job could not be reached: {error}") from error
    return store
