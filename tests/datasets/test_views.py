"""The renderer: rows in, views out, whatever is asked beside them."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from distillcache.datasets.augment import pixels
from distillcache.datasets.augment.plans import plan_mix, plan_view
from distillcache.datasets.augment.recipes import named
from distillcache.datasets.loader import Loader
from distillcache.datasets.order import Order, Rows
from distillcache.datasets.samples import SampleError, Samples, samples_of
from distillcache.datasets.shards.files import expand
from distillcache.datasets.shards.index import index_shards
from distillcache.datasets.views import Renderer
from distillcache.runtime.workers import WorkerDiedError

RECIPE = named("deit", size=48)


@pytest.fixture(scope="module")
def samples(shards: str) -> Samples:
    return samples_of(index_shards(expand(shards)), 5)


@pytest.fixture(scope="module")
def rows(samples: Samples) -> Rows:
    order = Order(seed=5, shards=["train-0.tar", "train-1.tar"], samples=samples.count.tolist(), recipe=RECIPE)
    return order.epoch(1)


def test_a_view_is_what_its_plans_say(samples: Samples, rows: Rows) -> None:
    """The renderer with its caches beside the plain formula, row by row."""
    views = Renderer(RECIPE, samples)(rows)
    for i in range(len(rows)):
        shard, v = int(rows.shard[i]), int(rows.view[i])
        sides = []
        for sample in (int(rows.sample[i]), int(rows.partner[i])):
            image = pixels.decode(samples.read(shard, sample))
            seed = int(samples.seed[shard, sample])
            sides.append((seed, pixels.render(plan_view(RECIPE, seed, v, *image.shape[:2]), image)))
        (seed, own), (partner_seed, partner) = sides
        mix = plan_mix(RECIPE, seed, partner_seed, v)
        expected = pixels.mix(mix, own, partner) if rows.partner[i] >= 0 else own
        assert np.array_equal(views.images[i].numpy(), expected)
        assert int(views.check[i]) == pixels.check(expected)
        assert float(views.lam[i]) == pytest.approx(mix.lam if rows.partner[i] >= 0 else 1.0)


def test_views_do_not_depend_on_batches_or_workers(samples: Samples, rows: Rows) -> None:
    renderer = Renderer(RECIPE, samples)
    whole = renderer(rows).check.tolist()
    for size, workers in ((1, 0), (7, 0), (7, 1), (10, 3)):
        with Loader(renderer, workers=workers) as loader:
            parts = list(loader.load(rows.batches(size)))
        assert [check for _, views in parts for check in views.check.tolist()] == whole
        assert [view for part, _ in parts for view in part.view.tolist()] == rows.view.tolist()


def test_views_do_not_depend_on_threads(samples: Samples, rows: Rows) -> None:
    renderer = Renderer(RECIPE, samples)
    whole = renderer(rows).check.tolist()
    with ThreadPoolExecutor(8) as pool:
        for parts in (2, 8, 8, 8, len(rows) + 3):
            assert renderer(rows, pool, parts).check.tolist() == whole


def test_mixing_goes_both_ways(samples: Samples) -> None:
    for v in range(20):
        one, other = plan_mix(RECIPE, 123, 456, v), plan_mix(RECIPE, 456, 123, v)
        assert one == other and one.kind in ("mixup", "cutmix") and 0 <= one.lam <= 1


def test_recipe_none_is_the_centre_crop_whatever_the_seed(samples: Samples) -> None:
    recipe = named("none", size=48)
    plans = {repr(plan_view(recipe, seed, v, 200, 300)) for seed in range(3) for v in range(3)}
    assert len(plans) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_does_not_decode_is_named(samples: Samples, rows: Rows, workers: int) -> None:
    number = int(rows.sample[0])
    shorter = np.where(np.arange(samples.nbytes.shape[1]) == number, 30, samples.nbytes).astype(np.uint32)
    broken = Samples(**{f: getattr(samples, f) for f in Samples.__slots__ if f != "nbytes"}, nbytes=shorter)
    expected = pytest.raises(
        SampleError, match=rf"shard train-\d\.tar, sample {number}: expected a JPEG, PNG or WebP image"
    )
    with expected, Loader(Renderer(RECIPE, broken), workers=workers) as loader:
        list(loader.load(rows.batches(8)))


@pytest.mark.parametrize("dead", [1, 2])
def test_a_worker_that_is_killed_is_said_and_does_not_hang(samples: Samples, rows: Rows, dead: int) -> None:
    others = set(multiprocessing.active_children())
    with Loader(Renderer(RECIPE, samples), workers=2) as loader:
        batches = loader.load(iter([rows] * 50))
        next(batches)
        for worker in list(set(multiprocessing.active_children()) - others)[:dead]:
            os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match=r"worker \d, process \d+: killed by SIGKILL"):
            list(batches)
    assert set(multiprocessing.active_children()) == others


def test_views_come_at_any_size_from_32_to_384(samples: Samples, rows: Rows) -> None:
    for size in (32, 47, 224, 384):
        assert Renderer(named("deit", size=size), samples)(rows[:2]).images.shape == (2, size, size, 3)
