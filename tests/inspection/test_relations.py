"""What a label is to its view is one thing, whoever is asked: label, show, stats, export and the page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from distillcache.cache.store import Store
from distillcache.datasets.augment.plans import plan_mix
from distillcache.datasets.order import ALONE
from distillcache.datasets.shards.files import expand
from distillcache.inspection import relations
from distillcache.inspection.lookup import SampleLabels, label
from distillcache.inspection.pictures import plan_in_words, show
from distillcache.inspection.relations import lambda_text
from distillcache.models.teachers import Teacher

from ..conftest import cached, run


@pytest.fixture(scope="module")
def half_mixed(shards: str, teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which half of the pairs are left unmixed, and of the others many have a lambda of 1."""
    path = tmp_path_factory.mktemp("half") / "half.zarr"
    overrides = ("mix_prob=0.5", "mixup_alpha=0.05", "cutmix_alpha=0.05")
    return cached(path, expand(shards), teacher, views=12, overrides=overrides)


@pytest.fixture(scope="module")
def samples(half_mixed: Store) -> list[SampleLabels]:
    return [label(half_mixed, (shard, i)) for shard in range(2) for i in range(half_mixed.counts[shard])]


def expected(store: Store, shard: int, sample: int, view: int) -> tuple[str, str | None]:
    """Return the relation and the partner's key by the plan of the pair, from the store's own arrays."""
    target, keys, seeds = store.targets()[shard], store.keys(shard), store.seeds(shard)
    number = int(store.labels(shard)[view, sample])
    rows = store.order().unit(shard, range(view // 3 * 3, view // 3 * 3 + 3))
    [partner] = rows.partner[(rows.view == view) & (rows.sample == sample)].tolist()
    if partner != ALONE:
        mix = plan_mix(store.manifest.recipe, int(seeds[sample]), int(seeds[partner]), view)
        partner = partner if mix.lam < 1 else ALONE
    if number == target[sample]:
        return "target", None if partner == ALONE else keys[partner]
    if partner == ALONE:
        return "neither", None
    return "partner" if number == target[partner] else "neither", keys[partner]


def test_a_view_whose_lambda_is_1_has_no_partner(half_mixed: Store, samples: list[SampleLabels]) -> None:
    found = {(s.shard, s.key, v.view): (v.relation, v.partner) for s in samples for v in s.views}
    wanted = {
        (half_mixed.manifest.shards[shard].name, key, view): expected(half_mixed, shard, i, view)
        for shard in range(2)
        for i, key in enumerate(half_mixed.keys(shard))
        for view in range(12)
    }
    assert found == wanted
    views = [view for s in samples for view in s.views]
    assert {view.relation for view in views} == {"target", "partner", "neither"}
    whole = [view for view in views if view.mix != "none" and view.lam == 1]
    assert whole and all(view.partner is view.partner_target is None for view in whole)
    assert all(view.lam < 1 for view in views if view.relation == "partner")


def test_every_command_says_the_same(half_mixed: Store, samples: list[SampleLabels], tmp_path: Path) -> None:
    views = [(s, view) for s in samples for view in s.views]
    stats = json.loads(run("inspect", "stats", half_mixed.path, "--json").stdout)
    n = len(views)
    assert stats["partner"] == pytest.approx(sum(view.relation == "partner" for _, view in views) / n)
    assert sum(c["views"] for c in stats["confusions"]) == sum(view.relation == "neither" for _, view in views)
    by_kind = {group["kind"]: group for group in stats["by_mix"]}
    assert by_kind["none"]["partner"] == 0
    for kind, group in by_kind.items():
        assert group["views"] == sum(view.mix == kind for _, view in views)
    assert run("inspect", "export", half_mixed.path, tmp_path / "l.parquet").exit_code == 0
    frame = pandas.read_parquet(tmp_path / "l.parquet").set_index(["key", "view"])
    assert all(frame.relation[s.key, view.view] == view.relation for s, view in views)
    assert all(frame.partner[s.key, view.view] == (view.partner or "") for s, view in views)
    lines = run("inspect", "label", half_mixed.path, samples[0].key).stdout.splitlines()[3:15]
    for line, view in zip(lines, samples[0].views, strict=True):
        assert line.split()[3] == {"target": "=", "partner": "~", "neither": "!"}[view.relation or ""]


def test_pictures_are_captioned_alike(
    half_mixed: Store, samples: list[SampleLabels], shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[Any] = []
    monkeypatch.setattr(
        "distillcache.inspection.pictures._grid",
        lambda rows, cell: captions.extend(picture.caption for row in rows for picture in row),
    )
    one = next(s for s in samples if any(v.mix != "none" and v.lam == 1 for v in s.views))
    files = half_mixed.samples(expand(shards))
    show(half_mixed, [one.key], files, range(12))
    marks = {"target": "=", "partner": "~", "neither": "!"}
    for view, (how, words) in zip(one.views, captions[1:], strict=True):
        assert words[0] == marks[view.relation or ""]
        assert ("unmixed" in how) == (view.partner is None)
    position = next(
        (shard, half_mixed.keys(shard).index(one.key)) for shard in range(2) if one.key in half_mixed.keys(shard)
    )
    for view, words in zip(one.views, plan_in_words(half_mixed, position, files, range(12)), strict=True):
        assert words.endswith("; unmixed") == (view.partner is None)


def test_a_label_that_is_both_targets_is_the_targets() -> None:
    target, partner = np.array([4, 4, 7], np.int32), np.array([[1, 0, -1]], np.int32)
    assert relations.relations(np.array([[4, 7, 4]]), target, partner).tolist() == [[0, 2, 2]]


def test_a_lambda_is_never_rounded_to_what_it_is_not() -> None:
    texts = {0.0: "0.000", 1.0: "1.000", 0.25: "0.250", 0.0004: "0.00040", 0.99996: "0.99996"}
    assert {lam: lambda_text(lam) for lam in texts} == texts
