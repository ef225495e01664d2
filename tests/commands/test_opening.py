"""What is no store is named for what it is, with the command for that, in one line."""

import shutil
from pathlib import Path

import pytest

from distillcache.cache.store import Store

from ..conftest import run


def make(folder: Path, *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "an empty folder; remove it and run cache-teacher first"),
        (["student.safetensors", "config.json"], "a run of train-student; measure it by: distillcache evaluate"),
        (["config.json", "last.pt"], "an unfinished run of train-student; run that again to go on"),
        (["config.json", "model.safetensors"], "a teacher; make a store by: distillcache cache-teacher --teacher"),
        (["train-0.tar", "classes.txt"], "a folder of shards; make a store by: distillcache cache-teacher --shards"),
        (["cat/1.jpg", "dog/2.png"], "a folder of images; pack them first: distillcache make-shards"),
        (["readme.txt"], "a folder of other things; name a store"),
    ],
)
def test_a_folder_is_named_for_what_it_is(tmp_path: Path, files: list[str], message: str) -> None:
    folder = make(tmp_path / "x", *files)
    for command in ("info", "stats", "keys"):
        refused = run("inspect", command, folder)
        assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
        assert f"{folder}: expected a store, found {message}" in refused.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("c.zarr.zip", "a packed store, found another file (File is not a zip file)"),
        ("train-0.tar", "a store, found a shard; make a store by"),
        ("best.safetensors", "a store, found weights; measure them by: distillcache evaluate"),
        ("c.zarr", "a store, found a file; name a store, which is a folder"),
    ],
)
def test_a_file_is_named_for_what_it_is(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).touch()
    refused = run("inspect", "info", tmp_path / name)
    assert refused.exit_code == 2 and f"{name}: expected {message}" in refused.stderr


def test_stores_in_the_folder_or_beside_it_are_named(tmp_path: Path, store: Store) -> None:
    for name in "abcd":
        shutil.copytree(store.path, tmp_path / f"{name}.zarr")
    named = "are a.zarr, b.zarr, c.zarr and 1 more; name a store"
    assert f"found a folder; in it {named}" in run("inspect", "info", tmp_path).stderr
    assert f"found nothing; beside it {named}" in run("inspect", "info", tmp_path / "e.zarr").stderr
    (tmp_path / "none").mkdir()
    assert "found nothing; run cache-teacher first" in run("inspect", "info", tmp_path / "none" / "a.zarr").stderr
    part = run("inspect", "info", tmp_path / "a.zarr" / "label")
    assert f"found a part of the store {tmp_path}/a.zarr; name that" in part.stderr and part.exit_code == 2


def test_a_damaged_store_is_still_said_to_be_one(tmp_path: Path, store: Store) -> None:
    copy = Path(shutil.copytree(store.path, tmp_path / "a.zarr"))
    (copy / "zarr.json").write_text("{")
    assert "a damaged one (zarr.json)" in run("inspect", "info", copy).stderr
    (copy / "zarr.json").unlink()
    assert run("inspect", "info", copy).exit_code == 2
