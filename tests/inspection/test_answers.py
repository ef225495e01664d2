"""What the report says of a teacher, in a word and what it rests on."""

import pytest

from distillcache.inspection.answers import is_the_teacher_right
from distillcache.inspection.stats import Class, Group, Stats

CLASSES = [Class(number=i, name="", samples=1, views=1, agreement=0.5, labels=1) for i in range(10)]


def stats(agreement: float) -> Stats:
    """Ten classes; of views that are hardly mixed the teacher says the target in `agreement`, of the others seldom."""
    whole = Group(kind="mixup", low=0.9, high=1.0, views=100, agreement=agreement, partner=0.0)
    mixed = Group(kind="mixup", low=0.1, high=0.2, views=300, agreement=0.1, partner=0.7)
    return Stats(agreement=0.2, partner=0.5, by_lambda=[mixed, whole], by_class=CLASSES)


@pytest.mark.parametrize(
    ("agreement", "top1", "answer"),
    [
        (0.8, None, "Mostly, in 80.0%"),
        (0.5, None, "Often, in 50.0%"),
        (0.3, None, "Seldom, in 30.0%"),
        (0.3, 92.0, "Mostly, in 92.0%"),
        (0.8, 60.0, "Often, in 60.0%"),
        (0.1, None, "No, in 10.0%"),
        (0.1, 92.0, "No, in 10.0%"),
    ],
)
def test_held_out_images_count_where_they_were_measured_but_for_labels_of_chance(
    agreement: float, top1: float | None, answer: str
) -> None:
    right = is_the_teacher_right(stats(agreement), top1)
    assert right.answer == answer
    assert f"{agreement:.1%} of views that show little" in f"{right.answer} {right.because}"
    assert ("its top-1" in right.because) == (top1 is not None and not answer.startswith("No"))
