"""Paths of this machine, and of servers by their fsspec URL."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from upath import UPath

from .errors import InputError

AnyPath: TypeAlias = Path | UPath
"""A `Path` on this machine, a `UPath` far away: where what is asked of both differs, `isinstance` tells them apart."""

PathLike: TypeAlias = str | os.PathLike[str] | UPath
"""What a path may be given as; text may be a URL."""


def path_of(text: PathLike) -> AnyPath:
    """Return the path that a text names; ValueError for a URL that fsspec does not know or has no package for."""
    if isinstance(text, UPath):
        return text
    if not isinstance(text, (str, os.PathLike)) or not str(text):
        raise InputError("path", "a path or a URL", repr(text))
    if not isinstance(text, str) or "://" not in text:
        return Path(text)
    from fsspec.implementations.local import LocalFileSystem

    from .remote import locate

    fs, path = locate(text)
    return Path(path) if isinstance(fs, LocalFileSystem) else UPath(text)


def require_folder(name: str, path: AnyPath) -> None:
    """Raise ValueError about a parameter if no folder can be at `path`, as a file is there or above it."""
    if isinstance(path, Path) and (file := next((one for one in (path, *path.parents) if one.is_file()), None)):
        raise InputError(f"`{name}`", "a folder", f"the file {file}", "name another")


def require_output(name: str, path: AnyPath, *suffixes: str) -> None:
    """Raise ValueError about a parameter if a file can't be written to `path`, before any work is done for it."""
    if path.suffix.lower() not in suffixes:
        raise InputError(f"`{name}`", f"a name that ends in {', '.join(suffixes)}", path)
    if isinstance(path, Path) and path.is_dir():
        raise InputError(f"`{name}`", "a file", f"the folder {path}", "name one in it")
    if isinstance(path, Path) and not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"`{name}`", "a file in a folder that can be written to", path)


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
