"""Where the time of a view goes, on one core: microseconds a view of each part, at repeats 1 and 3.

    python bench/view_time.py

Timers around the parts cost a few percent themselves; parts in parentheses lie within the one above.
"""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from figures import on_cores, photo_shards

from distillcache.datasets import views
from distillcache.datasets.augment import ops, pixels
from distillcache.datasets.augment.recipes import named
from distillcache.datasets.order import Order
from distillcache.datasets.samples import Samples, samples_of
from distillcache.datasets.shards.index import index_shards

PARTS: tuple[tuple[str, Any, str], ...] = (
    ("read the file", Samples, "read"),
    ("decode the JPEG", pixels, "decode"),
    ("plan the view", views, "plan_view"),
    ("plan the mix", views, "plan_mix"),
    ("crop and resize", pixels, "_crop"),
    ("(torch's resize alone)", torch.nn.functional, "interpolate"),
    ("RandAugment's two ops", pixels, "apply_op"),
    ("(rotations alone)", ops.OPS, "Rotate"),
    ("erase", pixels, "_erase"),
    ("mix", pixels, "mix"),
    ("check", pixels, "check"),
)


def main() -> None:
    on_cores(1)
    columns = [profile(1), profile(3)]
    print(f"{'microseconds a view':<24}{'repeats 1':>10}{'repeats 3':>10}")
    for name in columns[0]:
        print(f"{name:<24}" + "".join(f"{column[name]:>10.0f}" for column in columns))


def profile(repeats: int) -> dict[str, float]:
    recipe, indexes = named("deit", overrides=[f"repeats={repeats}"]), index_shards(photo_shards(Path("runs/bench")))
    samples = samples_of(indexes, 0)
    names = [index.shard.name for index in indexes]
    order = Order(seed=0, shards=names, samples=samples.count.tolist(), recipe=recipe)
    batches = [b for shard in range(len(names)) for b in order.unit(shard, range(3)).batches(64)]
    render, count = views.Renderer(recipe, samples), sum(len(batch) for batch in batches)

    def seconds() -> float:
        started = time.perf_counter()
        for batch in batches:
            render(batch)
        return time.perf_counter() - started

    seconds()
    spent: Counter[str] = Counter()
    whole = min(seconds() for _ in range(3))

    def timed(name: str, part: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return part(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - started  # type: ignore[assignment]

        return measured

    for name, owner, attribute in PARTS:
        if isinstance(owner, dict):
            patch.dict(owner, {attribute: timed(name, owner[attribute])}).start()
        else:
            patch.object(owner, attribute, timed(name, getattr(owner, attribute))).start()
    seconds()
    patch.stopall()
    return {name: spent[name] / count * 1e6 for name, _, _ in PARTS} | {"whole, without timers": whole / count * 1e6}


if __name__ == "__main__":
    main()
