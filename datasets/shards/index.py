"""Indexing WebDataset tars, once: which samples they hold, where, and whether each can be used."""

import io
import os
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import IO, Any

from ...runtime.cores import usable_cores
from ...runtime.errors import InputError
from ...runtime.reporting import SILENT, Reporter
from .files import base_name, digests, image_digest, open_file, sha256_of, size_of
from .mirror import DEFAULT, Held, Mirror

MAX_BYTES = 2**28
"""The largest member that is read, 256 MiB."""
_CLASS_BYTES = 64
RESTORE = "restore it, or cache again elsewhere"
"""What to do about a shard or a part of a store that is lost or damaged."""
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One tar: its base name, its size in bytes and the SHA-256 of its bytes."""

    name: str
    nbytes: int
    sha256: str

    def difference(self, url: str) -> InputError | None:
        """Return how the bytes at `url` differ from this shard's, or None; reads them all."""
        if (sha256 := sha256_of(url)) == self.sha256:
            return None
        remedy = f"it was changed since the store was made: {RESTORE}"
        return InputError(f"shard {self.name}", f"SHA-256 {self.sha256[:16]}", sha256[:16], remedy)


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A sample that is left out, and why: its image can't be used, or a user excluded it."""

    shard: str
    key: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndex:
    """What one reading of a shard finds, sample by sample in the tar's order."""

    shard: Shard
    url: str
    keys: list[str]
    targets: list[int]
    offsets: list[int]
    nbytes: list[int]
    digests: list[int] = field(default_factory=list)
    """Of the image files, see `image_digest`; empty where they were not read."""
    skipped: tuple[Skipped, ...] = ()
    path: str = ""
    """Where it is read, if not at its URL."""

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "ShardIndex":
        """Return what `dataclasses.asdict` took apart."""
        skipped = tuple(Skipped(**sample) for sample in fields["skipped"])
        return cls(**fields | {"shard": Shard(**fields["shard"]), "skipped": skipped})


def index_shards(
    urls: Sequence[str],
    *,
    digest: bool = True,
    screen: Callable[[ShardIndex], ShardIndex] = lambda index: index,
    mirror: Mirror = DEFAULT,
    reporter: Reporter = SILENT,
) -> list[ShardIndex]:
    """Read each shard once, several at a time, and return the indexes, `screen`ed, in the order of `urls`.

    Those that are far away come through `mirror`.
    """
    pool = ThreadPoolExecutor(max(8, usable_cores()))

    known = digests(urls)

    def read(url: str) -> ShardIndex:
        with mirror.holding(url, known.get(url, "")) as held:
            return screen(index_shard(url, held, digest=digest))

    reporter.start_at(0, len(urls))
    try:
        indexes = []
        for index in pool.map(read, urls):
            indexes.append(index)
            reporter.advance()
        return indexes
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after an error or a signal nothing more is read


def without_bad_images(index: ShardIndex, decode: Callable[[bytes], object], *, skip: bool) -> ShardIndex:
    """Return the shard without the samples whose image `decode` refuses; without `skip`, ValueError for the first.

    Raises ValueError too if none would be left.
    """
    good: list[int] = []
    skipped: list[Skipped] = []
    with open_file(index.path or index.url) as file:
        for sample, (offset, nbytes) in enumerate(zip(index.offsets, index.nbytes, strict=True)):
            file.seek(offset)
            try:
                decode(file.read(nbytes))
                good.append(sample)
            except InputError as error:
                bad = Skipped(shard=index.shard.name, key=index.keys[sample], reason=str(error))
                if not skip:
                    remedy = "mend it, or leave it out: `on_bad_image=skip`"
                    raise error.within(f"shard {bad.shard}, key {bad.key}", remedy) from error
                skipped.append(bad)
    if not good:
        first = f"key {skipped[0].key}: {skipped[0].reason}"
        none = f"none among {len(skipped)} ({first})"
        raise InputError(f"shard {index.shard.name}", "an image that can be used", none, "leave it out")
    return only(index, good, skipped)


def only(index: ShardIndex, kept: Sequence[int], skipped: Sequence[Skipped]) -> ShardIndex:
    """Return a shard with the samples `kept` alone, and those that were now `skipped` noted after the others."""
    columns: dict[str, Any] = {
        name: [values[i] for i in kept]
        for name in ("keys", "targets", "offsets", "nbytes", "digests")
        if (values := getattr(index, name))
    }
    return replace(index, **columns, skipped=(*index.skipped, *skipped))


