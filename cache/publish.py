"""Publishing: a finished store without any pixel in one file, in a folder that is handed on as it is."""

import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..runtime import atomic
from ..runtime.errors import InputError
from ..runtime.hub import upload
from ..runtime.paths import AnyPath
from ..runtime.remote import RemoteFile
from ..runtime.reporting import SILENT, Reporter
from .arrays import PROBE_VIEWS, put_probe_digests
from .pack import pack
from .storage import PUBLISHED, storage_at
from .store import Store

HUB = "hf://datasets/"


def write_published(store: Store, folder: Path, *, reporter: Reporter = SILENT) -> str:
    """Write a finished store to `folder`, packed as `PUBLISHED`, and return that file's SHA-256, hex.

    What the store keeps of pixels, the probes' views, stays behind: their digests go along. So does the path of a
    teacher's folder: its name goes along. `reporter` counts bytes. Raises ValueError as `pack` does.
    """
    with tempfile.TemporaryDirectory(prefix="distillcache-") as temporary:
        bare = Path(temporary) / "store.zarr"
        for name in store.storage.sizes():
            if name.partition("/")[0] != PROBE_VIEWS:
                (bare / name).parent.mkdir(parents=True, exist_ok=True)
                (bare / name).write_bytes(store.storage.read(name))
        if store.probes().views is not None:
            put_probe_digests(storage_at(bare).open(), store.probes())
        published = Store(bare)
        teacher = published.manifest.teacher
        if (path := Path(teacher.name.removeprefix("local-dir:"))).is_dir():
            published.record(teacher=replace(teacher, name=path.name))
        return pack(published, folder / PUBLISHED, reporter=reporter)


def require_free(destination: AnyPath) -> None:
    """Raise ValueError if a store was published there before; on the Hub that becomes an older revision."""
    if not _repository(destination) and (destination / PUBLISHED).exists():
        raise InputError(destination, "a place where nothing was published yet", PUBLISHED, "name another")


def put(folder: Path, destination: AnyPath) -> None:
    """Put the files of `folder`, the store last, to `destination`: a folder, a URL, or a data set of the Hub's.

    Raises ValueError for what the place answers.
    """
    if repository := _repository(destination):
        upload(folder, repository, kind="dataset")
        return
    for file in sorted(folder.iterdir(), key=lambda file: file.name == PUBLISHED):
        if isinstance(destination, Path):
            destination.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as source:
                atomic.write(destination / file.name, partial(shutil.copyfileobj, source))
        else:
            RemoteFile(str(destination / file.name)).put(file)


def _repository(destination: AnyPath) -> str:
    """Return the Hub's USER/NAME that a URL names, or nothing."""
    url = str(destination)
    return url.removeprefix(HUB).strip("/") if url.startswith(HUB) else ""
