"""Byte locks: how processes, on one machine or on several, keep out of each other's way over a file that they share."""

import errno
import fcntl
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

from .errors import InputError
from .paths import AnyPath

_PATIENCE = 1.0  # seconds for a lock that nobody holds; a server of locks that is away never answers
_POLL = 0.05
_HELD = (errno.EAGAIN, errno.EACCES)  # by another process, in POSIX's two spellings


class HeldError(RuntimeError):
    """A byte that another process holds; `holder` is what is known of that."""

    def __init__(self, path: AnyPath, holder: str) -> None:
        super().__init__(f"{path}: held by {holder}")
        self.holder = holder


class LockFile:
    """A file of which processes lock single bytes, alone or shared. No byte needs to be there.

    The kernel drops the locks with the process that held them, also after SIGKILL, so none is ever stale; forked
    processes don't inherit them. They work on shared file systems with POSIX locks (NFS 4, Lustre, GPFS), between
    processes and not within one. A process opens such a file once at a time: closing it drops all that it holds of it.
    """

    def __init__(self, path: Path, byte: int = 0, *, shared: bool = False, wait: bool = False) -> None:
        """Open `path`, making it where it is not, and hold `byte`, alone or `shared`; `wait`ing for it or not.

        The path is sure to name the file held: who removes one does so while it holds the byte alone. Raises HeldError
        if another process holds it, and ValueError, soon, where no file can be made or locks don't work.
        """
        self.path = path
        while True:
            self._made = not path.exists()
            try:
                self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise InputError(
                    path.parent, "a folder to write to", error.strerror, "mend that, or name another"
                ) from error
            self._require_locks(byte, shared=shared)
            while wait and not self.lock(byte, shared=shared) and self.is_current():
                time.sleep(_POLL)
            if not self.is_current():  # removed since it was opened
                self.close()
            elif self.lock(byte, shared=shared):
                return
            elif not wait:
                holder = self._holder()
                self.close()
                raise HeldError(path, holder)

    def lock(self, byte: int, *, shared: bool = False) -> bool:
        """Return whether we hold `byte` now, which takes no time; where it is held already, this changes how."""
        try:
            fcntl.lockf(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, byte)
        except OSError as error:
            if error.errno not in _HELD:
                raise
            return False
        return True

    def unlock(self, byte: int) -> None:
        """Let go of `byte`."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)

    def sign(self) -> None:
        """Write down who holds this file, for a HeldError in another process."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
        os.fsync(self._file)

    def is_current(self) -> bool:
        """Return whether the path still names this file."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Remove the file. Only for who holds alone the byte by which all others open it."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of everything."""
        os.close(self._file)

    def __enter__(self) -> "LockFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _holder(self) -> str:
        return os.pread(self._file, 200, 0).decode(errors="replace").strip() or "another process"

    def _require_locks(self, byte: int, *, shared: bool) -> None:
        """Raise ValueError where a lock can't be had, or where asking for one does not return."""
        failed: list[OSError] = []

        def ask() -> None:
            try:
                self.lock(byte, shared=shared)
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=ask, name="lock", daemon=True)
        thread.start()
        thread.join(_PATIENCE)
        if not failed and not thread.is_alive():
            return
        if failed:
            if self._made:
                self.remove()
            self.close()
        why = failed[0].strerror if failed else f"no answer within {_PATIENCE:.0f} s"
        raise InputError(
            self.path.parent,
            "a file system with byte locks",
            f"none ({why})",
            "mount it with them (NFS: lockd, Lustre: -o flock), or name a folder on another",
        )
