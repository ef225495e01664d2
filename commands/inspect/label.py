"""`distillcache inspect label`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ...runtime.paths import AnyPath
from ..options import as_json_flag, printable, say, store_argument, with_options
from ..tables import table

if TYPE_CHECKING:
    from ...inspection.lookup import SampleLabels


@click.command("label")
@with_options(store_argument, click.argument("key"), as_json_flag)
def inspect_label(cache: AnyPath, key: str, as_json: bool) -> None:
    """Print what the teacher said of each view of the sample KEY.

    \b
    Example: distillcache inspect label regnety.zarr n01440764_10026
    """
    from ...inspection.lookup import find, label
    from ..opening import open_store

    store = open_store(cache)
    found = label(store, find(store, key))
    if as_json:
        say(json.dumps(asdict(found) | {"agreement": found.agreement}, indent=2))
    else:
        _print_labels(found)


def _print_labels(found: "SampleLabels") -> None:
    from ...inspection.relations import MARKS, lambda_text

    agreement = "" if found.agreement is None else f"; the teacher says that in {found.agreement:.0%} of its views"
    rows, colors = [], []
    for view in found.views:
        label = f"{view.label} {view.label_name}" if view.label is not None else "not cached"
        theirs = f"{view.partner}: {view.partner_target} {view.partner_target_name}"
        partner = "-" if view.partner is None else theirs
        mark = MARKS.get(view.relation or "", "")
        rows.append([view.view, view.mix, lambda_text(view.lam), mark, label, partner])
        colors.append({"=": "green", "!": "red"}.get(mark))
    heading = f"{found.key} in {found.shard}: target {found.target} {found.target_name}{agreement}"
    say(printable(heading, keep="") + "\n")
    click.echo(table(["view", "mix", "lambda", "", "label", "partner"], rows, colors=colors))
    say("\n= the target, ~ the partner's, ! neither")
    top = [
        [view.view, ", ".join(f"{name.partition(',')[0] or number} {share:.0%}" for number, name, share in view.topk)]
        for view in found.views
        if view.topk
    ]
    if top:
        click.echo("\n" + table(["view", "most likely"], top))
