"""Stage 1: the same store whatever the circumstances."""

import copy
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

from distillcache.cache import create, fill
from distillcache.cache.claims import claims_on
from distillcache.cache.store import Store
from distillcache.datasets.order import Rows
from distillcache.datasets.shards.files import expand
from distillcache.datasets.views import Renderer
from distillcache.models.teachers import Teacher

from ..conftest import OnAdvance, cached, run


def chunks(store: Path) -> dict[str, bytes]:
    """Return every chunk file of the arrays, by name."""
    files = (path for path in sorted(store.rglob("*")) if path.is_file() and path.name != "zarr.json")
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def test_stored_labels_and_checks_are_the_teachers_and_the_views(store: Store, shards: str, teacher: Teacher) -> None:
    """Row by row and view by view, with batches of one, beside what the store holds."""
    renderer, order = Renderer(store.manifest.recipe, store.samples(expand(shards))), store.order()
    for shard in range(2):
        rows, cached_ = order.unit(shard, range(6)), store.read(range(6), shard)
        assert len(rows) == 6 * int(store.counts[shard])
        for i in range(0, len(rows), 5):
            views = renderer(rows[i : i + 1])
            place = (int(rows.view[i]), int(rows.sample[i]))
            logits = teacher.logits(views.images)
            assert int(cached_.label[place]) == int(logits.argmax())
            assert int(cached_.check[place]) == int(views.check[0])
            top = logits.log_softmax(1).topk(2)
            assert cached_.topk_index[place].tolist() == top.indices[0].tolist()
            assert np.allclose(cached_.topk_logit[place], top.values[0].numpy(), rtol=1e-3, atol=2e-3)
    assert len(np.unique(cached_.label)) > 2  # a teacher that says one thing would prove nothing


@pytest.mark.parametrize(
    ("workers", "batch_size", "reverse", "first"),
    [(0, 64, False, None), (1, 8, True, None), (3, 64, True, 3), (0, 8, False, 3)],
)
def test_same_bytes_for_any_workers_batch_shard_order_and_extension(
    tmp_path: Path,
    shards: str,
    store: Store,
    teacher: Teacher,
    workers: int,
    batch_size: int,
    reverse: bool,
    first: int | None,
) -> None:
    urls = expand(expand(shards)[:: -1 if reverse else 1])
    options = {"batch_size": batch_size, "workers": workers, "topk": 2}
    for views in (first, 6) if first else (6,):
        cached(tmp_path / "c.zarr", urls, teacher, views=views, **options)
    ours, reference = chunks(tmp_path / "c.zarr"), chunks(store.path)
    exact = {name for name in reference if not name.startswith(("topk_logit", "probe_logits"))}
    assert set(ours) == set(reference) and {n for n in exact if ours[n] != reference[n]} == set()


def test_extension_over_several_blocks_tops_up_the_last_one(tmp_path: Path, shards: str, teacher: Teacher) -> None:
    urls = expand(shards)
    for views in (3, 15):
        extended = cached(tmp_path / "steps.zarr", urls, teacher, views=views)
    at_once = cached(tmp_path / "once.zarr", urls, teacher, views=15)
    assert extended.manifest.block == 12 and extended.views_of_all() == extended.views
    assert chunks(tmp_path / "steps.zarr") == chunks(tmp_path / "once.zarr")
    assert not list(at_once.units()) and at_once.views == 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "crop"}, "recipe field"),
        ({"overrides": ["hflip=0"]}, "recipe field hflip: expected the store's 0.5, found 0.0"),
        ({"image_size": 48}, "recipe field size: expected the store's 32, found 48"),
        ({"seed": 1}, "seed: expected the store's 0, found 1"),
        ({"topk": 3}, "topk: expected the store's 2, found 3"),
    ],
)
def test_another_request_is_refused(store: Store, teacher: Teacher, change: dict[str, object], message: str) -> None:
    same = create.Request.resolve(store)
    store.manifest.require_same(create.describe(same, teacher, store.manifest.shards))
    other = create.Request.resolve(store, **change)
    with pytest.raises(ValueError) as error:
        store.manifest.require_same(create.describe(other, teacher, store.manifest.shards))
    assert message in str(error.value)


def test_another_teacher_is_refused_and_the_same_under_another_name_is_not(store: Store, teacher: Teacher) -> None:
    request = create.Request.resolve(store)
    moved = replace(teacher, name="elsewhere")
    store.manifest.require_same(create.describe(request, moved, store.manifest.shards))
    with pytest.raises(ValueError, match="teacher sha256: expected the store's"):
        store.manifest.require_same(create.describe(request, replace(teacher, sha256="0"), store.manifest.shards))


