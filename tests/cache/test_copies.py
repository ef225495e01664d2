"""The label belongs to the image: a store with any copy of its images, however they are packed and named."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file

from distillcache.cache.matching import find_samples
from distillcache.cache.store import Store
from distillcache.datasets.order import ALONE, Rows
from distillcache.datasets.shards import copies
from distillcache.datasets.shards.copies import copy_places, read_copy
from distillcache.datasets.shards.files import expand, image_digest
from distillcache.datasets.shards.mirror import Mirror
from distillcache.datasets.shards.writing import make_shards
from distillcache.datasets.views import Renderer
from distillcache.models.teachers import Teacher
from distillcache.replay.training_set import TrainingSet

from ..conftest import cached, run

SMALL = ["--device", "cpu", "--batch-size", 6, "--warmup-epochs", 1, "--epochs", 3]
MODEL = ["--model-kwargs", "img_size=32", "embed_dim=24", "depth=1"]


@pytest.fixture(autouse=True)
def own_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def photos_of(shards: str) -> list[bytes]:
    return [image for url in expand(shards) for image in images_of(url)]


def images_of(url: str) -> Iterator[bytes]:
    with tarfile.open(url) as tar:
        for member in tar:
            if member.name.endswith(".jpg"):
                yield tar.extractfile(member).read()  # type: ignore[union-attr]


def pack_as(kind: str, folder: Path, photos: list[bytes]) -> str:
    """Pack photos in another order and under other names, with one that is no one's; return what names them."""
    folder.mkdir()
    mixed = [photos[i] for i in np.random.default_rng(7).permutation(len(photos))] + [b"\xff\xd8 none of these"]
    if kind == "folder":
        for i, photo in enumerate(mixed):
            path = folder / f"n{i % 3:08d}" / f"n{i % 3:08d}_{i}.JPEG"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(photo)
        (folder / "notes.txt").write_text("no image")
        return str(folder)
    if kind == "parquet":
        for part in (0, 1):
            rows = [{"bytes": photo, "path": f"{i}.JPEG"} for i, photo in enumerate(mixed[part::2])]
            table = pa.table({"label": list(range(len(rows))), "image": rows})
            pq.write_table(table, folder / f"train-{part:05d}-of-00002.parquet", row_group_size=4)
        return f"{folder}/*.parquet"
    for part in range(3):
        with tarfile.open(folder / f"imagenet1k-train-{part:04d}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for i, photo in enumerate(mixed[part::3]):
                name = f"{'long/' * 30}{part}-{i}"
                for extension, data in (("json", b"{}"), ("jpg", photo), ("txt", b"a caption"), ("cls", b"7")):
                    member = tarfile.TarInfo(f"{name}.{extension}")
                    member.size, member.mtime = len(data), i
                    tar.addfile(member, io.BytesIO(data))
    return f"{folder}/imagenet1k-train-{{0000..0002}}.tar"


def trained(store: Store, shards: str, out: Path, *more: object) -> dict[str, np.ndarray]:
    done = run("train-student", "--shards", shards, "--cache", store.path, "--out", out, *SMALL, *more, *MODEL)
    assert done.exit_code == 0, done.output
    return {name: value.numpy() for name, value in load_file(out / "student.safetensors").items()}


def test_training_from_any_copy_gives_the_same_weights(store: Store, shards: str, tmp_path: Path) -> None:
    wanted = trained(store, shards, tmp_path / "own")
    for kind in ("tars", "folder", "parquet"):
        copy = pack_as(kind, tmp_path / kind, photos_of(shards))
        found = trained(store, copy, tmp_path / f"of-{kind}", "--workers", 2 if kind == "parquet" else 0)
        assert all(np.array_equal(value, found[name]) for name, value in wanted.items()), kind
        verified = run("inspect", "verify", store.path, "--shards", copy)
        assert verified.exit_code == 0, verified.output
        assert "23 of the store's 23 images found: " in verified.output
        assert "138 views, all as stored" in verified.stdout and "23 of the store's 23 are there" in verified.stdout
    resumed = run("train-student", "--shards", copy, "--cache", store.path, "--out", tmp_path / "own", *SMALL, *MODEL)
    assert resumed.exit_code == 0, resumed.output  # the same run, whatever its images are packed in


def test_an_image_that_was_encoded_again_is_missing_and_a_second_one_does_no_harm(
    store: Store, shards: str, tmp_path: Path
) -> None:
    photos = photos_of(shards)
    Image.open(io.BytesIO(photos[3])).save(again := io.BytesIO(), "JPEG", quality=95)
    copy = pack_as("folder", tmp_path / "copy", [*photos[:3], again.getvalue(), *photos[4:], photos[9]])
    stopped = run("train-student", "--shards", copy, "--cache", store.path, "--out", tmp_path / "out", *SMALL)
    assert stopped.exit_code == 2 and not (tmp_path / "out").exists()
    assert stopped.stderr.strip().endswith(
        "shards: expected the store's 23 images, in any copy of them, found 22; missing are train-0.tar photo003; name "
        "what holds them too, or leave them out: --missing drop"
    )
    alone = run("inspect", "show", store.path, "photo003", "--shards", copy, "--out", tmp_path / "grid.png")
    assert alone.exit_code == 2 and "photo003: expected an image, found none in this copy" in alone.stderr
    report = run("inspect", "report", store.path, "--shards", copy, "--out", tmp_path / "report.html")
    assert report.exit_code == 0, report.output
    verified = run("inspect", "verify", store.path, "--shards", copy)
    assert verified.exit_code == 0 and "22 of the store's 23 are there" in verified.stdout, verified.output


def rows_of(data: TrainingSet, epochs: int) -> list[tuple[int, ...]]:
    rows = [data.order.epoch(epoch) for epoch in range(epochs)]
    assert [len(one) for one in rows] == data.order.sizes(epochs) == [data.order.size(e) for e in range(epochs)]
    columns = [np.concatenate([getattr(one, name) for one in rows]).tolist() for name in Rows.__slots__]
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("window", [0, 1])
def test_what_is_dropped_is_the_missing_images_and_what_they_are_mixed_into(
    store: Store, shards: str, tmp_path: Path, window: int
) -> None:
    photos = photos_of(shards)
    copy = pack_as("tars", tmp_path / "copy", photos[1:20])
    missing = {(0, 0), (1, 8), (1, 9), (1, 10)}
    data = TrainingSet.stored(store, copy, window, missing="drop")
    whole = TrainingSet.stored(store, shards, window)
    wanted = [
        row
        for row in rows_of(whole, 6)
        if (row[0], row[1]) not in missing and (row[2] == ALONE or (row[0], row[2]) not in missing)
    ]
    assert rows_of(data, 6) == wanted and 0 < len(wanted) < len(rows_of(whole, 6))
    assert data.fingerprint != whole.fingerprint
    rows = data.order.epoch(0)
    kept, all_of = (Renderer(store.manifest.recipe, one.samples)(rows) for one in (data, whole))
    assert np.array_equal(kept.images, all_of.images) and np.array_equal(kept.check, all_of.check)


def test_the_share_of_views_that_missing_images_cost_is_said(store: Store, shards: str, tmp_path: Path) -> None:
    copy = pack_as("folder", tmp_path / "copy", photos_of(shards)[1:])
    done = run(
        "train-student", "--shards", copy, "--cache", store.path, "--out", tmp_path / "out", "--missing", "drop",
        *SMALL, *MODEL,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    whole, lost = TrainingSet.stored(store, shards), TrainingSet.stored(store, copy, missing="drop")
    share = 1 - lost.images(3) / whole.images(3)
    assert f"left out: 1 images, and with those mixed with them {share:.2%} of the views" in done.output
    assert json.loads((tmp_path / "out" / "config.json").read_text())["trained_on"]["shards"] == [copy]
    other = run("train-student", "--shards", shards, "--cache", store.path, "--out", tmp_path / "out", *SMALL, *MODEL)
    assert other.exit_code == 2 and "without 1 images" in other.stderr


def test_a_subset_is_a_part_of_the_whole_order(store: Store, shards: str) -> None:
    whole, real = rows_of(TrainingSet.stored(store, shards), 6), int(store.counts.sum())
    images: dict[str, set[tuple[int, int]]] = {}
    for part in ("0.25", "50%", "2/class", "train-1*"):
        rows = rows_of(TrainingSet.stored(store, shards, part=part), 6)
        images[part] = {(row[0], row[1]) for row in rows}
        assert rows == [row for row in whole if (row[0], row[1]) in images[part]]
    assert len(images["0.25"]) == 6 and images["0.25"] < images["50%"] and len(images["50%"]) < real
    targets = [int(store.targets()[place]) for place in images["2/class"]]
    assert sorted(targets) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert {shard for shard, _ in images["train-1*"]} == {1} and len(images["train-1*"]) == store.counts[1]
    with pytest.raises(ValueError, match=r"`subset`: expected a share such as 0.1, .*, found 'val-'"):
        TrainingSet.stored(store, shards, part="val-")
    with pytest.raises(ValueError, match=r"`subset`: expected a share of at most 1, or 100%, found '150%'"):
        TrainingSet.stored(store, shards, part="150%")


def test_one_reading_is_kept_as_long_as_sizes_and_times_hold(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, hashed = photos_of(shards), []
    monkeypatch.setattr(copies, "image_digest", lambda image: hashed.append(len(image)) or image_digest(image))
    mirror = Mirror(tmp_path / "mirror")
    for kind in ("tars", "folder", "parquet"):
        place = pack_as(kind, tmp_path / kind, photos)
        first = read_copy(copy_places(place), mirror)
        assert len(hashed) == 24 and sorted(hashed) == sorted(first.nbytes.tolist())
        hashed.clear()
        again = read_copy(copy_places(place), mirror)
        assert not hashed and np.array_equal(again.digest, first.digest) and again.files == first.files
    changed = next((tmp_path / "folder").rglob("*.JPEG"))
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    os.utime(changed, (1, 1))
    assert not np.array_equal(np.sort(read_copy([f"{tmp_path}/folder"], mirror).digest), first.digest)
    assert len(hashed) == 1
    for kept in (tmp_path / "mirror" / "copies").iterdir():
        kept.write_bytes(kept.read_bytes()[:40])
    assert len(read_copy(copy_places(place), mirror).digest) == 24 and len(hashed) == 25


def test_shards_are_made_once_more_out_of_any_copy(teacher: Teacher, shards: str, tmp_path: Path) -> None:
    for i, photo in enumerate(photos_of(shards)):
        path = tmp_path / "source" / f"class{i % 5}" / f"{i}.{'JPEG' if i % 2 else 'jpeg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
    make_shards(str(tmp_path / "source"), tmp_path / "own", per_shard=8)
    store = cached(tmp_path / "a.zarr", expand(f"{tmp_path}/own/*.tar"), teacher, views=3)
    pack_as("parquet", tmp_path / "parquet", photos_of(shards))
    done = run("make-shards", "--like", store.path, tmp_path / "parquet", tmp_path / "again")
    assert done.exit_code == 0 and "3 shards as" in done.stdout and "byte by byte" in done.stdout, done.output
    for path in (tmp_path / "own").glob("train-*.tar"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "again" / "SHA256SUMS").read_text() == (tmp_path / "own" / "SHA256SUMS").read_text()


def test_shards_that_others_made_are_packed_with_the_same_images(store: Store, shards: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"jpg": photos_of(shards)}), tmp_path / "plain.parquet")  # a column of binary
    done = run("make-shards", "--like", store.path, tmp_path / "plain.parquet", tmp_path / "again")
    assert done.exit_code == 0 and "0 byte by byte, and the others by their images" in done.stdout, done.output
    verified = run("inspect", "verify", store.path, "--shards", f"{tmp_path}/again/*.tar")
    assert verified.exit_code == 0 and "138 views, all as stored" in verified.stdout, verified.output
    few = pack_as("folder", tmp_path / "few", photos_of(shards)[:5])
    lacking = run("make-shards", "--like", store.path, few, tmp_path / "none")
    assert lacking.exit_code == 2 and lacking.stderr.strip().endswith("...; name what holds them too"), lacking.stderr


def test_an_older_store_is_upgraded_with_its_own_shards(tmp_path: Path, shards: str) -> None:
    old = tmp_path / "old.zarr"
    shutil.copytree(Path(__file__).parent / "format3" / "store.zarr", old)
    own = Path(__file__).parent / "format3" / "photos-3.tar"
    copy = pack_as("folder", tmp_path / "copy", list(images_of(str(own))))
    refused = run("inspect", "verify", old, "--shards", copy)
    assert refused.exit_code == 2 and "and any copy will do: distillcache upgrade" in refused.stderr, refused.stderr
    labels = (old / "label" / "c" / "0" / "0" / "0").read_bytes()
    assert run("upgrade", old, "--shards", expand(shards)[0]).exit_code == 2
    done = run("upgrade", old, "--shards", own)
    assert done.exit_code == 0 and "digests of 13 images kept" in done.stdout, done.output
    assert json.loads((old / "zarr.json").read_text())["attributes"]["format"] == 4
    assert (old / "label" / "c" / "0" / "0" / "0").read_bytes() == labels
    verified = run("inspect", "verify", old, "--shards", copy)
    assert verified.exit_code == 0 and "78 views, all as stored" in verified.stdout, verified.output
    assert "has the digests of its 13 images already" in run("upgrade", old, "--shards", own).stdout
    (old / "digest" / "c" / "0" / "0").unlink()  # as a kill during an upgrade leaves it
    assert "digests of 13 images kept" in run("upgrade", old, "--shards", own).stdout


def test_digests_survive_packing_and_merging(store: Store, shards: str, teacher: Teacher, tmp_path: Path) -> None:
    parts = [cached(tmp_path / f"{n}.zarr", [url], teacher, views=6, topk=2) for n, url in enumerate(expand(shards))]
    done = run("inspect", "merge", tmp_path / "all.zarr", *(part.path for part in parts))
    assert done.exit_code == 0, done.output
    assert run("pack", tmp_path / "all.zarr", tmp_path / "all.zarr.zip").exit_code == 0
    for path in (tmp_path / "all.zarr", tmp_path / "all.zarr.zip"):
        found = Store(path)
        assert np.array_equal(found.digests(), store.digests())
        copy = pack_as("folder", tmp_path / f"copy-{path.suffix}", photos_of(shards))
        assert find_samples(found, copy).there.sum() == 23


def test_of_a_damaged_copy_one_line_says_what_it_is(store: Store, tmp_path: Path) -> None:
    for name, said in (("a.parquet", "expected a Parquet file"), ("b.tar", "expected an uncompressed tar, a Parquet")):
        (tmp_path / name).write_bytes(b"neither of them" * 100)
        done = run("inspect", "verify", store.path, "--shards", tmp_path / name)
        assert done.exit_code == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.output
    (tmp_path / "empty").mkdir()
    done = run("inspect", "verify", store.path, "--shards", tmp_path / "empty")
    assert done.exit_code == 2 and "expected the store's 23 images" in done.stderr, done.output


def test_an_order_that_shows_all_is_not_thinned(store: Store) -> None:
    order = store.order()
    everything = replace(order, there=np.ones((2, int(store.counts.max())), np.bool_))
    assert everything.sizes(6) == order.sizes(6)
