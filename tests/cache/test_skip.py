"""Bad images: found before the teacher starts, and left out of the store as if they had never been packed."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from distillcache.cache.store import Store

from ..conftest import run

BAD = {3: b"", 7: b"<html>404 Not Found</html>"}


def pack(path: Path, photos: list[bytes], bad: dict[int, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for i, photo in enumerate(photos):
            for name, data in ((f"photo{i:02d}.jpg", bad.get(i, photo)), (f"photo{i:02d}.cls", b"%d" % (i % 5))):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def test_a_store_without_bad_images_is_that_of_a_shard_without_them(
    tmp_path: Path, photos: list[bytes], teacher_folder: Path
) -> None:
    options = ["--teacher", teacher_folder, "--image-size", 32, "--views", 6, "--device", "cpu"]
    stores = []
    for name, bad in (("with", BAD), ("without", {})):
        (tmp_path / name).mkdir()
        shard, kept = (
            tmp_path / name / "a.tar",
            photos[:12] if bad else [p for i, p in enumerate(photos[:12]) if i not in BAD],
        )
        pack(shard, kept, bad)
        given = [
            "--shards",
            shard,
            "--cache",
            tmp_path / f"{name}.zarr",
            *options,
            *(["--on-bad-image", "skip"] if bad else []),
        ]
        found = run("cache-teacher", *given)
        assert found.exit_code == 0, found.output
        stores.append(Store(tmp_path / f"{name}.zarr"))
    skipping, clean = stores
    assert skipping.keys(0) == [f"photo{i:02d}" for i in range(12) if i not in BAD] and clean.counts.tolist() == [10]
    assert np.array_equal(skipping.seeds(0), clean.seeds(0))
    for name in ("label", "check"):
        assert np.array_equal(getattr(skipping.read(range(6)), name), getattr(clean.read(range(6)), name))
    told = json.loads(run("inspect", "info", skipping.path, "--json").stdout)["skipped"]
    assert [sample["key"] for sample in told] == ["photo03", "photo07"] and "an empty file" in told[0]["reason"]
    assert "photo03: expected a JPEG" in run("inspect", "info", skipping.path).stdout
    shard = tmp_path / "with" / "a.tar"
    assert run("inspect", "verify", skipping.path, "--shards", shard).exit_code == 0
    small = ["--model-kwargs", "img_size=32", "embed_dim=24", "depth=1", "--batch-size", 4, "--epochs", 3]
    trained = run(
        "train-student", "--shards", shard, "--cache", skipping.path, "--out", tmp_path / "o", "--device", "cpu", *small
    )
    assert trained.exit_code == 0, trained.output


def test_nothing_is_made_before_every_image_was_looked_at(
    tmp_path: Path, photos: list[bytes], teacher_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tmp_path / "a.tar", photos[:4], {3: b"no image"})
    monkeypatch.setattr("distillcache.cache.fill.fill", None)
    given = ["--shards", tmp_path / "a.tar", "--cache", tmp_path / "c.zarr", "--teacher", teacher_folder, "--views", 3]
    found = run("cache-teacher", *given, "--image-size", 32, "--device", "cpu")
    assert found.exit_code == 2 and "key photo03" in found.stderr and "--on-bad-image skip" in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
