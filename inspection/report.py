"""One self-contained HTML page about a store: three answers, charts, the samples to look at, and a gallery of views."""

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.store import Store
from ..datasets.augment.mixes import KINDS
from ..datasets.samples import Samples
from ..runtime import atomic
from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from ..runtime.reporting import SILENT, Reporter
from . import svg
from .answers import Answer, is_it_whole, is_the_teacher_right, which_deserve_a_look
from .gallery import TILE, all_there, choose, columns, picture
from .info import block_sizes, completeness, info, info_text, names_in_braces
from .lookup import Agreement, Filter, Position, agreement
from .relations import MARKS, RELATIONS
from .stats import Class, Stats, stats

MOST_VIEWS = 100_000
"""On one page."""
_BYTES = 4_800_000  # of a page; pictures take what the rest leaves
_PIXELS = 200 * 6 * TILE**2  # of all pictures together
_LISTED = 20  # samples of the lowest agreement, and lines of each ranking
_HERE = Path(__file__).parent


def report(
    store: Store,
    samples: Samples | None,
    out: AnyPath,
    wanted: Filter,
    *,
    count: int = 2000,
    views: int = 6,
    pictures: int = 100,
    reporter: Reporter = SILENT,
) -> int:
    """Write the page to `out`, with `views` of each of `count` samples out of those `wanted`.

    Half of them are those on which the teacher agrees least, the others are spread over the store. Of `pictures` of
    them, by the same rule, the views are drawn where `samples` are given, until the page is nearly 5 MB. Keys and class
    names are only ever text. Returns how many samples have pictures. Raises ValueError if there are no labels or too
    many views are asked for, or for an image that can't be read.
    """
    if count * views > MOST_VIEWS:
        asked = f"{count:,} samples of {views}"
        raise InputError("`samples`", f"at most {MOST_VIEWS:,} views on a page", asked, "ask for fewer")
    found = stats(store, reporter=reporter)
    chosen = wanted.select(store)
    shares = agreement(store, chosen, reporter=reporter)
    positions = sorted(choose(chosen, shares, max(count, 2 * _LISTED)))
    data = columns(store, positions, shares, views, reporter=reporter)
    template, parts = _template(), _parts(store, found, shares, data)
    drawn: dict[int, Any] = {}
    if samples is not None:
        some = np.zeros_like(chosen)
        some[tuple(np.array(positions).T)] = True
        room = _BYTES - len(template) - sum(map(len, parts.values()))
        numbers = [positions.index(position) for position in choose(some, shares, pictures)]
        drawn = _pictures(store, samples, positions, numbers, data, room, reporter)
    parts["pictures"] = _json(drawn)
    page = re.sub(r"<!--(\w+)-->", lambda place: parts[place[1]], template)  # in one pass: what is put in stays
    atomic.write_text(out, page)
    return len(drawn)


