"""Paths of this machine, and of servers by their fsspec URL."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from upath import UPath

AnyPath: TypeAlias = Path | UPath
"""A `Path` on this machine, a `UPath` far away: where what is asked of both differs, `isinstance` tells them apart."""

PathLike: TypeAlias = str | os.PathLike[str] | UPath
"""What a path may be given as; text may be a URL."""


def path_of(text: PathLike) -> AnyPath:
    """Return the path that a text names; ValueError for a URL that fsspec does not know or has no package for."""
    if isinstance(text, UPath):
        return text
    if not isinstance(text, str) or "://" not in text:
        return Path(text)
    from fsspec.implementations.local import LocalFileSystem

    from .remote import locate

    fs, path = locate(text)
    return Path(path) if isinstance(fs, LocalFileSystem) else UPath(text)


def user_cache() -> Path:
    """Return our folder in the user's cache folder; nothing is made."""
    try:
        home = Path.home()
    except RuntimeError:  # a container's user without one
        home = Path(tempfile.gettempdir())
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "distillcache"


@contextlib.contextmanager
def here(path: AnyPath) -> Iterator[Path]:
    """Yield a file of this machine with the bytes of one that may be far away, for as long as it is needed."""
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="distillcache-") as folder:
        file = Path(folder) / path.name
        file.write_bytes(read_bytes(path))
        yield file


def read_if_there(path: AnyPath) -> bytes:
    """Return all of a small file, or nothing where there is none."""
    if isinstance(path, Path):
        return path.read_bytes() if path.exists() else b""
    from .remote import RemoteFile

    return RemoteFile(str(path)).read_if_given()


def read_bytes(path: AnyPath) -> bytes:
    """Return all of a file; OSError or ValueError where that can't be had."""
    if isinstance(path, Path):
        return path.read_bytes()
    from .remote import RemoteFile

    return RemoteFile(str(path)).read()
