"""Opening what a user names: a store, a teacher, a checkpoint. Anything else is named for what it is, in one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from upath import UPath

from ..cache.opening import published_at
from ..cache.storage import PACKED, storage_at
from ..cache.store import Store
from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from .mirror import mirror_for

if TYPE_CHECKING:
    import torch

    from ..models.teachers import Teacher

_STORE, _STUDENT, _TEACHER = "zarr.json", "student.safetensors", "model.safetensors"
"""The file that a folder is known by."""
_A_TEACHER, _UNFINISHED = "a teacher", "an unfinished run of train-student"
_NAMED = 3  # stores, runs or teachers, of a folder with many


def open_store(path: AnyPath) -> Store:
    """Return the store at `path`; ValueError if something else is there, with what to do with it.

    A packed one that is far away comes to the mirror that the command's options name. A folder or a URL at which one
    was published stands for that.
    """
    path = published_at(path)
    if isinstance(path, UPath):
        return Store(path, mirror_for([str(path)] if path.suffix == PACKED else []))
    if _is_store(path):
        return Store(path)
    if path.exists() or _is_part(path):
        what, then = _what_is(path, _STORE)
        found = f"{what}; {then or 'name a store'}"
    else:
        beside = _inside(path.parent, _STORE)
        found = f"nothing; beside it {beside}; name a store" if beside else "nothing; run cache-teacher first"
    raise InputError(path, "a store", found)


def require_room_for_store(path: AnyPath) -> None:
    """Raise ValueError if something is at `path` that is no store."""
    if path.suffix == PACKED:
        raise InputError(
            path, "a store that can be filled", "the name of a packed one", "unpack it: distillcache unpack"
        )
    if isinstance(path, Path) and path.exists() and not _is_store(path):
        raise InputError(path, "a store", _what_is(path, _STORE)[0], "name another `cache`")


def open_teacher(
    names: Sequence[str],
    *,
    device: "torch.device",
    amp: bool | None,
    size: int | None = None,
    compiled: bool = False,
) -> "Teacher":
    """Return the teacher of these names, as `load_teacher` does; ValueError if one is a folder of something else."""
    from ..models.loading import load_teacher

    for name in names:
        path = Path(name.removeprefix("local-dir:"))
        if path.is_dir() and (what := _what_is(path, _TEACHER)[0]) != _A_TEACHER:
            expected = "a timm name or a folder that train-teacher wrote"
            raise InputError(f"teacher {name}", expected, what, "name a teacher")
    return load_teacher(names, device=device, amp=amp, size=size, compiled=compiled)


def require_checkpoint(path: AnyPath) -> None:
    """Raise ValueError if `path` is a folder without a trained student."""
    if isinstance(path, Path) and path.is_dir() and not (path / _STUDENT).is_file():
        what, then = _what_is(path, _STUDENT)
        remedy = f"{then}, or name its last.pt" if what == _UNFINISHED else "name what train-student left"
        raise InputError(path, "a checkpoint or the folder of a finished run", what, remedy)


def require_student(path: AnyPath) -> None:
    """Raise ValueError if `path` is a folder with neither a trained student nor a classifier in timm's form."""
    if not (isinstance(path, Path) and path.is_dir() and _what_is(path, _TEACHER)[0] == _A_TEACHER):
        require_checkpoint(path)


def _is_store(path: Path) -> bool:
    return storage_at(path).exists(_STORE) and not _is_part(path)


def _is_part(path: Path) -> bool:
    return (path.parent / _STORE).is_file() and not (path / "label").is_dir()


def _what_is(path: Path, wanted: str) -> tuple[str, str]:
    """Return what is at `path` and what to do with it; of other folders, in which of theirs a file `wanted` is."""
    if _is_part(path):
        return f"a part of the store {path.parent}", "name that"
    return _folder(path, wanted) if path.is_dir() else _file(path)


def _folder(path: Path, wanted: str) -> tuple[str, str]:
    names = {entry.name for entry in path.iterdir()}
    if not names:
        return "an empty folder", "remove it and run cache-teacher first"
    if _STORE in names:
        return "a store", f"look into it by: distillcache inspect info {path}"
    if _STUDENT in names:
        return "a run of train-student", _measure(path)
    if "config.json" in names and names & {"last.pt", "metrics.csv", "tensorboard"}:
        return _UNFINISHED, "run that again to go on"
    if "config.json" in names and any("model" in name for name in names):
        return _A_TEACHER, f"make a store by: distillcache cache-teacher --teacher {path} --shards SHARDS --cache STORE"
    if any(name.endswith(".tar") for name in names):
        return (
            "a folder of shards",
            f"make a store by: distillcache cache-teacher --shards '{path}/*.tar' --cache STORE",
        )
    if inside := _inside(path, wanted):
        return f"a folder; in it {inside}", ""
    if any(next(path.glob(f"*/*.{extension}"), None) for extension in ("jpg", "jpeg", "JPEG", "png", "webp")):
        return "a folder of images", f"pack them first: distillcache make-shards {path} SHARDS"
    return "a folder of other things", ""


def _file(path: Path) -> tuple[str, str]:
    if path.suffix == PACKED:
        return "a zip file without a store", "name what distillcache pack wrote"
    if path.suffix == ".tar":
        return "a shard", f"make a store by: distillcache cache-teacher --shards {path} --cache STORE"
    if path.suffix in (".safetensors", ".pt", ".pth"):
        return "weights", _measure(path)
    return "a file", "name a store, which is a folder"


def _measure(path: Path) -> str:
    verb = "it" if path.is_dir() else "them"
    return f"measure {verb} by: distillcache evaluate --checkpoint {path} --shards 'val-*.tar'"


def _inside(folder: Path, wanted: str) -> str:
    """Return which folders in a folder have a file `wanted`, in words, or nothing."""
    found = sorted(file.parent.name for file in folder.glob(f"*/{wanted}"))
    if not found:
        return ""
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"{'is' if len(found) == 1 else 'are'} {', '.join(found[:_NAMED])}{more}"
