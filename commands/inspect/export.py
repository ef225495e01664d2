"""`distillcache inspect export`."""

from collections.abc import Sequence

import click

from ...runtime.paths import AnyPath, require_output
from ..options import filter_options, say, store_argument, with_options
from ..paths import PATH
from ..progress import bar


@click.command("export")
@with_options(store_argument, click.argument("out", type=PATH), *filter_options)
@click.option("--mixes", is_flag=True, help="Also columns for mix and lambda of each view.")
def inspect_export(cache: AnyPath, out: AnyPath, mixes: bool, **filters: Sequence[str]) -> None:
    """Write a row for each cached view to OUT: a .parquet, .csv or .npz file.

    \b
    Example: distillcache inspect export regnety.zarr labels.parquet --class tabby
    """
    from ...inspection.export import FORMATS, export
    from ...inspection.lookup import Filter
    from ..opening import open_store

    require_output("out", out, *FORMATS)
    store = open_store(cache)
    with bar("export", len(store.counts), "shards") as shown:
        rows = export(store, out, Filter(**filters), mixes=mixes, reporter=shown)
    say(f"{out}: {rows:,} rows, {out.stat().st_size:,} bytes")
