"""Claims: how processes that fill one store at once keep to one writer for each chunk."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from ..runtime.locks import LockFile
from .storage import storage_at

_PRESENCE = 0
_STRUCTURE = 1
_FIRST_UNIT = 2
_POLL = 0.05


class Claims:
    """What this process claims of a store, as locks on single bytes of a file beside it; a context manager.

    Within it the process counts as present. Entered before anything else is done to a store, as it raises ValueError
    where claims can't be had. The last to leave clears away what killed processes left, and the file.
    """

    def __init__(self, store: Path) -> None:
        self._store = store.resolve()  # by whatever links processes find a store, they meet at one file

    def __enter__(self) -> "Claims":
        self._store.parent.mkdir(parents=True, exist_ok=True)
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
