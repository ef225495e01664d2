"""Where stores are kept: a folder, a zip file, an object store. Zarr reads and writes what is in them.

Another place to keep stores is another `Storage`, in a file of its own here, and its line in `storage_at`.
"""

from pathlib import Path

from ...datasets.shards.mirror import DEFAULT, Mirror
from ...runtime.errors import InputError
from ...runtime.paths import AnyPath
from ...runtime.remote import without_secrets
from .base import Storage
from .local import LocalStorage
from .objects import ObjectStorage
from .zipped import ZippedStorage

PACKED = ".zip"
"""How the name of a packed store ends."""
PUBLISHED = "store.zarr.zip"
"""The packed store in a folder that distillcache published."""


def storage_at(path: AnyPath, mirror: Mirror = DEFAULT) -> Storage:
    """Return the storage of the store that is, or is to be, at `path`; a zip file from far away comes to `mirror`."""
    if path.suffix == PACKED:
        return ZippedStorage(path, mirror)
    if isinstance(path, Path):
        return LocalStorage(path)
    if path.protocol in ("http", "https"):
        found = "a folder of a web server, which does not say what is in it"
        raise InputError(without_secrets(str(path)), "a packed store", found, "put there what distillcache pack writes")
    return ObjectStorage(path)
