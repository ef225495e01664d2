"""Files that are far away: what their server says of them, and their bytes, asked for until they come."""

import contextlib
import functools
import random
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import fsspec
from fsspec.asyn import sync

from .errors import InputError

_CLIENTS = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs"}
"""Packages that read URLs of a protocol, where fsspec does not alone; also the extras of pyproject.toml."""
Answer = TypeVar("Answer")
_BLOCK = 1 << 22
_AT_ONCE = 8
ANSWER_WITHIN = 60.0
"""Seconds for a block: a connection that stalls is given up, one of 70 kB/s is not."""
_SLOWEST = 70_000  # bytes a second
_PAUSES = (0.1, 10.0)  # seconds before the first repetition, and at most
_VERSION = ("ETag", "etag", "LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created", "blob_id")
"""Names under which file systems say what changes with a file's bytes."""
_SERVERS_FAULT, _TRY_AGAIN = 500, (408, 425, 429)
"""From which answer on, and which of those below, a later request may succeed."""
_READING = ("a file that can be read", "read it")
_FINAL = (
    FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, TypeError,
    NotImplementedError,
)  # fmt: skip
_CUT_SHORT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""Of the errors of TLS, those of a connection that ended: the others are about who the server is."""
_NO_ACCESS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")
"""Errors of the clients' own that no repetition mends, by name: which client is installed is the user's choice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Info:
    """What a server says of a file: its size in bytes, and what changes with its bytes, or nothing."""

    nbytes: int
    version: str


class NotGivenError(InputError):
    """A file that its server does not have, or keeps for others."""


class Patience:
    """How long a file's server is asked again after faults that pass; others are one ValueError that names both."""

    retry_for: ClassVar[float] = 300.0
    """Seconds, of this process."""

    def __init__(self, name: str, *, writing: bool = False) -> None:
        self._name, self._writing, self._until = name, writing, time.monotonic() + self.retry_for
        self._pause, self._longest = _PAUSES

    def after(self, error: Exception) -> float:
        """Return in how many seconds to ask again; ValueError where that is no use, or no longer."""
        wait = self._pause * random.uniform(0.5, 1.0)
        self._pause = min(2 * self._pause, self._longest)
        passes = _passes(error)
        if passes and time.monotonic() + wait <= self._until:
            return wait
        expected, doing = ("a place that can be written", "write there") if self._writing else _READING
        remedy = "run the same command again when it is well" if passes else f"check the URL and who may {doing}"
        kind = NotGivenError if _is_not_given(error) else InputError
        raise kind(self._name, expected, _answer(error), remedy) from error


@functools.lru_cache(maxsize=4096)
def locate(url: str) -> tuple[Any, str]:
    """Return the file system of a path or URL, and the path in it."""
    try:
        fs, path = fsspec.url_to_fs(url)
    except ImportError as error:
        protocol = url.partition("://")[0].rpartition("::")[2]
        remedy = f"pip install {_CLIENTS[protocol]}" if protocol in _CLIENTS else str(error)
        raise InputError(without_secrets(url), "a package that reads it", "none", remedy) from error
    except ValueError as error:
        raise InputError(without_secrets(url), "a path or a URL that fsspec knows", error) from error
    return fs, path


