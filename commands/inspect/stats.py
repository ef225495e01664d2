"""`distillcache inspect stats`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ...runtime.paths import AnyPath, require_output
from ..options import as_json_flag, say, store_argument, with_options
from ..paths import PATH
from ..progress import bar
from ..tables import print_table

if TYPE_CHECKING:
    from ...inspection.stats import Stats


@click.command("stats")
@with_options(store_argument)
@click.option("--plot", type=PATH, help="Also draw charts into this PNG file.")
@click.option("--rows", type=click.IntRange(1, 1000), default=10, show_default=True, help="Lines of each table.")
@with_options(as_json_flag)
def inspect_stats(cache: AnyPath, plot: AnyPath | None, rows: int, as_json: bool) -> None:
    """Say how often the teacher agrees with the ground truth, where it does not, and where it is in doubt.

    \b
    Example: distillcache inspect stats regnety.zarr --plot stats.png
    """
    from ...inspection import charts
    from ...inspection.stats import stats
    from ..opening import open_store

    if plot:
        require_output("plot", plot, ".png")
    store = open_store(cache)
    with bar("stats", len(store.counts), "shards") as shown:
        found = stats(store, reporter=shown)
    if plot:
        charts.plot(found, plot, f"{store.manifest.teacher.name} on {found.samples:,} samples, {found.views:,} views")
    if as_json:
        say(json.dumps(asdict(found), indent=2))
    else:
        _print_stats(found, rows)


def _print_stats(found: "Stats", rows: int) -> None:
    views = [share for share in found.by_view if share is not None]
    say(f"{found.samples:,} samples, {found.views:,} labels")
    neither = 1 - found.agreement - found.partner
    say(f"{found.agreement:.1%} are the target, {found.partner:.1%} the partner's, {neither:.1%} neither")
    say(f"by view: {min(views):.1%} to {max(views):.1%}; {found.entropy:.2f} bits of doubt a sample")
    groups = [[g.kind, "any", g.views, g.agreement, g.partner] for g in found.by_mix]
    groups += [[g.kind, f"{g.low:.1f} to {g.high:.1f}", g.views, g.agreement, g.partner] for g in found.by_lambda]
    header = ["mix", "lambda", "views", "target", "partner's"]
    print_table("by mix and lambda, the share of the own view", header, groups)
    classes = sorted((c for c in found.by_class if c.agreement is not None), key=lambda c: c.agreement or 0.0)
    lowest = [[c.number, c.name, c.samples, c.agreement, c.views, c.labels] for c in classes[:rows]]
    header = ["class", "name", "samples", "agreement", "its views", "said"]
    print_table(f"classes that it agrees with least, of {len(classes):,}", header, lowest)
    pairs = [[c.target, c.target_name, c.label, c.label_name, c.views] for c in found.confusions[:rows]]
    print_table("taken for another class, where no mix explains it", ["target", "", "label", "", "views"], pairs)
    doubts = [
        [d.shard, d.key, f"{d.target} {d.target_name}", f"{d.label} {d.label_name}", d.share]
        for d in found.never_agreed[:rows]
    ]
    header = ["shard", "key", "target", "says most often", "share"]
    print_table(f"never agreed with in any view: {found.never:,} samples, worth a look", header, doubts)
