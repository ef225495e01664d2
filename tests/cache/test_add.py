"""More shards for a store: what it has stays as it is, and what joins it is as if it had been there."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distillcache.cache import add
from distillcache.cache.claims import claims_on
from distillcache.cache.store import Store
from distillcache.datasets.shards.files import expand
from distillcache.datasets.shards.index import index_shards
from distillcache.models.teachers import Teacher
from distillcache.replay.training_set import TrainingSet
from distillcache.runtime.crew import Crew

from ..conftest import cached, run

OPTIONS = ["--image-size", 32, "--views", 6, "--batch-size", 16, "--device", "cpu", "--no-amp"]


@pytest.fixture
def first(shards: str, teacher: Teacher, tmp_path: Path) -> Store:
    """A store of the first shard alone, of 12 photos; the other has 11."""
    return cached(tmp_path / "c.zarr", expand(shards)[:1], teacher)


def files(store: Path) -> dict[str, tuple[bytes, int]]:
    chunks = (path for path in sorted(store.rglob("*")) if path.is_file() and path.name != "zarr.json")
    return {str(path.relative_to(store)): (path.read_bytes(), path.stat().st_mtime_ns) for path in chunks}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_joins_a_store_as_if_it_had_been_there(
    first: Store, shards: str, teacher: Teacher, teacher_folder: Path, tmp_path: Path, workers: int
) -> None:
    own, more = expand(shards)
    before = files(tmp_path / "c.zarr")
    command = ["cache-teacher", "--shards", own, "--cache", first.path, "--teacher", teacher_folder, *OPTIONS]
    for _ in range(2):  # the second time there is nothing to do
        result = run(*command, "--add-shards", more, "--workers", workers)
        assert result.exit_code == 0, result.stderr
        assert not list(Store(first.path).units())
    after = files(tmp_path / "c.zarr")
    assert {name for name in before if after[name] != before[name]} == set(), "old chunks are not even written again"
    whole, both = cached(tmp_path / "whole.zarr", [own, more], teacher), Store(tmp_path / "c.zarr")
    assert both.manifest.shards == whole.manifest.shards and both.manifest.fingerprint == whole.manifest.fingerprint
    np.testing.assert_array_equal(both.digests(), whole.digests())
    assert both.keys(1) == whole.keys(1)
    for shard in (0, 1):
        ours, theirs = both.read(range(6), shard), whole.read(range(6), shard)
        np.testing.assert_array_equal(ours.label, theirs.label)
        np.testing.assert_array_equal(ours.check, theirs.check)
    assert run("inspect", "verify", both.path, "--shards", shards).exit_code == 0
    extended = run(*command, "--shards", more, "--views", 12)
    assert extended.exit_code == 0 and Store(first.path).views == 12 and not list(Store(first.path).units())


def test_who_is_killed_while_shards_join_leaves_the_store_as_it_was(
    first: Store, shards: str, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, more = expand(shards)
    labels = first.cycle(1).label.copy()
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from distillcache.cache import add\n"
        "from distillcache.cache.claims import claims_on\n"
        "from distillcache.cache.store import Store\n"
        "from distillcache.runtime.crew import Crew\n"
        "from distillcache.datasets.shards.index import index_shards\n"
        "Store.record = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "path = Path(sys.argv[1])\n"
        "with claims_on(path) as claims:\n"
        "    add.add_shards(Store(path), lambda: index_shards([sys.argv[2]]), claims, Crew())\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(first.path), more], check=False)
    assert killed.returncode == -signal.SIGKILL
    torn = Store(first.path)
    assert torn._arrays["seed"].shape[0] == 2 and len(torn.manifest.shards) == 1, "killed where it hurts"
    np.testing.assert_array_equal(torn.cycle(1).label, labels)
    assert torn.digests().shape == (1, 12) and list(torn.counts) == [12] and not list(torn.units())
    assert len(TrainingSet.stored(torn, own).order.epoch(0)) == len(TrainingSet.stored(first, own).order.epoch(0))
    with claims_on(first.path) as claims:
        add.add_shards(torn, lambda: index_shards([more]), claims, Crew())
    assert list(torn.counts) == [12, 11] and torn.keys(1)[0].startswith("photo1")
    np.testing.assert_array_equal(torn.read(range(6), 0).label, first.read(range(6), 0).label)


def test_a_process_that_fills_meanwhile_ends_with_the_shards_that_it_knows(
    shards: str, teacher: Teacher, tmp_path: Path
) -> None:
    """It lists what is missing again, and extends the store, after a shard has joined it."""
    own, more = expand(shards)
    store = cached(tmp_path / "c.zarr", [own], teacher, views=0)
    stale = Store(store.path)
    with claims_on(store.path) as claims:
        add.add_shards(store, lambda: index_shards([more]), claims, Crew())
    from distillcache.cache import fill

    samples = Store(store.path).samples([own, more])
    knows_one = type(samples)(
        **{**{name: getattr(samples, name) for name in samples.__dataclass_fields__}, "count": samples.count[:1]}
    )
    with claims_on(store.path) as claims:
        fill.fill(stale, knows_one, teacher, claims, views=6, batch_size=16, workers=0)
    now = Store(store.path)
    assert {unit.shard for unit in now.units()} == {1} and now._arrays["label"].shape == (6, 2, 12)


@pytest.mark.parametrize(
    ("prepare", "line"),
    [
        (
            "larger",
            "distillcache: shard train-1.tar: expected at most the 11 samples of the store's largest shard, found 12; ",
        ),
        ("changed", "distillcache: shard train-0.tar: expected the "),
        ("part", "distillcache: add-shards: expected a whole store that they join, found --part"),
        ("none", "distillcache: add-shards: expected a whole store that they join, found none yet; make that first"),
    ],
)
def test_what_can_not_join_is_refused_in_a_line(
    shards: str, teacher: Teacher, teacher_folder: Path, tmp_path: Path, prepare: str, line: str
) -> None:
    own, more = expand(shards)
    if prepare == "larger":
        own, more = str(tmp_path / "train-0.tar"), str(tmp_path / "train-1.tar")
        shutil.copy(expand(shards)[1], own)
        shutil.copy(expand(shards)[0], more)
    if prepare == "changed":
        (tmp_path / "other").mkdir()
        shutil.copy(more, tmp_path / "other" / "train-0.tar")
        more = str(tmp_path / "other" / "train-0.tar")
    if prepare != "none":
        cached(tmp_path / "c.zarr", [own], teacher)
    part = ["--part", "0/1"] if prepare == "part" else []
    command = ["cache-teacher", "--shards", own, "--cache", tmp_path / "c.zarr", "--teacher", teacher_folder, *OPTIONS]
    result = run(*command, "--add-shards", more, *part)
    assert result.exit_code == 2 and result.stderr.splitlines()[-1].startswith(line), result.stderr
    if prepare != "none":
        assert len(Store(tmp_path / "c.zarr").manifest.shards) == 1
