"""The options of the mirror, for every command that reads shards, and `distillcache mirror`."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ..runtime.errors import InputError
from .options import as_json_flag, say, with_options
from .paths import LOCAL_FOLDER
from .progress import bar
from .tables import table

if TYPE_CHECKING:
    from ..datasets.shards.mirror import Entry, Mirror

_KEPT = f"{__name__}.mirror"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Size(click.ParamType[int]):
    """A number of bytes, such as 200G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; ValueError for what is none."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", value.strip().upper())
        if not found or not (size := int(float(found[1]) * _UNITS[found[2]])):
            raise InputError("`mirror_size`", "a size such as 200G or 500M", repr(value))
        return size


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    context.meta[f"{_KEPT}.{parameter.name}"] = value


def _ask_for(context: click.Context, parameter: click.Parameter, seconds: float) -> None:
    from ..runtime.remote import Patience

    Patience.retry_for = seconds


mirror_options = (
    click.option(
        "--mirror",
        type=LOCAL_FOLDER,
        callback=_keep,
        expose_value=False,
        help="Folder for what comes from far away.  [default: distillcache in the user's cache folder]",
    ),
    click.option(
        "--mirror-size",
        type=Size(),
        callback=_keep,
        expose_value=False,
        help="Bytes it may hold, such as 200G.  [default: half of what is free]",
    ),
    click.option(
        "--retry-for",
        type=click.FloatRange(0),
        default=300.0,
        show_default=True,
        callback=_ask_for,
        expose_value=False,
        help="Seconds for which a server that fails is asked again.",
    ),
)


def mirror_for(shards: Sequence[str], *, tell: bool = True) -> "Mirror":
    """Return the mirror that the command's options name, and `tell` of it if any of `shards` comes from far away."""
    from ..datasets.shards.files import is_local
    from ..datasets.shards.mirror import Mirror

    meta = click.get_current_context().meta
    if _KEPT not in meta:
        folder, limit = (meta.get(f"{_KEPT}.{name}") for name in ("mirror", "mirror_size"))
        meta[_KEPT] = Mirror(folder, limit)
    kept: Mirror = meta[_KEPT]
    if tell and not meta.get(f"{_KEPT}.said") and not all(map(is_local, shards)):
        meta[f"{_KEPT}.said"] = True
        held = f"{kept.nbytes():,} of at most {kept.limit:,} bytes"
        say(f"what comes from far away is kept in {kept.folder}: {held}", err=True)
    return kept


@click.command("mirror")
@with_options(*mirror_options)
@click.option("--prefetch", multiple=True, metavar="SHARDS", help="Fetch these: paths, globs, braces or URLs.")
@click.option("--verify", is_flag=True, help="Read all of it; what is damaged is removed.")
@click.option("--empty", is_flag=True, help="Remove all that no process uses.")
@with_options(as_json_flag)
def mirror(prefetch: Sequence[str], verify: bool, empty: bool, as_json: bool) -> None:
    """List what the mirror holds of shards from far away; fetch ahead, verify or empty it.

    \b
    Example: distillcache mirror --prefetch 's3://bucket/train-{000000..001023}.tar' --mirror /nvme/shards
    """
    from ..datasets.shards.files import expand, is_local

    kept = mirror_for(prefetch)
    if prefetch:
        urls = [url for url in expand(prefetch) if not is_local(url)]
        with bar("fetching", len(urls), "shards") as shown:
            kept.prefetch(urls, reporter=shown)
    damaged = []
    if verify:
        with bar("verifying", len(kept.entries()), "shards") as shown:
            for entry in kept.entries():
                if not kept.is_sound(entry):
                    damaged.append(entry)
                shown.advance()
    removed = kept.empty() if empty else 0
    entries = kept.entries()
    if as_json:
        found = {"folder": str(kept.folder), "limit": kept.limit, "bytes": kept.nbytes(), "removed_bytes": removed}
        found |= {"shards": [asdict(entry) for entry in entries], "damaged": [asdict(entry) for entry in damaged]}
        say(json.dumps(found, indent=2))
    else:
        say(f"{kept.folder}: {kept.nbytes():,} of at most {kept.limit:,} bytes, {len(entries):,} shards")
        if entries:
            click.echo(table(("bytes", "last used", "from"), [_row(entry) for entry in entries]))
        if empty:
            say(f"removed {removed:,} bytes")
        for entry in damaged:
            say(f"damaged, and removed: {' '.join(entry.urls) or entry.sha256}")
    if damaged:
        sys.exit(1)


def _row(entry: "Entry") -> tuple[int, str, str]:
    used = datetime.fromtimestamp(entry.used).isoformat(" ", "seconds")
    return entry.nbytes, used, " ".join(entry.urls) or f"SHA-256 {entry.sha256[:16]}"
