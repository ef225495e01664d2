"""Claims: how processes that fill one store keep to one writer for each chunk."""

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from upath import UPath

from ..runtime.claim import Claim
from ..runtime.crew import Crew
from ..runtime.errors import InputError
from ..runtime.locks import HeldError, LockFile
from ..runtime.paths import AnyPath
from .storage import storage_at

_PRESENCE = 0
_STRUCTURE = 1
_FIRST_UNIT = 2
_POLL = 0.05


class Claims(ABC):
    """What this process claims of a store; a context manager, entered before anything else is done to the store."""

    @abstractmethod
    def __enter__(self) -> "Claims": ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def take(self, unit: int) -> bool:
        """Return whether the unit of that number is ours now."""

    @abstractmethod
    def release(self, unit: int) -> None:
        """Let go of a unit."""

    @abstractmethod
    def structure(self) -> AbstractContextManager[None]:
        """Be the only process that makes the store, or changes its shape or its attributes; wait for others."""

    @abstractmethod
    def require_held(self) -> None:
        """Raise ValueError if what was taken is another's by now."""


def claims_on(store: AnyPath, *, take_over: bool = False, crew: Crew | None = None) -> Claims:
    """Return what is claimed of a store by: byte locks, or on a server, where there are none, all of it by one job.

    `crew` are the ranks of that job; by default it has one.
    """
    return ByteClaims(store) if isinstance(store, Path) else JobClaim(store, crew or Crew(), take_over=take_over)


def require_claims(store: AnyPath) -> None:
    """Raise ValueError where processes can't share a store, as its folder has no locks."""
    if isinstance(store, Path):
        with ByteClaims(store):
            pass


class ByteClaims(Claims):
    """Units, as locks on single bytes of a file beside the store.

    Entering raises ValueError where byte locks can't be had. Within it the process counts as present. The last to leave
    clears away what killed processes left, and the file.
    """

    def __init__(self, store: Path) -> None:
        self._store = store.resolve()  # by whatever links processes find a store, they meet at one file

    def __enter__(self) -> "ByteClaims":
        try:
            self._store.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(self._store, "a place in a folder", error.strerror, "name another place") from error
        self._file = LockFile(self._store.with_name(self._store.name + ".lock"), _PRESENCE, shared=True, wait=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file as file:
            file.unlock(_PRESENCE)  # of two that leave at once neither could have it alone
            if file.lock(_PRESENCE) and file.is_current():
                storage_at(self._store).sweep()
                file.remove()

    def take(self, unit: int) -> bool:
        """Return whether the unit of that number is ours now."""
        return self._file.lock(_FIRST_UNIT + unit)

    def release(self, unit: int) -> None:
        """Let go of a unit."""
        self._file.unlock(_FIRST_UNIT + unit)

    @contextlib.contextmanager
    def structure(self) -> Iterator[None]:
        """Be the only process that makes the store, or changes its shape or its attributes; wait for others."""
        while not self._file.lock(_STRUCTURE):
            time.sleep(_POLL)
        try:
            yield
        finally:
            self._file.unlock(_STRUCTURE)

    def require_held(self) -> None:
        """Do nothing: no one else gets a lock that is held."""


class JobClaim(Claims):
    """All of a store, for one job, as an object beside it; ValueError where another has it.

    The crew's first rank makes it, also anew where torchrun has started the job's ranks again; the others watch it.
    """

    def __init__(self, store: UPath, crew: Crew, *, take_over: bool) -> None:
        self._store, self._crew, self._take_over = store, crew, take_over or bool(crew.rank.restarts)

    def __enter__(self) -> "JobClaim":
        path = self._store.with_name(self._store.name + ".claim")
        try:
            if self._crew.first:
                self._claim = Claim(path, take_over=self._take_over)
            nonce = self._crew.agreed("claim", lambda: self._claim.nonce)
            if not self._crew.first:
                self._claim = Claim(path, nonce=nonce)
        except HeldError as error:
            expected, remedy = (
                "a store that no other job fills",
                "wait for its end; if it was killed, add `take_over=True`",
            )
            raise InputError(self._store, expected, f"one filled by {error.holder}", remedy) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claim.__exit__(kind, error, trace)

    def take(self, unit: int) -> bool:
        """Return that it is."""
        return True

    def release(self, unit: int) -> None:
        """Keep it: nobody else asks."""

    @contextlib.contextmanager
    def structure(self) -> Iterator[None]:
        """Be what we are."""
        yield

    def require_held(self) -> None:
        """Raise ValueError if another job took over."""
        self._claim.require_held()
