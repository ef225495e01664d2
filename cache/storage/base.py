"""What a store asks of the place where it is kept: its files, by their names below its root."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path

import zarr

from ...runtime.errors import InputError
from ...runtime.paths import AnyPath


class Storage(ABC):
    """A place of one store; one that is only read needs the first five."""

    def __init__(self, root: AnyPath) -> None:
        self.root = root

    @property
    def sha256(self) -> str:
        """Of the one file that the store is, hex; nothing where it is not one."""
        return ""

    @property
    @abstractmethod
    def writable(self) -> bool:
        """Whether files can be written here."""

    @abstractmethod
    def open(self) -> zarr.Group:
        """Return the root group; FileNotFoundError, KeyError or ValueError if there is none, or a damaged one."""

    @abstractmethod
    def exists(self, name: str = "") -> bool:
        """Return whether there is something of that name."""

    @abstractmethod
    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the size in bytes of every file below a folder, by its name from there; nothing if it is not there."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the bytes of a file; FileNotFoundError if it is not there."""

    def sync(self, name: str) -> None:
        """Have a file on disk, and the folders by which it is found from the root on."""
        raise self._only_read()

    def sweep(self) -> None:
        """Remove what killed processes left unfinished. Only where no process is at work."""
        raise self._only_read()

    def unfinished(self) -> AbstractContextManager[Path]:
        """Yield a folder to write in what becomes this root: all of it, once it is safe, or after an error nothing."""
        raise self._only_read()

    def _only_read(self) -> InputError:
        return InputError(self.root, "a store that can be written", f"one that can't ({type(self).__name__})")
