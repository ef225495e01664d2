"""What holds for every shard, plan, store and teacher, on whatever hypothesis thinks of."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distillcache.cache.fill import fetch_labels
from distillcache.cache.layout import arrays_by_view
from distillcache.cache.manifest import Manifest
from distillcache.cache.records import Labels, Probes, Unit
from distillcache.cache.store import Store
from distillcache.datasets.augment.plans import Box, plan_mix, plan_view
from distillcache.datasets.augment.recipes import NAMES, named
from distillcache.datasets.samples import samples_of
from distillcache.datasets.shards.index import ShardIndex, index_shard

from .conftest import FUZZ

some = settings(max_examples=40 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FORMS = ({}, {"topk": 1}, {"topk": 3}, {"logits": 4}, {"logits": 8})
"""How logits may be kept."""
KEYS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="./\0"), min_size=1, max_size=20)
WORDS = st.integers(0, 2**64 - 1)
SIDES = st.integers(1, 3000)


@some
@given(st.dictionaries(KEYS, st.tuples(st.binary(max_size=300), st.integers(0, 2**31 - 1)), min_size=1, max_size=8))
def test_a_shard_is_read_as_it_was_written(tmp_path: Path, written: dict[str, tuple[bytes, int]]) -> None:
    """By us, and by webdataset."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for key, (image, target) in written.items():
            for name, data in ((f"{key}.jpg", image), (f"{key}.cls", b"%d" % target)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    index = index_shard(str(path))
    samples = samples_of([index], 0)
    read = {key: (samples.read(0, i), int(samples.target[0, i])) for i, key in enumerate(index.keys)}
    assert read == written
    theirs = {sample["__key__"]: sample["jpg"] for sample in webdataset.WebDataset(str(path), shardshuffle=False)}
    assert theirs == {key: image for key, (image, _) in written.items()}


@some
@given(st.sampled_from(NAMES), st.integers(16, 1024), WORDS, st.integers(0, 5000), SIDES, SIDES)
def test_a_view_stays_inside_its_image(name: str, size: int, seed: int, view: int, height: int, width: int) -> None:
    recipe = named(name, size=size)
    plan = plan_view(recipe, seed, view, height, width)
    assert plan == plan_view(recipe, seed, view, height, width)
    boxes = [(plan.crop, height, width)] if isinstance(plan.crop, Box) else []
    for box, rows, columns in [*boxes, *([(plan.erase.box, size, size)] if plan.erase else [])]:
        assert box.height > 0 and box.width > 0 and min(box.top, box.left) >= 0
        assert box.top + box.height <= rows and box.left + box.width <= columns


@some
@given(st.sampled_from(("deit", "deit3")), st.integers(16, 1024), WORDS, WORDS, st.integers(0, 5000))
def test_a_mix_stays_inside_its_view(name: str, size: int, seed: int, other: int, view: int) -> None:
    recipe = named(name, size=size)
    mix = plan_mix(recipe, seed, other, view)
    assert (mix == plan_mix(recipe, seed, other, view) and 0 <= mix.lam <= 1 and mix.lam * 2**16 % 1 == 0) or mix.box
    if mix.box:
        assert mix.box.top + mix.box.height <= size and mix.box.left + mix.box.width <= size
        assert abs(mix.lam - (1 - mix.box.height * mix.box.width / size**2)) < 1e-12


@some
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 6), st.sampled_from(FORMS), WORDS)
def test_a_store_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    store: Store,
    counts: list[int],
    cycles: int,
    form: dict[str, int],
    seed: int,
) -> None:
    """Whatever order the units come in, and with an extension half way."""
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(seed)
    shards = [replace(store.manifest.shards[0], name=f"{i}.tar") for i in range(len(counts))]
    manifest = replace(store.manifest, shards=tuple(shards), extended=(), **({"topk": 0} | form))
    indexes = []
    for shard, n in zip(shards, counts, strict=True):
        ones = {name: [1] * n for name in ("targets", "offsets", "nbytes")}
        indexes.append(ShardIndex(shard=shard, url=shard.name, keys=[f"k{i}" for i in range(n)], **ones))
    probes = Probes(
        views=np.zeros((1, 2, 2, 3), np.uint8), logits=np.zeros((1, 5), np.float32), at=np.zeros((1, 3), np.int32)
    )
    made = Store.create(folder / "c.zarr", manifest, samples_of(indexes, 0), probes)
    views, written = 3 * cycles, {}
    for upto in (3 * (cycles // 2), views):
        made.extend(upto)
        made = Store(folder / "c.zarr")
        units = list(made.units())
        for unit in (units[i] for i in rng.permutation(len(units))):
            labels = random_labels(rng, unit, counts[unit.shard], manifest)
            written[unit.shard, unit.views.start] = (unit, labels)
            made.write(unit, labels)
    assert not list(made.units()) and made.counts.tolist() == counts
    for unit, labels in written.values():
        found = made.read(unit.views, unit.shard)
        for name in made.by_view:
            ours = getattr(found, name)[:, : counts[unit.shard]]
            assert np.array_equal(ours, getattr(labels, name))


def random_labels(rng: np.random.Generator, unit: Unit, samples: int, manifest: Manifest) -> Labels:
    shape = (len(unit.views), samples)
    arrays = {
        array.name: rng.integers(0, 5, (*shape, *(length for _, length in array.more))).astype(array.dtype)
        for array in arrays_by_view(manifest)
    }
    return Labels(**arrays)


@some
@given(st.integers(1, 6), st.integers(1, 40), st.data(), st.integers(0, 2**32 - 1))
def test_topk_is_what_the_logits_say(n: int, classes: int, data: st.DataObject, seed: int) -> None:
    k = data.draw(st.integers(1, classes))
    logits = np.random.default_rng(seed).normal(0, 3, (n, classes)).astype(np.float32)
    found = fetch_labels(torch.from_numpy(logits), torch.zeros(n, dtype=torch.int64), "", topk=k)()
    assert found.topk_index is not None and found.topk_logit is not None
    assert np.array_equal(found.label, logits.argmax(1)) and np.array_equal(found.topk_index[:, 0], found.label)
    assert np.array_equal(np.sort(found.topk_index, axis=1), np.sort(np.argsort(-logits, axis=1)[:, :k], axis=1))
    log_softmax = logits - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    expected = np.take_along_axis(log_softmax, found.topk_index.astype(np.int64), axis=1)
    assert np.allclose(found.topk_logit, expected, rtol=2**-10, atol=1e-4)
    assert (np.diff(found.topk_logit.astype(np.float64), axis=1) <= 0).all()
