"""Files by path or URL: finding shards, and reading them, or a few bytes of one."""

import functools
import hashlib
import io
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

import braceexpand
import fsspec
from fsspec.implementations.local import LocalFileSystem

from ...runtime.errors import InputError
from ...runtime.watch import Watch

_WATCH = Watch()
_MOST = 1_000_000  # shards that braces may name


def expand(spec: str | Sequence[str]) -> list[str]:
    """Return the shards that paths, globs, braces and fsspec URLs name, sorted by base name.

    Raises ValueError if nothing matches, or if two shards have one base name (the store tells shards apart by it).
    """
    urls: set[str] = set()
    for text in [spec] if isinstance(spec, str) else spec:
        if not text or text.startswith("pipe:") or "\n" in text:
            raise InputError("`shards`", "paths, globs, braces or URLs", repr(text), "commands are never run")
        for pattern in _expand_braces(text):
            fs, path = _locate(pattern)
            if isinstance(fs, LocalFileSystem) and Path(path).is_dir():
                raise InputError("`shards`", "tar files", f"the folder {text}", f"name those in it: '{text}/*.tar'")
            found = fs.glob(path) if any(c in path for c in "*?[") else [path] if fs.exists(path) else []
            if not found:
                raise InputError("`shards`", "files", f"nothing at {pattern}", "check the path")
            urls.update(fs.unstrip_protocol(p) if "://" in pattern else p for p in found)
    ordered = sorted(urls, key=lambda url: (base_name(url), url))
    for one, other in itertools.pairwise(ordered):
        if base_name(one) == base_name(other):
            raise InputError("`shards`", "different file names", f"{one} and {other}", "rename one of them")
    return ordered


def _expand_braces(text: str) -> list[str]:
    ranges = re.findall(r"\{(-?\d+)\.\.(-?\d+)", text)
    if math.prod(abs(int(first) - int(last)) + 1 for first, last in ranges) > _MOST:
        raise InputError("`shards`", f"at most {_MOST:,} shards", f"braces for more: {text!r}")
    try:
        return list(braceexpand.braceexpand(text))
    except ValueError as error:
        raise InputError("`shards`", "braces such as {000..127}", f"{text!r}: {error}") from error


@functools.lru_cache(maxsize=4096)
def _locate(url: str) -> tuple[Any, str]:
    """Return the file system of a path or URL, and the path in it."""
    try:
        fs, path = fsspec.url_to_fs(url)
    except ImportError as error:
        raise InputError("`shards`", f"a package that reads {url}", f"none: {error}") from error
    except ValueError as error:
        raise InputError("`shards`", "a path or a URL that fsspec knows", f"{url}: {error}") from error
    return fs, path


def base_name(url: str) -> str:
    """Return the file name of a path or URL."""
    return PurePosixPath(url).name


def size_of(url: str) -> int:
    """Return the size of a shard in bytes, without reading it."""
    fs, path = _locate(url)
    return int(fs.size(path))


def open_file(url: str) -> io.BufferedReader:
    """Open a file to be read from its start on."""
    fs, path = _locate(url)
    return cast("io.BufferedReader", fs.open(path, "rb"))


def read_range(url: str, start: int, length: int) -> bytes:
    """Return up to `length` bytes of a file from `start`; says so on stderr while that takes long."""
    fs, path = _locate(url)
    with _WATCH.waiting_for(url):
        if isinstance(fs, LocalFileSystem):  # fsspec's way takes twice as long
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (a Path costs as much again)
                file.seek(start)
                return file.read(length)
        data = bytes(fs.cat_file(path, start=start, end=start + length))
    if len(data) > length:
        raise InputError(url, "a server that answers range requests", "one that sends whole files", "copy the shards")
    return data


def sha256_of(url: str) -> str:
    """Return the SHA-256 of a shard's bytes, hex."""
    with open_file(url) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def class_names(urls: Sequence[str], path: str | None = None) -> list[str]:
    """Return the lines of `path`, or of the `classes.txt` beside the first shard, or nothing where there is none."""
    fs, location = _locate(path or urls[0].removesuffix(base_name(urls[0])) + "classes.txt")
    if not path and not fs.exists(location):
        return []
    try:
        text = fs.cat_file(location).decode()
    except UnicodeDecodeError as error:
        raise InputError(location, "class names in UTF-8", "other bytes", "save it as UTF-8") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
