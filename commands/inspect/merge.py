"""`distillcache inspect merge`."""

from collections.abc import Sequence
from pathlib import Path

import click

from ..options import say
from ..paths import LOCAL_PATH
from ..progress import bar


@click.command("merge")
@click.argument("out", type=LOCAL_PATH)
@click.argument("stores", nargs=-1, required=True, type=LOCAL_PATH)
def inspect_merge(out: Path, stores: Sequence[Path]) -> None:
    """Write the store OUT from STORES that hold different shards, or different views, of one plan.

    They must have the same recipe, seed and teacher. What several hold must be the same in all.

    \b
    Example: distillcache inspect merge whole.zarr machine1.zarr machine2.zarr
    """
    from ...cache.merge import merge
    from ...inspection.info import info_text
    from ..opening import open_store

    opened = [open_store(path) for path in stores]
    units = sum(len(store.blocks) * len(store.counts) for store in opened)
    with bar("merge", units, "units") as shown:
        merged = merge(out, opened, reporter=shown)
    say(info_text(merged))
