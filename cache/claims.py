"""Claims: how processes that fill one store at once keep to one writer for each chunk."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

STRUCTURE = 0
"""The claim on a store's making, its arrays' shapes and its attributes; units have the numbers from 1."""


class Claims:
    """Locks on single bytes of a file beside the store, one byte a unit.

    The kernel drops them with the process that held them, also after SIGKILL and on shared file systems with POSIX
    locks (NFS 4, Lustre, GPFS), so no claim is ever stale. They hold between processes, not within one.
    """

    def __init__(self, store: Path) -> None:
        self._store, self._path = store, store.with_name(store.name + ".lock")

    def __enter__(self) -> "Claims":
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ValueError(f"{self._store}: expected a place to write to, found: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def take(self, number: int, *, wait: bool = False) -> bool:
        """Return whether claim `number` is ours now; with `wait`, only once it is."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
        except (BlockingIOError, PermissionError):  # held by another process, in POSIX's two spellings
            return False
        return True

    def release(self, number: int) -> None:
        """Let go of claim `number`."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def remove(self) -> None:
        """Remove the lock file: for the process that finds nothing left to do."""
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def structure(store: Path) -> Iterator[None]:
    """Be the only process that makes or reshapes a store; waits for another that does."""
    store.parent.mkdir(parents=True, exist_ok=True)
    with Claims(store) as claims:
        claims.take(STRUCTURE, wait=True)
        try:
            yield
        finally:
            if not store.exists():
                claims.remove()
