"""Opening a store wherever it is kept: a folder, an object store, one file, or what was published."""

from pathlib import Path

from ..datasets.shards.mirror import DEFAULT, Mirror
from ..runtime.paths import AnyPath, PathLike, path_of
from ..runtime.remote import RemoteFile
from .storage import PACKED, PUBLISHED, storage_at
from .store import Store

_ROOT = "zarr.json"


def open_store(path: PathLike, mirror: Mirror = DEFAULT) -> Store:
    """Return the store at `path`, to be read.

    Args:
        path: A folder, a packed file (`.zarr.zip`), a folder where one was published, or the URL of any of these.
        mirror: Where a packed store from far away comes to.

    Raises:
        InputError: A ValueError, one line of text: if there is no store, a damaged one, or one of a newer format.
    """
    return Store(published_at(path_of(path)), mirror)


def published_at(path: AnyPath) -> AnyPath:
    """Return the packed store that was published at `path`, where there is one and no other store."""
    if isinstance(path, Path):
        return path / PUBLISHED if not (path / _ROOT).exists() and (path / PUBLISHED).is_file() else path
    if path.suffix == PACKED or (path.protocol not in ("http", "https") and storage_at(path).exists(_ROOT)):
        return path
    return path / PUBLISHED if RemoteFile(f"{str(path).rstrip('/')}/{PUBLISHED}").exists() else path
