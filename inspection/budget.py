"""What caching and training cost, beside asking the teacher at every step: hours, money and requests."""

import math
from dataclasses import dataclass

from ..cache.estimate import Estimate

_BLOCK = 1 << 22
"""Bytes that one request of a far shard brings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Of `gpus` devices of one kind; hours are of the clock, with all of them at work."""

    gpus: int
    stage1_hours: float
    student_hours: float
    """One student's, for as many epochs as there are views."""
    online_hours: float
    """One student's whose teacher is asked at every step."""
    price: float | None
    """Of one device for an hour."""
    stage1_requests: int
    """That fetch the shards once, where they are far away."""
    student_requests: int
    """That read labels and checks, chunk by chunk, where the store is far away; the mirror holds the shards by then."""

    @property
    def pays_from(self) -> int:
        """The number of students from which on caching takes fewer hours than asking the teacher for each of them."""
        saved = self.online_hours - self.student_hours
        return math.floor(self.stage1_hours / saved + 1e-9) + 1

    def cost(self, hours: float) -> float | None:
        """Return what so many hours of all devices cost, if the price is known."""
        return None if self.price is None else hours * self.gpus * self.price


def budget(
    estimated: Estimate,
    *,
    gpus: int,
    views_per_second: float,
    teacher_views_per_second: float,
    images_per_second: float,
    shard_nbytes: int,
    price: float | None = None,
) -> Budget:
    """Return the budget of a store and of students of it, from the speeds of one device.

    `views_per_second` is stage 1's, `teacher_views_per_second` that of the teacher alone, `images_per_second` that of a
    student's training on ready views. All views are labelled once; a student sees each once.
    """
    views = estimated.samples * estimated.views
    hours = 1 / (3600 * gpus)
    return Budget(
        gpus=gpus,
        stage1_hours=views / views_per_second * hours,
        student_hours=views / images_per_second * hours,
        online_hours=views * (1 / images_per_second + 1 / teacher_views_per_second) * hours,
        price=price,
        stage1_requests=-(-shard_nbytes // _BLOCK),
        student_requests=2 * estimated.shards * estimated.blocks,
    )
