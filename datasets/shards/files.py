"""Files by path or URL: finding shards, and reading them, or a few bytes of one."""

import hashlib
import io
import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import braceexpand
from fsspec.implementations.local import LocalFileSystem

from ...runtime.errors import InputError
from ...runtime.remote import RemoteFile, locate, without_secrets
from ...runtime.watch import Watch

_WATCH = Watch()
_MOST = 1_000_000  # shards that braces may name
SUMS = "SHA256SUMS"


def expand(spec: str | Sequence[str]) -> list[str]:
    """Return the shards that paths, globs, braces and fsspec URLs name, sorted by base name.

    Far away only globs are looked for, by one listing; what is not there shows when it is fetched. Raises ValueError if
    nothing matches, or if two shards have one base name (the store tells shards apart by it).
    """
    ordered = places(spec)
    for one, other in itertools.pairwise(ordered):
        if base_name(one) == base_name(other):
            raise InputError("`shards`", "different file names", f"{one} and {other}", "rename one of them")
    return ordered


def listed(spec: str | Sequence[str]) -> list[str]:
    """Return what names shards, one or several, as a list; ValueError for what can't or for none."""
    if isinstance(spec, (str, os.PathLike)):
        return [str(spec)]
    if not isinstance(spec, Sequence) or not all(isinstance(one, (str, os.PathLike)) for one in spec) or not spec:
        raise InputError("`shards`", "paths, globs, braces or URLs", repr(spec)[:60])
    return list(map(str, spec))


def places(spec: str | Sequence[str], *, folders: bool = False) -> list[str]:
    """Return what paths, globs, braces and fsspec URLs name, each once, sorted by base name and then by all of it.

    `folders`: those of this machine may be among them. Raises ValueError as `expand` does.
    """
    urls: set[str] = set()
    for text in listed(spec):
        if not text or text.startswith("pipe:") or "\n" in text:
            raise InputError("`shards`", "paths, globs, braces or URLs", repr(text), "commands are never run")
        for pattern in _expand_braces(text):
            fs, path = locate(pattern)
            if not folders and isinstance(fs, LocalFileSystem) and Path(path).is_dir():
                raise InputError("`shards`", "tar files", f"the folder {text}", f"name those in it: '{text}/*.tar'")
            if any(c in path for c in ("*[" if "://" in pattern else "*?[")):
                found = [_as_named(p, pattern) for p in RemoteFile(pattern).glob()]
            else:
                there = not is_local(pattern) or Path(path).exists()
                found = [pattern if "://" in pattern else path] if there else []
            if not found:
                raise InputError("`shards`", "files", f"nothing at {without_secrets(pattern)}", "check the path")
            urls.update(found)
    return sorted(urls, key=lambda url: (base_name(url), url))


def _as_named(path: str, pattern: str) -> str:
    """Return a path that a file system found as a URL, chained as the pattern is, or as a path where that is one."""
    if "://" not in pattern:
        return path
    chain, _, last = pattern.rpartition("::")
    url = str(locate(last)[0].unstrip_protocol(path))
    return f"{chain}::{url}" if chain else url


def _expand_braces(text: str) -> list[str]:
    ranges = re.findall(r"\{(-?\d+)\.\.(-?\d+)", text)
    if math.prod(abs(int(first) - int(last)) + 1 for first, last in ranges) > _MOST:
        raise InputError("`shards`", f"at most {_MOST:,} shards", f"braces for more: {text!r}")
    try:
        return list(braceexpand.braceexpand(text))
    except ValueError as error:
        raise InputError("`shards`", "braces such as {000..127}", f"{text!r}: {error}") from error


def is_local(url: str) -> bool:
    """Return whether a path or URL is of this machine's file system."""
    return "://" not in url or isinstance(locate(url)[0], LocalFileSystem)


def base_name(url: str) -> str:
    """Return the file name of a path or URL, of which a signature is no part."""
    return PurePosixPath(url.partition("?")[0] if "://" in url else url).name


def size_of(url: str) -> int:
    """Return the size of a shard in bytes, without reading it."""
    return Path(locate(url)[1]).stat().st_size if is_local(url) else RemoteFile(url).info().nbytes


def open_file(path: str) -> io.BufferedReader:
    """Open a file of this machine to be read from its start on."""
    return Path(locate(path)[1]).open("rb")


def read_range(path: str, start: int, length: int) -> bytes:
    """Return up to `length` bytes of a file of this machine from `start`; says so on stderr while that takes long."""
    with (
        _WATCH.waiting_for(path),
        open(locate(path)[1], "rb", buffering=0) as file,  # noqa: PTH123 (a Path costs as much again)
    ):
        file.seek(start)
        return file.read(length)


def sha256_of(path: str) -> str:
    """Return the SHA-256 of the bytes of a file of this machine, hex."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def image_digest(image: bytes) -> int:
    """Return what an image file is known by wherever it lies: the first 64 bits, little-endian, of its SHA-256."""
    return int.from_bytes(hashlib.sha256(image).digest()[:8], "little")


def digests(urls: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256, hex, of the files far away for which a SHA256SUMS beside them has one."""
    found: dict[str, str] = {}
    beside: dict[str, dict[str, str]] = {}
    for url in urls:
        folder, _, name = url.partition("?")[0].rpartition("/")
        if is_local(url):
            continue
        if folder not in beside:
            beside[folder] = parse_sums(RemoteFile(f"{folder}/{SUMS}").read_if_given())
        if name in beside[folder]:
            found[url] = beside[folder][name]
    return found


def parse_sums(text: bytes) -> dict[str, str]:
    """Return by name the digests in a file as sha256sum writes it; what is none is left out."""
    return {name.decode(): digest.decode() for digest, name in re.findall(rb"^([0-9a-f]{64}) [ *](.+)$", text, re.M)}


def format_sums(digests: Mapping[str, str]) -> str:
    """Return a SHA256SUMS of digests by name."""
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items())


def class_names(urls: Sequence[str]) -> list[str]:
    """Return the lines of the `classes.txt` beside the first shard, or nothing where there is none."""
    url = urls[0].removesuffix(urls[0].rpartition("/")[2]) + "classes.txt"
    local = Path(locate(url)[1]) if is_local(url) else None
    if local and not local.exists():
        return []
    try:
        text = (local.read_bytes() if local else RemoteFile(url).read_if_given()).decode()
    except UnicodeDecodeError as error:
        raise InputError(url, "class names in UTF-8", "other bytes", "save it as UTF-8") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