def _template() -> str:
    """Return the page with its style and its script in it, and in its policy the script's digest."""
    page, style, script = ((_HERE / f"report.{suffix}").read_text() for suffix in ("html", "css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page.replace("/*style*/", style).replace("/*script*/", script).replace("/*digest*/", digest)


def _parts(store: Store, found: Stats, shares: Agreement, data: dict[str, list[Any]]) -> dict[str, str]:
    """Return what stands in the template's places, by their names, but for the pictures."""
    facts = info(store)
    answers = (
        is_it_whole(facts),
        is_the_teacher_right(found, facts["teacher_top1"]),
        which_deserve_a_look(shares.target),
    )
    names = {
        "classes": store.manifest.class_names,
        "shards": store.manifest.shard_names,
        "kinds": KINDS,
        "relations": RELATIONS,
        "marks": [MARKS[relation] for relation in RELATIONS],
        "store": str(store.path),
        "pattern": names_in_braces(store.manifest.shard_names),
    }
    packed = zlib.compress(_json(data | names).encode(), 9)
    return {
        "title": escape(f"What {Path(store.manifest.teacher.name).name} said: {store.path.name}"),
        "answers": "".join(map(_answer, answers)),
        "facts": escape(info_text(store)),
        "open": "" if facts["complete"] else "open",
        "completeness": svg.heat_map(completeness(store) / block_sizes(store)[:, None], "shards", "blocks of views"),
        "charts": _charts(found),
        "classes": _classes(found),
        "confusions": _confusions(found),
        "lowest": _lowest(store, data),
        "data": base64.b64encode(packed).decode(),
    }


def _pictures(
    store: Store,
    samples: Samples,
    positions: Sequence[Position],
    numbers: Sequence[int],
    data: dict[str, list[Any]],
    room: int,
    reporter: Reporter,
) -> dict[int, Any]:
    """Return by number the pictures of some of the samples at `positions`, as many as there is `room` for in bytes."""
    first = np.concatenate([[0], np.cumsum(data["views"])]).tolist()
    cells = max(1, sum(data["views"][number] for number in numbers))
    tile = min(TILE, store.manifest.recipe.size, int(math.sqrt(_PIXELS / cells)))
    drawn: dict[int, Any] = {}
    for number in numbers:
        views = data["view"][first[number] : first[number + 1]]
        if not all_there(store, positions[number], samples, views):
            continue
        one = picture(store, positions[number], samples, views, tile)
        room -= len(_json(one)) + len(f'"{number}":,')
        if room < 0:
            break
        drawn[number] = one
        reporter.advance()
    return drawn


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _answer(answer: Answer) -> str:
    question, in_short, because = map(escape, answer)
    return f"<div><dt>{question}</dt><dd><b>{in_short}</b> {because}</dd></div>"


def _charts(found: Stats) -> str:
    by_view = [
        svg.Point(view, share, f"view {view}: the target in {share:.1%} of the samples")
        for view, share in enumerate(found.by_view)
        if share is not None
    ]
    by_lambda: dict[str, list[svg.Point]] = {}
    for group in found.by_lambda:
        where = f"{group.kind}, lambda {group.low:.1f} to {group.high:.1f}, {group.views:,} views"
        for whose, share in (("the target", group.agreement), ("the partner's", group.partner)):
            point = svg.Point((group.low + group.high) / 2, share, f"{where}: {whose} in {share:.1%}")
            by_lambda.setdefault(f"{group.kind}: {whose}", []).append(point)
    by_class = [
        svg.Bar(share, f"{_named(one.number, one.name)}: {share:.1%} of {one.views:,} views", one.number)
        for share, one in _from_the_least(found)
    ]
    bits = found.most_bits / len(found.entropy_histogram)
    entropy = [
        svg.Bar(samples, f"{number * bits:.1f} to {(number + 1) * bits:.1f} bits: {samples:,} samples")
        for number, samples in enumerate(found.entropy_histogram)
    ]
    view_ticks = {float(view): f"{view:,}" for view in svg.evenly(len(found.by_view) - 1)}
    lambda_ticks = {tenth / 10: f"{tenth / 10:g}" for tenth in range(0, 11, 2)}
    step = 2.0 ** math.ceil(math.log2(found.most_bits / 5))  # a few ticks of round numbers
    bit_ticks = {n * step / bits: f"{n * step:g}" for n in range(int(found.most_bits / step) + 1)}
    class_ticks = {float(rank): f"{rank:,}" for rank in svg.evenly(len(by_class))}
    charts = {
        "Agreement with the target, by view": svg.lines({"": by_view}, view_ticks, "view"),
        "What the label is, by lambda": svg.lines(by_lambda, lambda_ticks, "lambda: share of the own view"),
        "Agreement by class; a click shows its views": svg.bars(
            by_class, class_ticks, "classes, from the least agreement", shares=True
        ),
        "Doubt: samples by the entropy of their labels": svg.bars(entropy, bit_ticks, "bits"),
    }
    return "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{chart}<output>&nbsp;</output></figure>"
        for title, chart in charts.items()
    )


def _classes(found: Stats) -> str:
    return _ranking(
        (f"data-target={one.number}", _named(one.number, one.name), f"{share:.1%}", share)
        for share, one in _from_the_least(found)[:_LISTED]
    )


def _from_the_least(found: Stats) -> list[tuple[float, Class]]:
    """Return the classes that have views, with their agreement, lowest first."""
    known = [(one.agreement, one) for one in found.by_class if one.agreement is not None]
    return sorted(known, key=lambda pair: pair[0])


def _confusions(found: Stats) -> str:
    most = max((one.views for one in found.confusions), default=1)
    return _ranking(
        (
            f"data-target={one.target} data-label={one.label}",
            f"{_named(one.target, one.target_name)} → {_named(one.label, one.label_name)}",
            f"{one.views:,} views",
            one.views / most,
        )
        for one in found.confusions[:_LISTED]
    )


def _ranking(rows: Iterable[tuple[str, str, str, float]]) -> str:
    """Return rows of (what a click shows, name, value, share of the bar) as a list of buttons."""
    items = [
        f"<li><button type=button {chosen} style='--share:{share:.1%}'>"
        f"<span>{escape(name)}</span> <b>{value}</b></button></li>"
        for chosen, name, value, share in rows
    ]
    return f"<ol class=ranking>{''.join(items)}</ol>" if items else "<p>none</p>"


def _lowest(store: Store, data: dict[str, list[Any]]) -> str:
    """Return the samples of the lowest agreement as a table; each opens its views."""
    names = dict(enumerate(store.manifest.class_names))
    rows = []
    least = np.lexsort((-np.array(data["certainty"]), data["agreement"]))
    for number in least[:_LISTED].tolist():
        key, target, likeliest, certainty = (data[name][number] for name in ("key", "target", "likeliest", "certainty"))
        cells = (
            f"<input type=checkbox data-select={number} aria-label='select {escape(key)}'>",
            f"<button type=button class=link data-sample={number}>{escape(key)}</button>",
            escape(_named(target, names.get(target, ""))),
            f"{escape(_named(likeliest, names.get(likeliest, '')))} <span class=soft>in {certainty:.0%}</span>",
            f"{data['agreement'][number]:.1%}",
        )
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    head = "".join(f"<th scope=col>{name}</th>" for name in ("", "key", "target", "most often labelled", "agreement"))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _named(number: int, name: str) -> str:
    return str(number) if name in ("", str(number)) else f"{number} {name}"
