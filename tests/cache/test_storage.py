"""A store's files: what is on disk before what, and what is left of a store that was not finished."""

import os
from pathlib import Path

import pytest
import zarr

from distillcache.cache.claims import claims_on
from distillcache.cache.storage.base import Storage
from distillcache.cache.storage.local import LocalStorage
from distillcache.datasets.shards.files import expand
from distillcache.models.teachers import Teacher
from distillcache.runtime.errors import InputError

from ..conftest import cached


def test_a_unit_is_on_disk_before_its_label_is_there(
    tmp_path: Path, shards: str, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File by file, with every folder from the store on; then the label's."""
    synced: list[Path] = []
    labels: list[bool] = []
    label = tmp_path / "c.zarr" / "label" / "c" / "0" / "0" / "0"

    def fsync(file: int) -> None:
        synced.append(Path(f"/proc/self/fd/{file}").resolve())
        labels.append(label.exists())

    monkeypatch.setattr(os, "fsync", fsync)
    store = cached(tmp_path / "c.zarr", expand(shards), teacher, views=3, topk=1)
    for name, depth in (("check", 6), ("topk_index", 7), ("topk_logit", 7)):
        file = store.path / name / "c" / "0" / "0" / "0" / ("0" if depth == 7 else "")
        until = labels.index(True)
        assert {file, *file.parents[: depth - 1]} <= set(synced[:until])
    assert {label, *label.parents[:5]} <= set(synced[labels.index(True) :])


def test_an_unfinished_store_is_never_in_its_place(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "c.zarr")
    with pytest.raises(KeyboardInterrupt), storage.unfinished() as folder:
        folder.mkdir()
        (folder / "zarr.json").write_text("{}")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_beside_a_store_goes_with_the_next_that_fills_it(tmp_path: Path) -> None:
    (tmp_path / f"c.zarr.{'a' * 32}.partial").mkdir()
    (tmp_path / f"c.zarr.old.{'a' * 32}.partial").mkdir()  # another store's, which may be in the making
    with claims_on(tmp_path / "c.zarr"):
        assert len(list(tmp_path.iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == [f"c.zarr.old.{'a' * 32}.partial"]


def test_storage_that_is_only_read_says_so_when_it_is_to_be_written(tmp_path: Path) -> None:
    class Packed(Storage):
        writable = False

        def open(self) -> zarr.Group:
            raise FileNotFoundError

        def exists(self, name: str = "") -> bool:
            return True

        def sizes(self, folder: str = "") -> dict[str, int]:
            return {}

        def read(self, name: str) -> bytes:
            raise FileNotFoundError

    packed = Packed(tmp_path)
    for write in (lambda: packed.sync("zarr.json"), packed.sweep, packed.unfinished):
        with pytest.raises(InputError, match="a store that can be written, found one that can't \\(Packed\\)"):
            write()
