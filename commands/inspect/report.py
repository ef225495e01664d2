"""`distillcache inspect report`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..options import filter_options, require_output, say, shards_option, store_argument, with_options
from ..progress import bar


@click.command("report")
@with_options(store_argument, shards_option, *filter_options[:2])
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True, help="The page."
)
@click.option("--samples", type=click.IntRange(0, 1000), default=100, show_default=True, help="Samples in the gallery.")
@click.option("--views", type=click.IntRange(1, 24), default=6, show_default=True, help="Views of each.")
def inspect_report(cache: Path, shards: Sequence[str], out: Path, **options: Any) -> None:
    """Write one HTML page, with everything in it: what the store is, charts, and a gallery of views to filter.

    Half of the gallery are samples on which the teacher disagrees most, the others are spread over the store.

    \b
    Example: distillcache inspect report regnety.zarr --shards 'train-*.tar' --out report.html
    """
    from ...cache.store import Store
    from ...datasets.shards.files import expand
    from ...inspection.lookup import Filter
    from ...inspection.report import report

    require_output("out", out, ".html")
    store = Store(cache)
    samples, wanted = store.samples(expand(shards)), Filter(keys=options["keys"], classes=options["classes"])
    with bar("report", 2 * len(store.counts) + options["samples"], "steps") as shown:
        report(store, samples, out, wanted, count=options["samples"], views=options["views"], progress=shown.update)
    say(f"{out}: {out.stat().st_size:,} bytes")
