"""`distillcache inspect report`."""

from collections.abc import Sequence
from pathlib import Path

import click

from ...runtime.errors import InputError
from ...runtime.paths import AnyPath, require_output
from ..mirror import mirror_options
from ..options import filter_options, say, store_argument, was_given, with_options
from ..paths import PATH
from ..progress import bar
from ..shards import stored_samples


@click.command("report")
@with_options(store_argument)
@click.option("--shards", multiple=True, help="Paths, globs, braces or URLs of its shards.  [default: no pictures]")
@with_options(*filter_options[:2], *mirror_options)
@click.option("--out", type=PATH, default=Path("report.html"), show_default=True, help="The page.")
@click.option("--samples", type=click.IntRange(1), default=2000, show_default=True, help="Samples on the page.")
@click.option("--views", type=click.IntRange(1), default=6, show_default=True, help="Views of each.")
@click.option("--pictures", type=click.IntRange(0), default=100, show_default=True, help="Samples with pictures.")
def inspect_report(
    cache: AnyPath,
    shards: Sequence[str],
    out: AnyPath,
    keys: Sequence[str],
    classes: Sequence[str],
    samples: int,
    views: int,
    pictures: int,
) -> None:
    """Write one HTML page below 5 MB: is the store whole, is the teacher right, which samples deserve a look.

    Half of its samples, and of those with pictures, are those on which the teacher agrees least; the others are spread
    over the store. What is selected there becomes a CSV file for --exclude.

    \b
    Example: distillcache inspect report regnety.zarr --shards 'train-*.tar' --out report.html
    """
    from ...inspection.lookup import Filter
    from ...inspection.report import report
    from ..opening import open_store

    require_output("out", out, ".html")
    if pictures and not shards and was_given("pictures"):
        raise InputError("`pictures`", "shards to draw them from", "none", "add `shards`")
    store = open_store(cache)
    if views > store.views and was_given("views"):
        raise InputError("`views`", f"1 to {store.views}", views)
    images = stored_samples(store, shards) if shards else None
    with bar("report", 3 * len(store.counts) + (pictures if shards else 0), "steps") as shown:
        drawn = report(
            store,
            images,
            out,
            Filter(keys=keys, classes=classes),
            count=samples,
            views=views,
            pictures=pictures,
            reporter=shown,
        )
    say(f"{out}: {out.stat().st_size:,} bytes, pictures of {drawn:,} samples")