def index_shard(url: str, held: Held | None = None, *, digest: bool = True) -> ShardIndex:
    """Return what is in a shard, read where it is `held`; ValueError names the shard, the key and what is wrong.

    A sample is a run of members with one key: an image (`KEY.jpg`, `.jpeg`, `.png`, `.webp`) and its class number in
    `KEY.cls`; other members, links among them, are ignored. Names are text: nothing is ever written under one. Without
    `digest` the shard's SHA-256 and the images' digests are left empty.
    """
    name, held = base_name(url), held or Held(path=url)
    try:
        groups = _groups(held.path, name)
    except (tarfile.TarError, EOFError, OverflowError) as error:
        raise InputError(
            name, "an uncompressed tar file", f"one that can't be read: {error}", "pack it again"
        ) from error
    if not groups:
        raise InputError(name, "members KEY.jpg (or .jpeg, .png, .webp) and KEY.cls", "none")
    for key, group in groups.items():
        if not (group.place and group.label is not None):
            missing = "cls" if group.place else "image"
            raise InputError(f"{name}, key {key}", "an image and a .cls", f"no {missing}")
    sha256 = held.sha256 or (sha256_of(held.path) if digest else "")
    places = [group.place or (0, 0) for group in groups.values()]
    return ShardIndex(
        shard=Shard(name=name, nbytes=size_of(held.path), sha256=sha256),
        url=url,
        path=held.path,
        keys=list(groups),
        targets=[_target(name, key, group.label or b"") for key, group in groups.items()],
        offsets=[offset for offset, _ in places],
        nbytes=[nbytes for _, nbytes in places],
        digests=_digests(held.path, places) if digest else [],
    )


def _digests(path: str, places: Sequence[tuple[int, int]]) -> list[int]:
    with open_file(path) as file:
        found = []
        for offset, nbytes in places:
            file.seek(offset)
            found.append(image_digest(file.read(nbytes)))
        return found


@dataclass(slots=True)
class _Group:
    """The members of one key: where its image lies (offset and size), and what its .cls holds."""

    place: tuple[int, int] | None = None
    label: bytes | None = None


def _groups(path: str, name: str) -> dict[str, _Group]:
    """Return the members of a tar by key; ValueError for one that can't be used."""
    groups: dict[str, _Group] = {}
    previous = None
    with open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            key, extension = _split(member.name)
            if not member.isfile() or extension not in (*IMAGE_EXTENSIONS, "cls"):
                continue
            where, is_class = f"{name}, key {key}", extension == "cls"
            _require_usable(member, where)
            if key in groups and (groups[key].label if is_class else groups[key].place) is not None:
                raise InputError(where, "one image and one class", "the key twice", "rename one")
            if key in groups and key != previous:
                raise InputError(where, "its members one after the other", "others between")
            group = groups.setdefault(key, _Group())
            previous = key
            if is_class:
                group.label = (tar.extractfile(member) or io.BytesIO()).read(_CLASS_BYTES + 1)
            else:
                group.place = (member.offset_data, member.size)
        _require_end(file, tar.offset)
    return groups


def _require_end(file: IO[bytes], end: int) -> None:
    """Raise ReadError unless from `end` on there are nothing but zeros, and some: tarfile stops at anything else."""
    file.seek(end)
    length = 0
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            at = end + length + len(block) - len(block.lstrip(b"\0"))
            raise tarfile.ReadError(f"no end of the archive, but a damaged header or another archive at byte {at}")
        length += len(block)
    if length < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it ends at byte {end + length}, without an end of the archive")


def _require_usable(member: tarfile.TarInfo, where: str) -> None:
    """Raise ValueError for a member that can't be read by its place and size, or is not named in UTF-8."""
    try:
        member.name.encode()
    except UnicodeEncodeError as error:
        raise InputError(where, "a name in UTF-8", repr(os.fsencode(member.name)), "rename it") from error
    if member.issparse():
        raise InputError(where, "a plain member", "a sparse one", "pack the shard without sparse members")
    if not 0 <= member.size <= MAX_BYTES:
        raise InputError(where, f"at most {MAX_BYTES:,} bytes", f"{member.size:,}", "leave it out")


def _split(name: str) -> tuple[str, str]:
    """Return WebDataset's key (up to the first dot of the base name, folders kept) and extension, lower case."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def _target(name: str, key: str, text: bytes) -> int:
    digits = text.strip()
    target = int(digits) if digits.isdigit() and len(text) <= _CLASS_BYTES else -1
    if not 0 <= target < 2**31:
        raise InputError(f"{name}, key {key}", "a class number from 0 in its .cls", repr(text[:20]))
    return target
