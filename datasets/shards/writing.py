"""Making shards: a folder of class folders, or scikit-learn's digits, as tars whose bytes are the same every time."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...runtime import atomic
from ...runtime.errors import InputError
from ...runtime.optional import optional
from ...runtime.paths import read_if_there
from ...runtime.reporting import SILENT, Reporter
from ..augment.philox import Stream, permutation
from .excluded import Excluded
from .files import SUMS, format_sums, parse_sums, sha256_of
from .index import IMAGE_EXTENSIONS

FORMAT = 1
_HELD_OUT = 5  # of the digits, every fifth after shuffling


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One image to be packed: its class, its extension and how to get its bytes."""

    key: str
    target: int
    extension: str
    read: Callable[[], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """What decides the bytes of all shards; kept beside them as shards.json, so that a second run can go on."""

    source: str
    seed: int
    per_shard: int
    samples: dict[str, int]


def make_shards(
    source: str,
    out: Path,
    *,
    per_shard: int = 1000,
    seed: int = 0,
    excluded: Excluded | None = None,
    reporter: Reporter = SILENT,
) -> dict[str, int]:
    """Write `SPLIT-NNNNNN.tar`s into `out`, with classes.txt, SHA256SUMS and shards.json; return each split's samples.

    Samples whose keys are `excluded` are left out, whatever shard the file says they are in: shards are packed anew.
    `source` is a folder of class folders (one split, `train`; classes are numbered in the order of their names) or
    `digits` (`train` and `val`). Shards that are there already are kept; each is written whole or not at all. Raises
    ValueError if there are no images, or `out` holds shards that were packed otherwise.
    """
    splits, classes = _digits() if source == "digits" else _class_folders(Path(source))
    if excluded:
        splits = _without(excluded.of_any_shard(), splits)
    packing = Packing(
        source=Path(source).name, seed=seed, per_shard=per_shard, samples={k: len(v) for k, v in splits.items()}
    )
    wanted = {"format": FORMAT, **asdict(packing)} | ({"excluded": excluded.of_any_shard().sha256} if excluded else {})
    shards: dict[str, Sequence[Entry]] = {}
    for split, entries in splits.items():
        shuffled = [entries[i] for i in permutation(seed, Stream.SEED, (0, 0, 0), len(entries))]
        for number, start in enumerate(range(0, len(shuffled), per_shard)):
            shards[f"{split}-{number:06d}.tar"] = shuffled[start : start + per_shard]
    write_shards(out, shards, classes, wanted, reporter=reporter)
    return packing.samples


def write_shards(
    out: Path,
    shards: Mapping[str, Iterable[Entry]],
    classes: Sequence[str],
    packing: Mapping[str, Any],
    *,
    reporter: Reporter = SILENT,
) -> None:
    """Write shards by name into `out`, with classes.txt, SHA256SUMS and `packing`, what decides their bytes.

    Those that are there already are kept. Raises ValueError if they were packed otherwise.
    """
    out.mkdir(parents=True, exist_ok=True)
    note = out / "shards.json"
    if note.exists() and (found := json.loads(note.read_text())) != packing:
        raise InputError(out, f"no shards, or those of {packing}", found, "name another folder")
    atomic.write_text(note, json.dumps(packing, indent=2) + "\n")
    atomic.write_text(out / "classes.txt", "".join(f"{name}\n" for name in classes))
    todo = [name for name in shards if not (out / name).exists()]
    reporter.start_at(0, len(todo))
    for name in todo:
        atomic.write(out / name, partial(pack, shards[name]))
        reporter.advance()
    _note_digests(out, list(shards))


def _note_digests(folder: Path, names: Sequence[str]) -> None:
    """Write the SHA-256 of all shards to SHA256SUMS, by which they are verified where they are fetched from afar."""
    file = folder / SUMS
    known = parse_sums(read_if_there(file))
    if set(known) != set(names):
        digests = {name: known.get(name) or sha256_of(str(folder / name)) for name in names}
        atomic.write_text(file, format_sums(digests))


def _without(excluded: Excluded, splits: dict[str, list[Entry]]) -> dict[str, list[Entry]]:
    excluded.require_known(("", entry.key) for entries in splits.values() for entry in entries)
    kept = {split: [one for one in entries if not excluded.names("", one.key)] for split, entries in splits.items()}
    if not any(kept.values()):
        raise InputError(
            "`exclude`", "some sample to be left", f"all of the source named in {excluded.path}", "name fewer"
        )
    return kept


def pack(entries: Iterable[Entry], file: BinaryIO) -> None:
    """Write a tar of `entries`, whose bytes depend on them alone."""
    import webdataset

    with webdataset.TarWriter(file, mtime=0.0, encoder=False) as tar:
        for entry in entries:
            tar.write({"__key__": entry.key, entry.extension: entry.read(), "cls": str(entry.target).encode()})


def _class_folders(folder: Path) -> tuple[dict[str, list[Entry]], list[str]]:
    if not folder.is_dir():
        raise InputError("`source`", "'digits' or a folder of class folders", f"none at {folder}")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    entries = [
        Entry(key=f"{name}/{path.stem}".replace(".", "_"), target=target, extension=extension, read=path.read_bytes)
        for target, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
        if (extension := path.suffix[1:].lower()) in IMAGE_EXTENSIONS
    ]
    if not entries:
        raise InputError("`source`", f"images in folders of classes in {folder}", "none")
    key, times = Counter(entry.key for entry in entries).most_common(1)[0]
    if times > 1:
        raise InputError("`source`", "images of a class to differ in name (up to dots)", f"{times} of {key}")
    return {"train": entries}, classes


def _digits() -> tuple[dict[str, list[Entry]], list[str]]:
    digits = optional("sklearn.datasets", extra="digits", where="digits").load_digits()
    entries = [
        Entry(key=f"{i:04d}", target=int(target), extension="png", read=lambda image=image: _png(image))  # type: ignore[misc]
        for i, (image, target) in enumerate(zip(digits.images, digits.target, strict=True))
    ]
    mixed = [entries[i] for i in permutation(0, Stream.SEED, (1, 0, 0), len(entries))]
    held_out = mixed[::_HELD_OUT]
    kept = [entry for i, entry in enumerate(mixed) if i % _HELD_OUT]
    return {"train": kept, "val": held_out}, [str(name) for name in digits.target_names]


def _png(digit: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> bytes:
    """Encode 8 x 8 counts of 0 to 16 as a grey PNG of 32 x 32."""
    from PIL import Image

    image = Image.fromarray(np.rint(digit * (255 / 16)).astype(np.uint8))
    buffer = io.BytesIO()
    image.resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()
