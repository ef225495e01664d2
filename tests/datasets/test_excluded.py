"""What a file excludes is left out of stores and of shards, and what it says wrongly is one line."""

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from distillcache.cache.store import Store
from distillcache.datasets.shards.excluded import Excluded

from ..conftest import run

OPTIONS = ["--image-size", 32, "--views", 3, "--device", "cpu"]


def cache(path: Path, shards: str, teacher: Path, *more: object):  # type: ignore[no-untyped-def]
    return run("cache-teacher", "--shards", shards, "--cache", path, "--teacher", teacher, *OPTIONS, *more)


def write(path: Path, *rows: tuple[str, str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("shard", "key"), *rows])
    return path


def test_excluded_samples_are_not_in_the_store(tmp_path: Path, shards: str, teacher_folder: Path) -> None:
    drop = write(tmp_path / "drop.csv", ("train-0.tar", "photo003"), ("train-1.tar", "photo110"))
    made = cache(tmp_path / "c.zarr", shards, teacher_folder, "--exclude", drop)
    assert made.exit_code == 0 and f"left out: 2 samples that {drop} names" in made.stderr, made.output
    store = Store(tmp_path / "c.zarr")
    assert "photo003" not in store.keys(0) and "photo110" not in store.keys(1) and store.counts.tolist() == [11, 10]
    told = json.loads(run("inspect", "info", store.path, "--json").stdout)["skipped"]
    assert [(s["shard"], s["key"], s["reason"]) for s in told] == [
        ("train-0.tar", "photo003", "excluded"), ("train-1.tar", "photo110", "excluded"),
    ]  # fmt: skip
    assert run("inspect", "verify", store.path, "--shards", shards).exit_code == 0
    assert cache(store.path, shards, teacher_folder).exit_code == 0  # the store remembers
    keys = tmp_path / "keys.txt"
    keys.write_bytes(b"photo110\r\nphoto003\n\n")  # a plain list says the same
    assert cache(store.path, shards, teacher_folder, "--exclude", keys).exit_code == 0
    other = cache(tmp_path / "d.zarr", shards, teacher_folder, "--exclude", keys)
    assert other.exit_code == 0 and Store(tmp_path / "d.zarr").manifest.skipped == store.manifest.skipped


def test_a_store_keeps_to_what_it_left_out(tmp_path: Path, shards: str, teacher_folder: Path) -> None:
    drop = write(tmp_path / "drop.csv", ("train-0.tar", "photo003"), ("train-1.tar", "photo110"))
    assert cache(tmp_path / "c.zarr", shards, teacher_folder, "--exclude", drop).exit_code == 0
    for rows, differing in (
        ([("train-0.tar", "photo003")], "without train-1.tar/photo110"),
        ([("train-0.tar", "photo003"), ("train-0.tar", "photo110")], "without train-1.tar/photo110"),
        (
            [("train-0.tar", "photo003"), ("train-1.tar", "photo110"), ("train-0.tar", "photo001")],
            "with train-0.tar/photo001",
        ),
    ):
        write(drop, *rows)
        refused = cache(tmp_path / "c.zarr", shards, teacher_folder, "--exclude", drop)
        assert refused.exit_code == 2 and differing in refused.stderr and refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"shard,key\ntrain-0.tar,photo104\n", "expected samples of the shards, found shard train-0.tar, key photo104"),
        (b"photo000\nphoto999\nphoto998\n", "expected samples of the shards, found key photo998, and 1 more"),
        (b"", "expected keys, found none"),
        (b"shard,key\n", "expected keys, found none"),
        (b"\xff\xfe\n", "expected UTF-8"),
        (b"shard,key\na,b,c\n", "expected a shard and a key, found line 2"),
        (
            b"".join(b"photo0%02d\n" % i for i in range(12)),
            "some sample to be left, found all of shard train-0.tar",
        ),
    ],
)
def test_a_wrong_file_is_one_line(
    tmp_path: Path, shards: str, teacher_folder: Path, content: bytes, message: str
) -> None:
    (tmp_path / "drop.csv").write_bytes(content)
    refused = cache(tmp_path / "c.zarr", shards, teacher_folder, "--exclude", tmp_path / "drop.csv")
    assert refused.exit_code == 2 and message in refused.stderr, refused.stderr
    assert not (tmp_path / "c.zarr").exists()
    missing = cache(tmp_path / "c.zarr", shards, teacher_folder, "--exclude", tmp_path / "none.csv")
    assert missing.exit_code == 2 and "No such file" in missing.stderr


def test_keys_with_commas_quotes_and_lines_are_read_back(tmp_path: Path) -> None:
    odd = [("a.tar", 'x, "y"'), ("a.tar", "two\nlines"), ("b.tar", " spaced ")]
    excluded = Excluded.read(write(tmp_path / "drop.csv", *odd))
    assert excluded.samples == set(odd) and excluded.names("b.tar", " spaced ")
    (tmp_path / "list.txt").write_text("a,b\n \u2028x\n")
    assert Excluded.read(tmp_path / "list.txt").samples == {("", "a,b"), ("", " \u2028x")}


def test_shards_are_made_without_excluded_samples(tmp_path: Path, photos: list[bytes]) -> None:
    for i in range(6):
        (tmp_path / "src" / f"c{i % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / f"c{i % 2}" / f"p{i}.jpg").write_bytes(photos[i])
    drop = write(tmp_path / "drop.csv", ("train-000009.tar", "c1/p3"))  # of an earlier packing
    made = run("make-shards", tmp_path / "src", tmp_path / "out", "--exclude", drop)
    assert made.exit_code == 0 and "5 train samples" in made.stdout, made.output
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        names = tar.getnames()
    assert {name.partition(".")[0] for name in names} == {"c0/p0", "c1/p1", "c0/p2", "c0/p4", "c1/p5"}
    assert run("make-shards", tmp_path / "src", tmp_path / "out", "--exclude", drop).exit_code == 0
    write(drop, ("", "c0/p2"))
    refused = run("make-shards", tmp_path / "src", tmp_path / "out", "--exclude", drop)
    assert refused.exit_code == 2 and "name another folder" in refused.stderr
    write(drop, ("", "c0/p9"))
    refused = run("make-shards", tmp_path / "src", tmp_path / "new", "--exclude", drop)
    assert refused.exit_code == 2 and "expected samples of the shards, found key c0/p9" in refused.stderr


def test_the_order_of_the_others_stays_reproducible(tmp_path: Path, shards: str, teacher_folder: Path) -> None:
    """A store with a sample excluded is that of a shard that never had it."""
    drop = write(tmp_path / "drop.csv", ("", "photo005"))
    assert cache(tmp_path / "a.zarr", shards, teacher_folder, "--exclude", drop).exit_code == 0
    with tarfile.open(tmp_path / "train-0.tar", "w") as out, tarfile.open(shards.replace("*", "0")) as tar:
        for member in tar:
            if not member.name.startswith("photo005"):
                out.addfile(member, tar.extractfile(member))
    (tmp_path / "train-1.tar").write_bytes(Path(shards.replace("*", "1")).read_bytes())
    assert cache(tmp_path / "b.zarr", str(tmp_path / "train-*.tar"), teacher_folder).exit_code == 0
    ours, theirs = Store(tmp_path / "a.zarr"), Store(tmp_path / "b.zarr")
    for shard in range(2):
        assert ours.keys(shard) == theirs.keys(shard)
        one, other = ours.read(range(3), shard), theirs.read(range(3), shard)
        assert np.array_equal(one.label, other.label) and np.array_equal(one.check, other.check)
