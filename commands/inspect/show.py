"""`distillcache inspect show`."""

from collections.abc import Sequence
from pathlib import Path

import click

from ...runtime.errors import InputError
from ...runtime.paths import AnyPath, require_output
from ..mirror import mirror_options
from ..options import (
    copy_option,
    printable,
    say,
    store_argument,
    views_named,
    was_given,
    with_options,
)
from ..paths import PATH
from ..shards import stored_samples


@click.command("show")
@with_options(store_argument, click.argument("keys", nargs=-1, required=True), copy_option, *mirror_options)
@click.option("--out", type=PATH, default=Path("grid.png"), show_default=True, help="A PNG file.")
@click.option("--views", default="8", show_default=True, help="How many views of each sample, or which: FIRST:END.")
@click.option("--steps", is_flag=True, help="A row a view: from the original, step by step, to the mixed view.")
@click.option("--plan", is_flag=True, help="Also print the steps in words.")
def inspect_show(
    cache: AnyPath, keys: Sequence[str], shards: Sequence[str], out: AnyPath, views: str, steps: bool, plan: bool
) -> None:
    """Draw the samples KEYS and their views, as the teacher saw them, into one picture.

    \b
    Example: distillcache inspect show regnety.zarr n01440764_10026 --shards 'train-*.tar' --out grid.png
             distillcache inspect show regnety.zarr n01440764_10026 --shards 'train-*.tar' --views 3:4 --steps --plan
    """
    from ...inspection.lookup import find
    from ...inspection.pictures import plan_in_words, show
    from ...runtime import atomic
    from ..opening import open_store

    require_output("out", out, ".png")
    store = open_store(cache)
    samples, wanted = stored_samples(store, shards), _views(views, store.views)
    picture = show(store, keys, samples, wanted, steps=steps)
    atomic.write(out, lambda file: picture.save(file, "PNG"))
    for key in keys if plan else ():
        plans = plan_in_words(store, find(store, key), samples, wanted)
        lines = [f"view {view}: {words}" for view, words in zip(wanted, plans, strict=True)]
        say("\n  ".join(printable(line, keep="") for line in (key, *lines)))
    say(f"{out}: {len(keys)} sample{'s' * (len(keys) > 1)}")


def _views(text: str, cached: int) -> range:
    """Return the first so many views, or those that FIRST:END names; of the default as many as there are."""
    if not text.isdecimal():
        return views_named(text, cached)
    count = int(text) if was_given("views") else min(int(text), cached)
    if not 1 <= count <= cached:
        raise InputError("`views`", f"1 to {cached}, or FIRST:END", count)
    return range(count)
