"""Opening a store to look into; where there is none, what is there instead and the command for that."""

from pathlib import Path

from ..cache.storage import storage_at
from ..cache.store import Store
from ..runtime.errors import InputError

_METADATA = "zarr.json"
_NAMED = 3  # stores, of a folder with many


def open_store(path: Path) -> Store:
    """Return the store at `path`; ValueError if something else is there, with what to do with it."""
    inside = (path.parent / _METADATA).is_file() and not (path / "label").is_dir()
    if storage_at(path).exists(_METADATA) and not inside:
        return Store(path)
    if inside:
        found = f"a part of the store {path.parent}; name that"
    elif path.is_dir():
        found = _folder(path)
    elif path.exists():
        found = _file(path)
    else:
        beside = _which(path.parent)
        found = f"nothing; beside it {beside}" if beside else "nothing; run cache-teacher first"
    raise InputError(path, "a store", found)


def _folder(path: Path) -> str:
    names = {entry.name for entry in path.iterdir()}
    if not names:
        return "an empty folder; remove it and run cache-teacher first"
    if "student.safetensors" in names:
        return f"a run of train-student; measure it by: distillcache evaluate --checkpoint {path} --shards 'val-*.tar'"
    if "config.json" in names and names & {"last.pt", "metrics.csv", "tensorboard"}:
        return "an unfinished run of train-student; run that again to go on"
    if "model.safetensors" in names:
        return f"a teacher; make a store by: distillcache cache-teacher --teacher {path} --shards SHARDS --cache STORE"
    if any(name.endswith(".tar") for name in names):
        return f"a folder of shards; make a store by: distillcache cache-teacher --shards '{path}/*.tar' --cache STORE"
    if stores := _which(path):
        return f"a folder; in it {stores}"
    if any(next(path.glob(f"*/*.{extension}"), None) for extension in ("jpg", "jpeg", "JPEG", "png", "webp")):
        return f"a folder of images; pack them first: distillcache make-shards {path} SHARDS"
    return "a folder of other things; name a store"


def _file(path: Path) -> str:
    if path.suffix == ".zip":
        return f"a zip file; unpack it first: unzip {path} -d STORE"
    if path.suffix == ".tar":
        return f"a shard; make a store by: distillcache cache-teacher --shards {path} --cache STORE"
    if path.suffix in (".safetensors", ".pt", ".pth"):
        return f"weights; measure them by: distillcache evaluate --checkpoint {path} --shards 'val-*.tar'"
    return "a file; name a store, which is a folder"


def _which(folder: Path) -> str:
    """Return the stores in a folder, in words, or nothing."""
    stores = sorted(file.parent.name for file in folder.glob(f"*/{_METADATA}"))
    if not stores:
        return ""
    more = f" and {len(stores) - _NAMED} more" if len(stores) > _NAMED else ""
    return f"{'is' if len(stores) == 1 else 'are'} {', '.join(stores[:_NAMED])}{more}; name a store"
