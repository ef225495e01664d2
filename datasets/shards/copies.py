"""Any copy of some images: where each lies, told by its bytes, whatever it is packed in and named.

A copy is tars, Parquet files and folders. Each is read once, with all cores; what was found is kept in the mirror's
folder, and holds as long as the sizes and times of the files do.
"""

import contextlib
import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime import atomic
from ...runtime.cores import usable_cores
from ...runtime.errors import InputError
from ...runtime.reporting import SILENT, Reporter
from .files import base_name, image_digest, open_file, places
from .index import IMAGE_EXTENSIONS, MAX_BYTES, Shard
from .mirror import Mirror
from .parquet import images_in, is_parquet

_FORMAT = 1
"""Of what is kept of a reading; another one is made anew."""
_AT_ONCE = 64
"""Files of a folder that a thread reads in one go."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """All images of a copy, a row each, and the files they lie in.

    file int32 (its number in `files`), offset uint64 (in a Parquet file the row), nbytes uint32 and digest uint64, see
    `image_digest`, are (n,). `shards` says of each file what the mirror needs of one that is far away.
    """

    files: Sequence[str]
    where: Sequence[str]
    """The folder in which each file lies or, of an image's own file, the folder that was named."""
    shards: Sequence[Shard]
    file: NDArray[np.int32]
    offset: NDArray[np.uint64]
    nbytes: NDArray[np.uint32]
    digest: NDArray[np.uint64]

    def find(self, digest: NDArray[np.uint64], nbytes: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return the row of each image of that digest and size, the first of several, or -1; all are (n,)."""
        if not len(self.digest):
            return np.full(digest.shape, -1)
        by_digest = np.argsort(self.digest, kind="stable")
        place = np.searchsorted(self.digest[by_digest], digest).clip(max=len(by_digest) - 1)
        row = by_digest[place]
        return np.where((self.digest[row] == digest) & (self.nbytes[row] == nbytes), row, -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """The images of one place: `files`, what of each the mirror needs to know, and the columns of `Copy`."""

    files: Sequence[str]
    where: str
    shard: Shard
    file: NDArray[np.int32]
    offset: NDArray[np.uint64]
    nbytes: NDArray[np.uint32]
    digest: NDArray[np.uint64]


def copy_places(specs: str | Sequence[str]) -> list[str]:
    """Return the tars, Parquet files and folders of images that `specs` name, see `places`.

    A folder in which tars or Parquet files lie stands for these.
    """
    found: list[str] = []
    for place in places(specs, folders=True):
        packed = [*Path(place).glob("*.tar"), *Path(place).glob("*.parquet")] if _is_folder(place) else []
        found += map(str, sorted(packed)) if packed else [place]
    return found


def read_copy(found_at: Sequence[str], mirror: Mirror, reporter: Reporter = SILENT) -> Copy:
    """Return the images of what `copy_places` found; `reporter` counts them.

    Raises ValueError for what can't be read.
    """
    pool = ThreadPoolExecutor(usable_cores())
    try:
        found = list(pool.map(lambda place: _read(place, mirror, reporter), found_at))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    begins = np.cumsum([0, *(len(one.files) for one in found)])
    return Copy(
        files=[file for one in found for file in one.files],
        where=[one.where for one in found for _ in one.files],
        shards=[one.shard for one in found for _ in one.files],
        file=np.concatenate([one.file + begin for one, begin in zip(found, begins[:-1], strict=True)], dtype=np.int32),
        offset=np.concatenate([one.offset for one in found]),
        nbytes=np.concatenate([one.nbytes for one in found]),
        digest=np.concatenate([one.digest for one in found]),
    )


def _read(place: str, mirror: Mirror, reporter: Reporter) -> _Found:
    name = hashlib.sha256(str(_absolute(place)).encode()).hexdigest()
    kept, read = mirror.folder / "copies" / f"{name}.npz", _read_folder if _is_folder(place) else _read_file
    with contextlib.ExitStack() as alone:  # of a machine's ranks one reads, and the others find what it kept
        with contextlib.suppress(OSError):  # in a folder that can't be written nothing is kept
            alone.enter_context(mirror.alone(name))
        return read(place, mirror, kept, reporter)


def _read_file(place: str, mirror: Mirror, kept: Path, reporter: Reporter) -> _Found:
    """Return the images of a tar or a Parquet file."""
    with mirror.holding(place) as held:
        status = Path(held.path).stat()
        version = held.sha256 or f"{status.st_size} {status.st_mtime_ns}"
        known = _load(kept)
        if str(known.get("version")) != version:
            found = list(_images(place, held.path, reporter))
            known = {"version": np.array(version), **_columns(found)}
            _save(kept, known)
        else:
            reporter.advance(len(known["digest"]))
    shard = Shard(name=base_name(place), nbytes=status.st_size, sha256=held.sha256)
    columns = {name: known[name] for name in ("offset", "nbytes", "digest")}
    return _Found(
        files=[place],
        where=place.rpartition("/")[0] or ".",
        shard=shard,
        file=np.zeros(len(columns["digest"]), np.int32),
        **columns,
    )


def _columns(found: Sequence[tuple[int, int, int]]) -> dict[str, NDArray[Any]]:
    offset, nbytes, digest = zip(*found, strict=True) if found else ((), (), ())
    return {
        "offset": np.array(offset, np.uint64),
        "nbytes": np.array(nbytes, np.uint32),
        "digest": np.array(digest, np.uint64),
    }


def _images(place: str, path: str, reporter: Reporter) -> Iterator[tuple[int, int, int]]:
    """Yield place, size and digest of every image in a file; ValueError for one that is no tar and no Parquet file."""
    if is_parquet(place):
        for row, image in enumerate(images_in(path)):
            yield row, len(image), image_digest(image)
            reporter.advance()
        return
    try:
        with open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if _is_image(member.name) and member.isfile() and not member.issparse() and member.size <= MAX_BYTES:
                    file.seek(member.offset_data)
                    yield member.offset_data, member.size, image_digest(file.read(member.size))
                    reporter.advance()
    except (tarfile.TarError, EOFError, OverflowError) as error:
        expected = "an uncompressed tar, a Parquet file or a folder"
        raise InputError(base_name(place), expected, f"one that can't be read: {error}") from error


def _read_folder(place: str, mirror: Mirror, kept: Path, reporter: Reporter) -> _Found:
    """Return the images in a folder and below it, of which those are read that are new or changed since last time."""
    listed = sorted(_walk(place))
    names = [name for name, _, _ in listed]
    seen = _seen(_load(kept))
    new = [number for number, one in enumerate(listed) if one not in seen]
    reporter.advance(len(listed) - len(new))

    def read(numbers: Sequence[int]) -> list[int]:
        found = [image_digest((Path(place) / names[number]).read_bytes()) for number in numbers]
        reporter.advance(len(numbers))
        return found

    pool = ThreadPoolExecutor(usable_cores())
    try:
        parts = pool.map(read, (new[i : i + _AT_ONCE] for i in range(0, len(new), _AT_ONCE)))
        read_now = dict(zip(new, (digest for part in parts for digest in part), strict=True))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    digest = np.array([read_now[n] if n in read_now else seen[one] for n, one in enumerate(listed)], np.uint64)
    nbytes = np.array([size for _, size, _ in listed], np.uint32)
    if len(new) or len(listed) != len(seen):
        encoded = "\0".join(names).encode(errors="surrogateescape")
        time = np.array([when for _, _, when in listed], np.int64)
        _save(kept, {"names": np.frombuffer(encoded, np.uint8), "nbytes": nbytes, "time": time, "digest": digest})
    return _Found(
        files=[f"{place}/{name}" for name in names],
        where=place,
        shard=Shard(name=base_name(place), nbytes=0, sha256=""),
        file=np.arange(len(names), dtype=np.int32),
        offset=np.zeros(len(names), np.uint64),
        nbytes=nbytes,
        digest=digest,
    )


def _seen(kept: dict[str, NDArray[Any]]) -> dict[tuple[str, int, int], int]:
    """Return the digests of a folder's images as they were last time, by name, size and time."""
    if not kept:
        return {}
    names = bytes(kept["names"]).decode(errors="surrogateescape").split("\0")
    images = zip(names, kept["nbytes"].tolist(), kept["time"].tolist(), strict=True)
    return dict(zip(images, kept["digest"].tolist(), strict=True)) if len(kept["digest"]) else {}


def _walk(
    folder: str, prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, int, int]]:
    """Yield name from the folder on, size and time of every image; links are followed, but in no circle."""
    status = os.stat(folder)  # noqa: PTH116 (a Path for each of ImageNet's files takes as long as their listing)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {here})
            elif _is_image(entry.name) and entry.is_file():
                found = entry.stat()
                if found.st_size <= MAX_BYTES:
                    yield f"{prefix}{entry.name}", found.st_size, found.st_mtime_ns


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS


def _is_folder(place: str) -> bool:
    return "://" not in place and Path(place).is_dir()


def _absolute(place: str) -> str | Path:
    return place if "://" in place else Path(place).absolute()


def _load(kept: Path) -> dict[str, NDArray[Any]]:
    """Return what was kept of a reading, or nothing; it is data alone."""
    try:
        with np.load(kept, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        return found if found.pop("format") == _FORMAT else {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def _save(kept: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with contextlib.suppress(OSError):  # full, or not to be written: it is read again next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(kept, lambda file: np.savez(file, format=np.array(_FORMAT), **arrays))  # type: ignore[arg-type]
