"""A store in one file: the same bytes, read as they are by whoever reads Zarr, from here or from far away."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from zarr.storage import ZipStore

from distillcache.cache.pack import pack, unpack
from distillcache.cache.store import Store
from distillcache.datasets.shards.files import expand
from distillcache.datasets.shards.mirror import Mirror
from distillcache.models.teachers import Teacher
from distillcache.runtime.errors import InputError
from distillcache.runtime.paths import path_of

from ..conftest import cached, run
from ..servers import Request, Server


@pytest.fixture(scope="module")
def packed(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "photos.zarr.zip"
    pack(store, path)
    return path


def test_a_packed_store_says_the_same(store: Store, packed: Path) -> None:
    found = Store(packed)
    assert found.manifest == store.manifest and found.chunks.nbytes() == store.chunks.nbytes()
    for cycle in range(2):
        for one, other in zip(vars_of(store, cycle), vars_of(found, cycle), strict=True):
            np.testing.assert_array_equal(one, other)
    for shard in range(len(store.counts)):
        assert found.keys(shard) == store.keys(shard)
        np.testing.assert_array_equal(found.labels(shard), store.labels(shard))
        np.testing.assert_array_equal(
            found.read(range(1, 5), shard).topk_logit, store.read(range(1, 5), shard).topk_logit
        )


def vars_of(store: Store, cycle: int) -> list[np.ndarray]:
    labels = store.cycle(cycle, soft=True)
    return [getattr(labels, name) for name in store.by_view]


def test_zarr_and_xarray_read_it_as_it_is(store: Store, packed: Path) -> None:
    theirs = zarr.open_group(ZipStore(packed, mode="r"), mode="r")
    for name, array in zarr.open_group(str(store.path), mode="r").arrays():
        np.testing.assert_array_equal(theirs[name][...], array[...])
    with xarray.open_zarr(ZipStore(packed, mode="r"), consolidated=False) as opened:
        assert opened.label.dims == ("view", "shard", "sample")
        np.testing.assert_array_equal(opened.label[3:6], store.cycle(1).label)


def test_unpacking_gives_every_file_back_and_packing_again_the_same_file(
    store: Store, packed: Path, tmp_path: Path
) -> None:
    unpacked = unpack(Store(packed), tmp_path / "again.zarr")
    files = {file.relative_to(store.path): file.read_bytes() for file in Path(store.path).rglob("*") if file.is_file()}
    assert {f.relative_to(tmp_path / "again.zarr"): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == files
    digest = pack(unpacked, tmp_path / "again.zarr.zip")
    assert (tmp_path / "again.zarr.zip").read_bytes() == packed.read_bytes()
    assert digest == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert (tmp_path / "SHA256SUMS").read_text() == f"{digest}  again.zarr.zip\n"


def test_more_shards_than_a_member_holds(
    shards: str, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each block's last member there is a place without a chunk."""
    monkeypatch.setattr("distillcache.cache.pack._SHARDS_IN_A_MEMBER", 2)
    third = shutil.copy(expand(shards)[0], tmp_path / "train-9.tar")
    store = cached(tmp_path / "c.zarr", [*expand(shards), str(third)], teacher, views=15, logits=4)
    assert len(store.counts) == 3 and len(store.blocks) == 2
    pack(store, tmp_path / "c.zarr.zip")
    found = Store(tmp_path / "c.zarr.zip")
    assert not list(found.units()) and found.chunks.nbytes() == store.chunks.nbytes()
    for cycle in range(5):
        for one, other in zip(vars_of(store, cycle), vars_of(found, cycle), strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_not_finished_is_not_packed(shards: str, teacher: Teacher, tmp_path: Path) -> None:
    store = cached(tmp_path / "c.zarr", expand(shards), teacher, views=3)
    (Path(store.path) / "label" / "c" / "0" / "1" / "0").unlink()
    said = run("pack", store.path, tmp_path / "c.zip")
    assert said.exit_code == 2 and "expected labels of all 3 views, found of 0" in said.output
    (Path(store.path) / "check" / "c" / "0" / "0" / "0").unlink()
    assert not (tmp_path / "c.zip").exists()


def test_a_damaged_one_is_named(packed: Path, tmp_path: Path) -> None:
    data = bytearray(packed.read_bytes())
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut.zip: expected a packed store, found another file"):
        Store(tmp_path / "cut.zip")
    at = data.index(b"label/c/0/0/0") + 60
    data[at] ^= 1
    (tmp_path / "flipped.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"expected the chunk label/c/0/\d/0, found one that can't be decompressed"):
        Store(tmp_path / "flipped.zip").cycle(0)


def test_it_can_be_read_and_not_filled(packed: Path, shards: str, teacher_folder: Path, tmp_path: Path) -> None:
    said = run("cache-teacher", "--shards", shards, "--cache", packed, "--teacher", teacher_folder, "--views", 9)
    assert said.exit_code == 2 and "unpack it: distillcache unpack" in said.output
    for command in (("stats",), ("keys",), ("export", tmp_path / "t.csv")):
        assert run("inspect", command[0], packed, *command[1:]).exit_code == 0


@pytest.fixture
def server(packed: Path) -> Iterator[Server]:
    with Server(packed.parent) as server:
        yield server


def test_from_far_away_it_comes_to_the_mirror_once_and_verified(
    server: Server, store: Store, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of-the-user"))
    url, mirror = path_of(f"{server.url}/{packed.name}"), Mirror(tmp_path / "mirror")
    for _ in range(2):
        np.testing.assert_array_equal(Store(url, mirror).cycle(1).label, store.cycle(1).label)
    assert server.sent[packed.name] == packed.stat().st_size
    said = run("inspect", "info", url)
    assert said.exit_code == 0 and hashlib.sha256(packed.read_bytes()).hexdigest() in said.output


def test_another_file_than_the_one_that_was_packed_is_refused(server: Server, packed: Path, tmp_path: Path) -> None:
    def damaged(request: Request, number: int) -> bool:
        if request.path == f"/{packed.name}":
            request.send_file(packed, with_body=request.command == "GET", change=lambda body: body[:-1] + b"!")
            return True
        return False

    server.fault = damaged
    with pytest.raises(InputError, match=r"expected SHA-256 [0-9a-f]{16}, found"):
        Store(path_of(f"{server.url}/{packed.name}"), Mirror(tmp_path / "mirror"))
