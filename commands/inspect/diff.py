"""`distillcache inspect diff`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ...runtime.paths import AnyPath
from ..options import as_json_flag, say, with_options
from ..paths import PATH
from ..progress import bar
from ..tables import print_table

if TYPE_CHECKING:
    from ...inspection.diff import Diff


@click.command("diff")
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@click.option("--rows", type=click.IntRange(1, 1000), default=10, show_default=True, help="Lines of each table.")
@with_options(as_json_flag)
def inspect_diff(first: AnyPath, second: AnyPath, rows: int, as_json: bool) -> None:
    """Compare what two teachers said of the same views: how often they differ, on which classes and samples.

    \b
    Example: distillcache inspect diff regnety_160.zarr regnety_040.zarr
    """
    from ...inspection.diff import diff
    from ..opening import open_store

    stores = open_store(first), open_store(second)
    with bar("diff", len(stores[0].counts), "shards") as shown:
        found = diff(*stores, reporter=shown)
    if as_json:
        say(json.dumps(asdict(found), indent=2))
    else:
        _print_diff(found, first, second, rows)


def _print_diff(found: "Diff", first: AnyPath, second: AnyPath, rows: int) -> None:
    say(f"{found.differing:,} of {found.views:,} views differ ({found.differing / found.views:.2%})")
    shares = f"{found.first_agreement:.1%} of the views in {first}, {found.second_agreement:.1%} in {second}"
    say(f"the label is the target in {shares}")
    pairs = [[p.first, p.first_name, p.second, p.second_name, p.views] for p in found.classes[:rows]]
    print_table("what the one says where the other says something else", ["first", "", "second", "", "views"], pairs)
    samples = [[s.shard, s.key, f"{s.target} {s.target_name}", s.differing, s.views] for s in found.samples[:rows]]
    print_table("samples on which they differ most", ["shard", "key", "target", "differing", "views"], samples)
