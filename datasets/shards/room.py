"""A bounded folder that processes share: what each of them uses stays, the longest unused makes room for others.

Every process locks single bytes of one file, which the kernel lets go with it: no count is ever stale.
"""

import contextlib
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ...runtime import atomic
from ...runtime.errors import InputError
from ...runtime.locks import LockFile

_POLL = 0.05
_HERE, _RESERVING, _FIRST = 0, 1, 2
"""Bytes of the lock file: who is here shares the first, who changes what is reserved holds the second."""
_NAME = 64
"""Letters of a file's name, hex. One that is unfinished is named NAME.BYTES.partial, BYTES being what it will take."""
WHOLE, _PART = re.compile(rf"[0-9a-f]{{{_NAME}}}"), re.compile(rf"[0-9a-f]{{{_NAME}}}\.(\d+)\.partial")


class Room:
    """Whole and unfinished files in a folder of at most `limit` bytes, by names of 64 hex digits.

    Its methods may be called by several threads; of one folder a process has one Room.
    """

    def __init__(self, folder: Path, limit: int | None) -> None:
        """Without a `limit` half of what is free may be used."""
        self.folder, self._limit = folder, limit
        self._lock: LockFile | None = None
        self._guard = threading.RLock()
        self._holders: Counter[str] = Counter()
        self._at_work: dict[str, threading.Lock] = {}  # by file, of this process's threads
        self._wanted: set[str] = set()

    @property
    def limit(self) -> int:
        """How many bytes the folder may hold."""
        if self._limit is None:
            existing = next(path for path in (self.folder, *self.folder.parents) if path.exists())
            self._limit = (shutil.disk_usage(existing).free + sum(self.files().values())) // 2
        return self._limit

    def files(self) -> dict[Path, int]:
        """Return how many bytes each file takes, or will take once it is whole."""
        found: dict[Path, int] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                if part := _PART.fullmatch(entry.name):
                    found[Path(entry.path)] = int(part[1])
                elif WHOLE.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        found[Path(entry.path)] = entry.stat().st_size
        return found

    def unfinished(self, name: str, nbytes: int) -> Path:
        """Return where a file lies while it is fetched."""
        return self.folder / f"{name}.{nbytes}.partial"

    def keep(self, name: str) -> None:
        """Have a file stay, where it is here, until it is `let_go`."""
        with self._guard:
            while not self._holders[name] and not self._locks.lock(_use_of(name), shared=True):
                time.sleep(_POLL)  # it is being removed
            self._holders[name] += 1

    def let_go(self, name: str) -> None:
        """Let a file that was kept make room for others."""
        with self._guard:
            self._holders[name] -= 1
            if not self._holders[name]:
                del self._holders[name]
                self._locks.unlock(_use_of(name))

    def want(self, name: str, *, wanted: bool = True) -> None:
        """Have this process remove a file, from now on, only where nothing else can go; or no longer so."""
        with self._guard:
            if wanted:
                self._wanted.add(name)
            else:
                self._wanted.discard(name)

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Be the only one that fetches a file, of all threads of all processes."""
        with self._guard:
            at_work = self._at_work.setdefault(name, threading.Lock())
        with at_work, self._holding(_fetch_of(name)):
            yield

    def reserve(self, name: str, nbytes: int, patience: float) -> None:
        """Have room for a file, at its unfinished place; ValueError if there is none within `patience` seconds."""
        until = time.monotonic() + patience
        while not self._reserved(self.unfinished(name, nbytes), nbytes):
            if nbytes > self.limit or time.monotonic() > until:
                used = f"{self.limit:,}, of which {sum(self.files().values()):,} are in use"
                raise InputError("`mirror_size`", f"room for {nbytes:,} bytes more", used, "enlarge it")
            time.sleep(_POLL)

    def empty(self) -> int:
        """Remove all that nobody uses, and return how many bytes that were."""
        with self._guard, self._holding(_RESERVING):
            return sum(nbytes for path, nbytes in self.files().items() if self._remove(path))

    def _reserved(self, part: Path, nbytes: int) -> bool:
        with self._guard, self._holding(_RESERVING):
            others = {path: size for path, size in self.files().items() if path != part}
            lacking = sum(others.values()) + nbytes - self.limit
            for path in sorted(others, key=self._worth) if lacking > 0 else ():
                if lacking > 0 and self._remove(path):
                    lacking -= others[path]
            if lacking <= 0:
                with atomic.naming(part):
                    part.touch()
            return lacking <= 0

    def _worth(self, path: Path) -> tuple[bool, float]:
        return path.name[:_NAME] in self._wanted, last_use(path)

    def _remove(self, path: Path) -> bool:
        """Remove a file that nobody uses or fetches; return whether that was so."""
        name = path.name[:_NAME]
        at_work = self._at_work.get(name)
        if name in self._holders or (at_work and at_work.locked()):
            return False  # locks are the process's: its own would be granted
        byte = _use_of(name) if WHOLE.fullmatch(path.name) else _fetch_of(name)
        if not self._locks.lock(byte):
            return False
        path.unlink(missing_ok=True)
        self._locks.unlock(byte)
        return True

    @contextlib.contextmanager
    def _holding(self, byte: int) -> Iterator[None]:
        while not self._locks.lock(byte):
            time.sleep(_POLL)
        try:
            yield
        finally:
            self._locks.unlock(byte)

    @property
    def _locks(self) -> LockFile:
        with self._guard:
            if not self._lock:
                with atomic.naming(self.folder):
                    self.folder.mkdir(parents=True, exist_ok=True)
                self._lock = LockFile(self.folder / "lock", _HERE, shared=True, wait=True)
            return self._lock


def last_use(path: Path) -> float:
    """Return when a file was last asked for, seconds since 1970; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _use_of(name: str) -> int:
    return _FIRST + 2 * int(name[:14], 16)


def _fetch_of(name: str) -> int:
    return _use_of(name) + 1
