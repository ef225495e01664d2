"""The mirror: a bounded folder that holds files from far away, whole and verified, while they are used.

One serves all processes of a machine. A file lies in it under the SHA-256 of its bytes; nothing unfinished ever has
such a name.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime import atomic
from ...runtime.errors import InputError
from ...runtime.paths import user_cache
from ...runtime.remote import Info, Patience, RemoteFile, without_secrets
from ...runtime.reporting import SILENT, Reporter
from .files import is_local
from .room import WHOLE, Room, last_use

_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A file that can be read here: where, and the SHA-256 of its bytes, hex, where that is known."""

    path: str
    sha256: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A file in the mirror: its SHA-256, its size in bytes, when it was last asked for, and where it came from."""

    sha256: str
    nbytes: int
    used: float
    urls: tuple[str, ...]


class Mirror:
    """Whole, verified copies of files in a folder of at most `limit` bytes; the longest unused make room for others.

    Its methods may be called by several threads; of one folder a process has one Mirror.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        """Use `folder`, by default in the user's cache folder, and at most half of what is free there."""
        self.folder = folder or user_cache()
        self._room = Room(self.folder, limit)

    def __reduce__(self) -> tuple[Any, ...]:
        """Have another process share the folder."""
        return Mirror, (self.folder, self.limit)

    @property
    def limit(self) -> int:
        """How many bytes the folder may hold."""
        return self._room.limit

    def nbytes(self) -> int:
        """Return how many bytes are held, or reserved for what is being fetched."""
        return sum(self._room.files().values())

    def path(self, sha256: str) -> Path:
        """Return where a file lies while it is held."""
        return self.folder / sha256

    @contextlib.contextmanager
    def holding(self, url: str, sha256: str = "") -> Iterator[Held]:
        """Have the file at `url` here meanwhile; a local one is where it is. Raises ValueError as `hold` does."""
        if is_local(url):
            yield Held(path=url)
            return
        sha256 = self.hold(url, sha256)
        try:
            yield Held(path=str(self.path(sha256)), sha256=sha256)
        finally:
            self.let_go(sha256)

    def hold(self, url: str, sha256: str = "", nbytes: int = 0) -> str:
        """Fetch the file at `url`, unless it is here, keep it until it is `let_go`, and return its SHA-256.

        It is refused if its bytes are not those of `sha256` and `nbytes`, where these are given, once they were fetched
        a second time. Raises ValueError for that, for what the server answers, and where there is no room for it.
        """
        info = Info(nbytes=nbytes, version="") if nbytes else RemoteFile(url).info()
        if not (sha256 := sha256 or self._known(url, info)):
            return self._hold_unknown(url, info)
        self._room.keep(sha256)
        try:
            if not self._is_whole(sha256, info.nbytes):
                with self._room.alone(sha256):
                    self._fetch_known(url, info, sha256)
        except BaseException:
            self._room.let_go(sha256)
            raise
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path(sha256))
        return sha256

    def alone(self, name: str) -> AbstractContextManager[None]:
        """Be the only one at work on `name`, 64 hex digits, of all threads of all processes."""
        return self._room.alone(name)

    def let_go(self, sha256: str) -> None:
        """Let a file that was held make room for others."""
        self._room.let_go(sha256)

    def want(self, sha256: str, *, wanted: bool = True) -> None:
        """Have this process's fetching spare a file as long as there is another that may go; or no longer so."""
        self._room.want(sha256, wanted=wanted)

    def prefetch(self, urls: Sequence[str], *, reporter: Reporter = SILENT) -> None:
        """Fetch files, several at a time; ValueError for the first that does not come."""
        pool = ThreadPoolExecutor(_AT_ONCE)

        def fetch(url: str) -> None:
            with self.holding(url):
                reporter.advance()

        try:
            for fetched in [pool.submit(fetch, url) for url in urls]:
                fetched.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def entries(self) -> list[Entry]:
        """Return what is held, the last used first."""
        urls: dict[str, list[str]] = {}
        for note in self.folder.glob("known/*.json"):
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                noted = json.loads(note.read_text())
                urls.setdefault(noted["sha256"], []).append(noted["url"])
        held = [(path, nbytes) for path, nbytes in self._room.files().items() if WHOLE.fullmatch(path.name)]
        found = [
            Entry(sha256=path.name, nbytes=nbytes, used=last_use(path), urls=tuple(urls.get(path.name, ())))
            for path, nbytes in held
        ]
        return sorted(found, key=lambda entry: -entry.used)

    def is_sound(self, entry: Entry) -> bool:
        """Return whether a file has the bytes that it is named for, and else remove it; reads it all."""
        path = self.path(entry.sha256)
        try:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256:
                    return True
        except FileNotFoundError:
            return True  # it made room for another meanwhile
        path.unlink(missing_ok=True)
        return False

    def empty(self) -> int:
        """Remove all that no process uses, and return how many bytes that were."""
        return self._room.empty()

    def _fetch_known(self, url: str, info: Info, sha256: str) -> None:
        if self._is_whole(sha256, info.nbytes):  # another process was faster
            return
        self.path(sha256).unlink(missing_ok=True)  # where it is damaged, its room is needed
        self._fetch(url, info, sha256, sha256)
        self._room.unfinished(sha256, info.nbytes).replace(self.path(sha256))
        self._note(url, info, sha256)

    def _hold_unknown(self, url: str, info: Info) -> str:
        """Fetch a file of which only its server has said something, and note what it is."""
        name = hashlib.sha256(f"{url}\n{info}".encode()).hexdigest()
        with self._room.alone(name):
            if sha256 := self._known(url, info):  # another process was faster
                return self.hold(url, sha256, info.nbytes)
            sha256 = self._fetch(url, info, name)
            self._room.keep(sha256)
            self._room.unfinished(name, info.nbytes).replace(self.path(sha256))
            self._note(url, info, sha256)
            return sha256

    def _fetch(self, url: str, info: Info, name: str, sha256: str = "") -> str:
        """Fetch a file to its unfinished place, verify it, and return its SHA-256; a wrong one is fetched twice."""
        remote, part = RemoteFile(url), self._room.unfinished(name, info.nbytes)
        for last in (False, True):
            self._room.reserve(name, info.nbytes, Patience.retry_for)
            found, nbytes = self._download(remote, info, part, resume=bool(sha256 or info.version))
            if nbytes == info.nbytes and found == (sha256 or found):
                return found
            part.unlink()
            if last:
                expected, other = f"SHA-256 {sha256[:16]}", found[:16]
                if nbytes != info.nbytes:
                    expected, other = f"{info.nbytes:,} bytes", f"{nbytes:,}"
                raise InputError(remote.name, expected, other, "it was replaced; restore it, or cache again elsewhere")
        raise AssertionError

    def _download(self, remote: RemoteFile, info: Info, part: Path, *, resume: bool) -> tuple[str, int]:
        """Append to `part` what it lacks, and return the SHA-256 and the size of it all."""
        digest = hashlib.sha256()
        with atomic.naming(part), part.open("r+b") as file:
            while resume and (block := file.read(1 << 20)):
                digest.update(block)
            file.truncate(start := file.tell())
            for block in remote.blocks(start, info.nbytes):
                file.write(block)
                digest.update(block)
            file.flush()
            os.fsync(file.fileno())
            return digest.hexdigest(), file.tell()

    def _is_whole(self, sha256: str, nbytes: int) -> bool:
        """Return whether a file is here; what has its name and another length is damaged."""
        try:
            return self.path(sha256).stat().st_size == nbytes
        except FileNotFoundError:
            return False

    def _known(self, url: str, info: Info) -> str:
        """Return the SHA-256 of what was fetched, if by what the server says it is still that, or nothing."""
        try:
            noted = json.loads(self._note_of(url).read_text())
            same = info.version and (noted["nbytes"], noted["version"]) == (info.nbytes, info.version)
            return str(noted["sha256"]) if same else ""
        except (OSError, ValueError, LookupError, TypeError):
            return ""

    def _note(self, url: str, info: Info, sha256: str) -> None:
        note = {"url": without_secrets(url), "nbytes": info.nbytes, "version": info.version, "sha256": sha256}
        self._note_of(url).parent.mkdir(exist_ok=True)
        atomic.write_text(self._note_of(url), json.dumps(note))

    def _note_of(self, url: str) -> Path:
        return self.folder / "known" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"


DEFAULT = Mirror()
"""In the user's cache folder; nothing is made before something is fetched."""