class RemoteFile:
    """A file by its URL, or what lies below one, with `Patience`."""

    def __init__(self, url: str) -> None:
        self.name = without_secrets(url)
        self._fs, self._path = locate(url)

    def info(self) -> Info:
        """Return what the server says of the file."""
        found = self._retried(lambda: self._call("info", self._path))
        if found.get("size") is None:
            raise InputError(self.name, "a server that says how long a file is", "one that does not", "copy the file")
        version = next((str(found[name]) for name in _VERSION if found.get(name)), "")
        return Info(nbytes=int(found["size"]), version=version)

    def read_if_given(self) -> bytes:
        """Return all of a small file, or nothing where the server has none, or gives out none of that name."""
        try:
            return self._retried(self._all)
        except NotGivenError:
            return b""

    def exists(self) -> bool:
        """Return whether the server has it, or something below it."""
        try:
            self._fs.invalidate_cache()
            self._retried(lambda: self._call("info", self._path))
        except NotGivenError as error:
            if _status(error.__cause__ or error) == HTTPStatus.FORBIDDEN:
                raise
            return False
        return True

    def read(self) -> bytes:
        """Return all of a file."""
        return self._retried(self._all)

    def write(self, data: bytes) -> None:
        """Put a file there: whole, or it stays as it was."""
        self._retried(lambda: self._call("pipe_file", self._path, data), writing=True)

    def put(self, file: Path) -> None:
        """Put the bytes of a file of this machine there, in parts where it is large."""
        within = ANSWER_WITHIN + file.stat().st_size / _SLOWEST
        self._retried(lambda: self._call("put_file", str(file), self._path, within=within), writing=True)

    def create(self, data: bytes) -> bool:
        """Put a file there unless there is one, and return whether that was done."""
        try:
            self._retried(lambda: self._call("pipe_file", self._path, data, mode="create"), writing=True)
        except InputError as error:
            if isinstance(error.__cause__, FileExistsError):
                return self.read() == data  # it may be there by a request of ours whose answer was lost
            raise
        return True

    def remove(self) -> None:
        """Remove a file."""
        with contextlib.suppress(NotGivenError):
            self._retried(lambda: self._call("rm_file", self._path))

    def sizes(self) -> dict[str, int]:
        """Return the size of every file below this one, by its name from there, from one listing."""
        self._fs.invalidate_cache()
        found = self._retried(lambda: self._call("find", self._path, detail=True))
        return {path.removeprefix(self._path).lstrip("/"): int(info["size"]) for path, info in found.items()}

    def glob(self) -> list[str]:
        """Return the paths that match this one, where it is a pattern."""
        return self._retried(lambda: list(self._call("glob", self._path)))

    def blocks(self, start: int, nbytes: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to the end of the `nbytes`, in order, several requests at a time."""
        ranges = ((at, min(at + _BLOCK, nbytes)) for at in range(start, nbytes, _BLOCK))
        pool = ThreadPoolExecutor(_AT_ONCE)
        asked: deque[Future[bytes]] = deque()
        try:
            for first, end in ranges:
                asked.append(pool.submit(self._range, first, end, nbytes))
                if start == first and len(block := asked[0].result()) > end - first:  # it knows no ranges
                    yield block[start:]
                    return
                if len(asked) == _AT_ONCE:
                    yield asked.popleft().result()
            while asked:
                yield asked.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _range(self, start: int, end: int, nbytes: int) -> bytes:
        def ask() -> bytes:
            data = bytes(self._call("cat_file", self._path, start=start, end=end))
            if len(data) not in (end - start, nbytes):
                raise OSError(f"{len(data)} of {end - start} bytes")
            return data

        return self._retried(ask)

    def _all(self) -> bytes:
        return bytes(self._call("cat_file", self._path))

    def _call(self, method: str, *args: Any, within: float | None = None, **kwargs: Any) -> Any:
        """Call a method of the file system, with a limit in seconds where it allows one."""
        if self._fs.async_impl:
            asynchronous = getattr(self._fs, f"_{method}")
            return sync(self._fs.loop, asynchronous, *args, timeout=within or ANSWER_WITHIN, **kwargs)
        return getattr(self._fs, method)(*args, **kwargs)

    def _retried(self, ask: Callable[[], Answer], *, writing: bool = False) -> Answer:
        patience = Patience(self.name, writing=writing)
        while True:
            try:
                return ask()
            except Exception as error:  # each client has errors of its own
                time.sleep(patience.after(error))


def without_secrets(text: str) -> str:
    """Return a text without what stands in its URLs for a user, a password or a signature."""
    text = re.sub(r"(\w+://)[^\s/'\"@]*@", r"\1", text)
    return re.sub(r"(\w+://[^\s'\"?]*)\?[^\s'\"]*", r"\1", text)


def _passes(error: BaseException) -> bool:
    """Return whether an error may be another one, or none, when the request is made again."""
    for one in _causes(error):
        if status := _status(one):
            return status >= _SERVERS_FAULT or status in _TRY_AGAIN
        if isinstance(one, ssl.SSLError):
            return isinstance(one, _CUT_SHORT)
        if isinstance(one, _FINAL) or type(one).__name__ in _NO_ACCESS:
            return False
        if isinstance(one, OSError):
            return True
    return True


def _is_not_given(error: BaseException) -> bool:
    first = _causes(error)[0]
    refused = (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN)  # S3 says so of a missing file to those who may list none
    return _status(first) in refused or (not _status(first) and isinstance(first, FileNotFoundError))


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and what it came of, the first cause first: clients hide a 503 behind a FileNotFoundError."""
    chain = [error]
    while (cause := chain[0].__cause__ or chain[0].__context__) and cause not in chain:
        chain.insert(0, cause)
    return chain


def _status(error: BaseException) -> int:
    """Return the status of an HTTP answer, as aiohttp, botocore and httpx keep it, or 0."""
    response = getattr(error, "response", None)
    if isinstance(found := getattr(response, "status_code", None), int):
        return found
    if isinstance(response, dict):
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else 0


def _answer(error: BaseException) -> str:
    """Return an error in a few words, without secrets."""
    for one in _causes(error):
        if status := _status(one):
            with contextlib.suppress(ValueError):
                return f"the answer {status} {HTTPStatus(status).phrase}"
            return f"the answer {status}"
    first = _causes(error)[0]
    if isinstance(first, FileNotFoundError):
        return "no such file"
    text = without_secrets(str(first)).partition("\n")[0]
    return f"{type(first).__name__}: {text}" if text else type(first).__name__
