"""`distillcache inspect merge`."""

from collections.abc import Sequence

import click

from ...runtime.paths import AnyPath
from ..options import say
from ..paths import PATH
from ..progress import bar


@click.command("merge")
@click.argument("out", type=PATH)
@click.argument("stores", nargs=-1, required=True, type=PATH)
def inspect_merge(out: AnyPath, stores: Sequence[AnyPath]) -> None:
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
