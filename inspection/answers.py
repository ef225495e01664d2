"""What the report says first: is the store whole, is the teacher right, which samples deserve a look."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .stats import Stats

_SELDOM = 0.2
"""Share of its views below which a sample's target is said so seldom that it deserves a look."""
_MOSTLY, _OFTEN = 0.75, 0.4
"""Shares from which a teacher is mostly right, or often."""
_NEARLY_WHOLE = 0.9
"""Lambda from which a view shows little but its own sample."""

_LITTLE = 0.05
"""Of the way from chance to always: a teacher that is not even so far does not know these classes."""


class Answer(NamedTuple):
    """A question, its answer in a word or a few, and what that rests on."""

    question: str
    answer: str
    because: str


def is_it_whole(facts: dict[str, Any]) -> Answer:
    """Return whether all labels are there that were asked for, from the facts of `info`."""
    labels, missing = facts["labels"], facts["labels_missing"]
    asked = f"{facts['samples']:,} samples in {facts['views']:,} views each"
    if facts["complete"]:
        return Answer("Is the store whole?", "Yes", f"all {labels:,} labels are there, of {asked}")
    share = int(1000 * labels / (labels + missing)) / 10  # cut off: what is not whole is never 100%
    filling = f"fill it with the command here, the shards named with their folder: {facts['fill_with']}"
    because = f"{labels:,} labels are there and {missing:,} missing, of {asked}; {filling}"
    return Answer("Is the store whole?", f"No, {share}% of it", because)


def is_the_teacher_right(stats: Stats, top1: float | None) -> Answer:
    """Return how often the teacher says the target: of held-out images, or else of views that show little else.

    Views are augmented, which lowers it: only where it is hardly above chance does it say that something is wrong.
    """
    nearly_whole = [group for group in stats.by_mix if group.kind == "none"]
    nearly_whole += [group for group in stats.by_lambda if group.low >= _NEARLY_WHOLE]
    views = sum(group.views for group in nearly_whole)
    because = (
        f"of all labels {stats.agreement:.1%} are the target, {stats.partner:.1%} the partner's and "
        f"{1 - stats.agreement - stats.partner:.1%} neither"
    )
    share = stats.agreement
    if views:
        share = sum(group.agreement * group.views for group in nearly_whole) / views
        because = f"of views that show little but their own sample (lambda from {_NEARLY_WHOLE} on); {because}"
    chance = 1 / len(stats.by_class)
    if share - chance < _LITTLE * (1 - chance):
        return Answer(
            "Is the teacher right?",
            f"No, in {share:.1%}",
            f"{because}; that is little more than chance: are the shards' class numbers the teacher's?",
        )
    if top1 is None:
        return Answer("Is the teacher right?", f"{_how_often(share)}, in {share:.1%}", because)
    because = f"of held-out images, its top-1; here it says the target in {share:.1%} {because}"
    return Answer("Is the teacher right?", f"{_how_often(top1 / 100)}, in {top1:.1f}%", because)


def _how_often(share: float) -> str:
    return "Mostly" if share >= _MOSTLY else "Often" if share >= _OFTEN else "Seldom"


def which_deserve_a_look(agreement: NDArray[np.float64]) -> Answer:
    """Return how many samples get their target never, or seldom; agreement (shard, sample) is NaN where unknown."""
    never, seldom = int((agreement == 0).sum()), int((agreement < _SELDOM).sum())
    if not seldom:
        because = f"every sample gets its target in {_SELDOM:.0%} of its views or more"
        return Answer("Which samples deserve a look?", "None stands out", because)
    because = f"samples get their target in none of their views, {seldom - never:,} more in less than {_SELDOM:.0%}"
    return Answer("Which samples deserve a look?", f"{never:,}", f"{because}; the lowest are listed below")
