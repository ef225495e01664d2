"""`distillcache inspect keys`."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from ...runtime.paths import AnyPath
from ..options import as_json_flag, filter_options, printable, say, store_argument, with_options
from ..progress import bar
from ..tables import table


@click.command("keys")
@with_options(store_argument, *filter_options)
@click.option(
    "--agreement-below",
    type=click.FloatRange(0, 1),
    help="Only samples whose target the teacher says in a smaller share of their views; lowest first.",
)
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@with_options(as_json_flag)
def inspect_keys(
    cache: AnyPath, agreement_below: float | None, limit: int | None, as_json: bool, **filters: Sequence[str]
) -> None:
    """List samples: shard, key, target, and with --agreement-below how often the teacher agrees.

    On a terminal as a table, elsewhere with tabs between the columns.

    \b
    Example: distillcache inspect keys regnety.zarr --class 'tabby' --agreement-below 0.2
    """
    from ...inspection.lookup import Filter, agreement, listed
    from ..opening import open_store

    store = open_store(cache)
    chosen, shares = Filter(**filters).select(store), None
    if agreement_below is not None:
        with bar("keys", int(chosen.any(axis=1).sum()), "shards") as shown:
            shares = agreement(store, chosen, reporter=shown)
        chosen &= shares.target < agreement_below
    found = listed(store, chosen, shares, limit)
    if as_json:
        click.echo(json.dumps([dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]))
    elif not found["key"]:
        say("no such samples", err=True)
    elif sys.stdout.isatty():
        click.echo(table(list(found), list(zip(*found.values(), strict=True))))
    else:  # for other programs; of ImageNet a million lines
        columns = [_texts(values) for values in found.values()]
        click.echo("\n".join(map("\t".join, zip(*columns, strict=True))))


def _texts(values: list[Any]) -> list[str]:
    """Return a column as printable texts."""
    if not isinstance(values[0], str):
        return list(map(str, values))
    return values if "".join(values).isprintable() else [printable(value, keep="") for value in values]
