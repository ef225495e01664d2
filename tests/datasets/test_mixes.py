"""Mixes of whole shards at once are those of the plans, bit for bit."""

import numpy as np
import pytest

from distillcache.datasets.augment.mixes import KINDS, mixes
from distillcache.datasets.augment.plans import plan_mix
from distillcache.datasets.augment.recipes import named
from distillcache.datasets.order import ALONE, Order, sample_seeds

SAMPLES, VIEWS = 1001, 24


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["mix_prob=0.5"],
        ["cutmix_alpha=0"],
        ["mixup_alpha=0"],
        ["mixup_alpha=0.1", "cutmix_alpha=0.3", "switch_prob=0.2"],
        ["mix_prob=0"],
    ],
    ids=" ".join,
)
def test_they_are_those_of_the_plans(overrides: list[str], size: int) -> None:
    """12,000 pairs each; of some recipes there are lambdas of 1 and boxes of nothing among them."""
    recipe = named("deit", size=size, overrides=overrides)
    order = Order(seed=5, shards=["a.tar"], samples=[SAMPLES], recipe=recipe)
    seeds, views = sample_seeds(5, "a.tar", SAMPLES), np.arange(2**33, 2**33 + VIEWS)
    partner = order.partners(0, range(VIEWS))
    found = mixes(recipe, seeds, partner, views)
    for row, view in enumerate(views.tolist()):
        for sample, other in enumerate(partner[row].tolist()):
            if other == ALONE:
                assert (found.kind[row, sample], found.lam[row, sample]) == (0, 1)
            elif sample < other:
                plan = plan_mix(recipe, int(seeds[sample]), int(seeds[other]), view)
                for side in (sample, other):
                    assert (KINDS[found.kind[row, side]], found.lam[row, side]) == (plan.kind, plan.lam)


@pytest.mark.parametrize("views", [range(0, 7), range(4, 5), range(2, 2)], ids=str)
def test_partners_are_those_of_the_rows(views: range) -> None:
    order = Order(seed=1, shards=["a.tar", "b.tar"], samples=[8, 7], recipe=named("deit"))
    for shard in range(2):
        rows, partner = order.unit(shard, range(9)), order.partners(shard, views)
        for of_view, view in zip(partner, views, strict=True):
            at = np.flatnonzero(rows.view == view)
            assert dict(enumerate(of_view.tolist())) == dict(zip(rows.sample[at], rows.partner[at], strict=True))