def test_killed_and_started_again_the_store_is_the_same(
    tmp_path: Path, shards: str, store: Store, teacher_folder: Path
) -> None:
    """A real process, killed while it works."""
    command = [sys.executable, "-m", "distillcache.cli", "cache-teacher", "--shards", shards, "--teacher"]
    command += [str(teacher_folder), "--cache", str(tmp_path / "c.zarr"), "--image-size", "32", "--views", "6"]
    command += ["--topk", "2", "--batch-size", "4", "--workers", "1", "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("c.zarr/label/c/0/*/0")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(Store(tmp_path / "c.zarr").units())
    assert run(*command[3:]).exit_code == 0
    ours, reference = chunks(tmp_path / "c.zarr"), chunks(store.path)
    exact = {name for name in reference if not name.startswith(("topk_logit", "probe_logits"))}
    assert set(ours) == set(reference) and {n for n in exact if ours[n] != reference[n]} == set()
    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]


def test_chunks_of_zeros_are_not_lost_ones(tmp_path: Path, photos: list[bytes], teacher: Teacher) -> None:
    """One class, number 0, and a teacher that never says another."""
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as tar:
        for i, photo in enumerate(photos[:4]):
            tar.write({"__key__": f"x{i}", "jpg": photo, "cls": 0})
    always = replace(teacher, model=copy.deepcopy(teacher.model))
    always.model.classifier.bias.data[0] += 1000
    made = cached(tmp_path / "c.zarr", [str(tmp_path / "a.tar")], always, views=3, topk=1)
    again = Store(made.path)
    assert not again.targets().any() and not again.probes().at[0].any()
    labels = again.read(range(3), 0)
    assert not labels.label.any() and not labels.topk_index.any()


def test_a_store_that_vanishes_is_no_success(tmp_path: Path, shards: str, teacher: Teacher) -> None:
    store = cached(tmp_path / "c.zarr", expand(shards), teacher, views=3)

    def remove(_: int) -> None:
        shutil.rmtree(store.path)

    given = {"views": 9, "batch_size": 16, "workers": 0, "reporter": OnAdvance(remove)}
    with (
        pytest.raises(ValueError, match="expected the store that is being filled, found it removed"),
        claims_on(store.path) as claims,
    ):
        fill.fill(store, store.samples(expand(shards)), teacher, claims, **given)


def test_claims_exclude_other_processes_also_by_another_path(tmp_path: Path) -> None:
    script = "import sys, pathlib; from distillcache.cache.claims import claims_on\n"
    script += "with claims_on(pathlib.Path(sys.argv[1])) as c: print(c.take(1), c.take(2))"
    link = tmp_path / "link.zarr"
    link.symlink_to("c.zarr")
    with claims_on(tmp_path / "c.zarr") as claims:
        assert claims.take(1)
        other = subprocess.run([sys.executable, "-c", script, str(link)], capture_output=True, text=True)
        assert other.stdout.split() == ["False", "True"]
        claims.release(1)
        other = subprocess.run([sys.executable, "-c", script, str(link)], capture_output=True, text=True)
        assert other.stdout.split() == ["True", "True"]


def test_views_of_another_size_are_resized_for_the_teacher(teacher: Teacher) -> None:
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    batch = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(teacher.mean).view(3, 1, 1)) / torch.tensor(
        teacher.std
    ).view(3, 1, 1)
    smaller = torch.nn.functional.interpolate(batch, (32, 32), mode="bicubic", antialias=True)
    assert torch.allclose(teacher.logits(images), teacher.model(smaller), atol=1e-4)


def test_the_command_goes_on_with_what_the_store_has(tmp_path: Path, shards: str, teacher_folder: Path) -> None:
    common = ("cache-teacher", "--shards", shards, "--cache", tmp_path / "c.zarr", "--teacher", teacher_folder)
    common += ("--workers", 0, "--device", "cpu")
    first = run(*common, "--image-size", 32, "--views", 3, "--recipe", "deit", "--set", "hflip=0", "--seed", 4)
    assert first.exit_code == 0, first.output
    second = run(*common, "--views", 6)
    assert second.exit_code == 0 and "views    6 a sample" in second.output
    refused = run(*common, "--views", 6, "--seed", 5)
    assert refused.exit_code == 2 and "seed: expected the store's 4, found 5" in refused.output
    odd = run(*common, "--views", 7)
    assert odd.exit_code == 2 and "views: expected a multiple of the recipe's 3 repeats, found 7" in odd.output


def test_unit_rows_hold_every_view_of_the_shard(store: Store) -> None:
    rows: Rows = store.order().unit(1, range(3, 6))
    assert sorted(zip(rows.view.tolist(), rows.sample.tolist(), strict=True)) == [
        (v, i) for v in (3, 4, 5) for i in range(11)
    ]
