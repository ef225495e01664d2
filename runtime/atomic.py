"""Files that are there whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from .paths import AnyPath


def write(path: AnyPath, write_to: Callable[[BinaryIO], object]) -> None:
    """Write `path` through a temporary name beside it, synced and then renamed; nothing is left if writing fails.

    Far away, where a put is whole or not there, it is written on this machine first.
    """
    if not isinstance(path, Path):
        with tempfile.NamedTemporaryFile(prefix="distillcache-") as local:
            write_to(cast(BinaryIO, local))
            local.flush()
            from .remote import RemoteFile  # only who needs it waits for fsspec

            RemoteFile(str(path)).put(Path(local.name))
        return
    unfinished = path.with_name(path.name + ".partial")
    try:
        with naming(path), unfinished.open("w+b") as file:
            write_to(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that knows no such thing
            raise
    finally:
        os.close(file)


@contextmanager
def naming(path: AnyPath) -> Iterator[None]:
    """Name `path` in an error of the system that names no file, also where torch hides it behind one of its own."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        if cause.filename in (None, f"{path}.partial"):
            cause.filename = str(path)
        raise cause from None


def write_text(path: AnyPath, text: str) -> None:
    """Write a small text file in the same way."""
    write(path, lambda file: file.write(text.encode()))
