"""The order of pairs and epochs: no file, no image."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillcache.datasets.augment.recipes import named
from distillcache.datasets.order import ALONE, Order, Rows, in_sequence, sample_seeds

SIZES = st.lists(st.integers(1, 20), min_size=1, max_size=5)


def order(samples: list[int], seed: int = 0, window: int = 0, recipe: str = "deit", group: int | None = None) -> Order:
    names = [f"shard{i}.tar" for i in range(len(samples))]
    chosen = named(recipe, overrides=[f"group={group}"] if group else [])
    return Order(seed=seed, shards=names, samples=samples, recipe=chosen, window=window)


def tuples(rows: Rows) -> list[tuple[int, ...]]:
    return list(zip(*(c.tolist() for c in (rows.shard, rows.sample, rows.partner, rows.view)), strict=True))


@given(SIZES, st.integers(0, 2**64 - 1), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=50)
def test_a_cycle_shows_each_sample_once_in_each_view(samples: list[int], seed: int, window: int, cycle: int) -> None:
    o = order(samples, seed, window)
    epochs = [tuples(o.epoch(3 * cycle + phase)) for phase in range(3)]
    units = [row for s in range(len(samples)) for row in tuples(o.unit(s, range(3 * cycle, 3 * cycle + 3)))]
    seen = [row for epoch in epochs for row in epoch]
    assert Counter(seen) == Counter(units)  # what is trained is what was cached, partners and all
    expected = {(s, i, v) for s, n in enumerate(samples) for i in range(n) for v in range(3 * cycle, 3 * cycle + 3)}
    assert Counter((s, i, v) for s, i, _, v in seen) == Counter(expected)


@given(st.integers(1, 40), st.integers(0, 2**64 - 1), st.integers(0, 5), st.sampled_from([2, 4, 6]))
def test_groups_hold_everyone_once_and_partners_are_mutual(n: int, seed: int, cycle: int, group: int) -> None:
    o = order([n], seed, group=group)
    groups = o.groups(0, cycle)
    assert sorted(groups[groups != ALONE]) == list(range(n))
    assert groups.shape == (-(-n // group), group) and (groups[:-1] != ALONE).all()
    partners = o.partners(0, range(3 * cycle, 3 * cycle + 3))
    for of_view in partners:
        paired = np.flatnonzero(of_view != ALONE)
        assert (of_view[of_view[paired]] == paired).all() and (of_view[paired] != paired).all()
        home = {sample: number for number, members in enumerate(groups.tolist()) for sample in members}
        assert all(home[sample] == home[of_view[sample]] for sample in paired.tolist())


@pytest.mark.parametrize(("group", "partners"), [(2, 1), (4, 3), (6, 3)])
def test_each_view_of_a_cycle_has_other_partners_in_its_group(group: int, partners: int) -> None:
    met = order([12], group=group).partners(0, range(3)).T
    assert (met != ALONE).all() and {len(set(of_sample)) for of_sample in met.tolist()} == {partners}


def test_epochs_of_a_cycle_have_the_same_length_to_one_group() -> None:
    for group in (2, 4):
        lengths = {len(order([11, 13, 9, 7], group=group).epoch(e)) for e in range(3)}
        assert max(lengths) - min(lengths) <= 3 * group + 9 * (group > 2)  # not every group is full


@pytest.mark.parametrize("group", [2, 4])
def test_all_views_of_a_group_follow_each_other(group: int) -> None:
    rows = order([8], group=group).epoch(0)
    for start in range(0, len(rows), 3 * group):
        part = rows[start : start + 3 * group]
        assert part.view.tolist() == [view for view in range(3) for _ in range(group)]
        assert len(set(part.sample.tolist())) == group and part.sample[::2].tolist() == part.partner[1::2].tolist()


def test_pairs_and_seeds_belong_to_the_shard_and_not_to_its_place() -> None:
    both = Order(seed=3, shards=["a.tar", "b.tar"], samples=[9, 9], recipe=named("deit"))
    swapped = Order(seed=3, shards=["b.tar", "a.tar"], samples=[9, 9], recipe=named("deit"))
    assert both.groups(0, 1).tolist() == swapped.groups(1, 1).tolist() != both.groups(1, 1).tolist()
    assert sample_seeds(3, "a.tar", 5).tolist() == sample_seeds(3, "a.tar", 9)[:5].tolist()
    assert not set(sample_seeds(3, "a.tar", 9)) & set(sample_seeds(3, "b.tar", 9))


def test_epochs_and_cycles_are_shuffled_anew() -> None:
    o = order([30])
    assert tuples(o.epoch(0)) != tuples(o.epoch(3)) and o.groups(0, 0).tolist() != o.groups(0, 1).tolist()


def test_a_window_keeps_few_shards_in_use() -> None:
    rows = order([30] * 8, window=2, group=2).epoch(0)
    assert all(len(set(rows.shard[i : i + 60].tolist())) <= 2 for i in range(0, len(rows), 60))
    assert len(set(order([30] * 8, group=2).epoch(0).shard[:60].tolist())) > 2


@given(st.lists(st.integers(1, 20), min_size=3, max_size=9), st.integers(1, 4), st.integers(0, 3))
def test_with_a_window_a_cycle_asks_for_each_shard_in_one_epoch(samples: list[int], window: int, cycle: int) -> None:
    o = order(samples, window=window)
    shards = [set(o.epoch(3 * cycle + phase).shard.tolist()) for phase in range(3)]
    assert sorted(shard for of_epoch in shards for shard in of_epoch) == list(range(len(samples)))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert o.sizes(9) == [len(o.epoch(epoch)) for epoch in range(9)]


def test_in_a_window_other_shards_follow_in_each_cycle() -> None:
    o = order([4] * 12, window=2)
    assert len({frozenset(o.epoch(3 * cycle).shard.tolist()) for cycle in range(8)}) > 4


def test_without_mixing_everyone_is_alone() -> None:
    rows = order([7, 8], recipe="crop").epoch(0)
    assert len(rows) == 15 and set(rows.partner.tolist()) == {ALONE}


def test_in_sequence_is_every_sample_once() -> None:
    assert tuples(in_sequence([2, 0, 1])) == [(0, 0, ALONE, 0), (0, 1, ALONE, 0), (2, 0, ALONE, 0)]


def test_slices_of_rows_are_rows() -> None:
    rows = order([10]).epoch(0)
    joined = [row for batch in rows.batches(4) for row in tuples(batch)]
    assert joined == tuples(rows)
    assert tuples(rows[np.array([1, 0])]) == [tuples(rows)[1], tuples(rows)[0]]


@given(SIZES, st.integers(0, 11), st.sampled_from(["deit", "crop", "mixup=0"]))
def test_the_size_of_an_epoch_is_known_before_it_is_drawn(samples: list[int], epoch: int, recipe: str) -> None:
    o = order(samples, recipe=recipe.partition("mixup")[0] or "deit")
    if recipe == "mixup=0":
        o = replace(o, recipe=replace(o.recipe, mix_prob=0.0))
    assert o.size(epoch) == len(o.epoch(epoch))
