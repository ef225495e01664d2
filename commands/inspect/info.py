"""`distillcache inspect info`."""

import json

import click

from ...runtime.paths import AnyPath
from ..options import as_json_flag, say, store_argument, with_options


@click.command("info")
@with_options(store_argument, as_json_flag)
def inspect_info(cache: AnyPath, as_json: bool) -> None:
    """Say what the store is, how full, and how large.

    \b
    Example: distillcache inspect info regnety.zarr
    """
    from ...inspection.info import info, info_text
    from ..opening import open_store

    store = open_store(cache)
    say(json.dumps(info(store), indent=2) if as_json else info_text(store))
