"""One self-contained HTML page about a store: what it is, charts, tables, and a gallery of views to filter."""

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..cache.store import Store
from ..datasets.samples import Samples
from ..datasets.views import Renderer
from ..runtime import atomic
from . import svg
from .info import block_sizes, completeness, info, info_text
from .lookup import Filter, Position, agreement, label
from .pictures import fitted, plan_in_words, rendered
from .stats import Stats, stats

_TEMPLATE = Path(__file__).with_name("report.html")
_PIXELS = 200 * 6 * 128**2  # of all views together: about 5 MB
_TILE, _ORIGINAL, _QUALITY = 128, 192, 70
_ROWS = 15  # of a table


def report(
    store: Store,
    samples: Samples,
    out: Path,
    wanted: Filter,
    *,
    count: int = 100,
    views: int = 6,
    progress: Callable[[int], None] = lambda steps: None,
) -> None:
    """Write the page to `out`, with `views` of each of `count` samples out of those `wanted`.

    Half of them are those on which the teacher disagrees most, the others are spread over the store. Keys and class
    names are only ever text. Raises ValueError if there are no labels, or for an image that can't be read.
    """
    found = stats(store, progress)
    chosen = wanted.select(store)
    places = choose(chosen, agreement(store, chosen, progress), count)
    tile = min(_TILE, store.manifest.recipe.size, int(math.sqrt(_PIXELS / max(1, len(places) * views))))
    gallery = []
    with store.naming_samples():
        for place in places:
            gallery.append(_sample(store, place, samples, views, tile))
            progress(1)
    template = _TEMPLATE.read_text()
    script = template.partition("<script>")[2].partition("</script>")[0]
    parts = {
        "policy": f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        "title": escape(f"What {Path(store.manifest.teacher.name).name} said: {store.path.name}"),
        "summary": _summary(store, found),
        "facts": escape(info_text(store)),
        "completeness": svg.heat_map(completeness(store) / block_sizes(store)[:, None], "shards", "blocks of views"),
        "charts": _charts(found),
        "confusions": _confusions(found),
        "doubts": _doubts(found),
        "data": json.dumps({"tile": tile, "samples": gallery}).replace("<", "\\u003c"),
    }
    page = re.sub(r"<!--(\w+)-->", lambda place: parts[place[1]], template)  # in one pass: nothing put in is looked at
    atomic.write_text(out, page)


def choose(chosen: Any, shares: Any, count: int) -> list[Position]:
    """Return `count` of the chosen samples (shard, sample): half by the lowest agreement, half evenly spread."""
    all_places = np.argwhere(chosen & ~np.isnan(shares))
    order = np.argsort(shares[tuple(all_places.T)], kind="stable")
    least = order[: count // 2]
    others = np.setdiff1d(np.arange(len(all_places)), least)
    spread = others[np.unique(np.linspace(0, len(others) - 1, min(count - len(least), len(others))).astype(int))]
    return [(int(shard), int(sample)) for shard, sample in all_places[np.concatenate([least, spread])]]


def _sample(store: Store, place: Position, samples: Samples, views: int, tile: int) -> dict[str, Any]:
    """Return what the page shows of one sample; its views are tiles of one picture, side by side."""
    said = label(store, place)
    cached = [view.view for view in said.views if view.label is not None]
    shown = [cached[i] for i in np.unique(np.linspace(0, len(cached) - 1, min(views, len(cached))).astype(int))]
    strip = Image.new("RGB", (tile * len(shown), tile))
    for number, image in enumerate(rendered(store, place, samples, shown)):
        strip.paste(fitted(image, tile), (number * tile, 0))
    original = Renderer(store.manifest.recipe, samples).decode(*place)
    plans = plan_in_words(store, place, samples, shown)
    return {
        "shard": said.shard,
        "key": said.key,
        "target": f"{said.target} {said.target_name}".strip(),
        "agreement": said.agreement,
        "original": _data_url(fitted(original, _ORIGINAL)),
        "strip": _data_url(strip),
        "views": [
            {
                "view": view.view,
                "label": f"{view.label} {view.label_name}".strip(),
                "says": view.relation,
                "mix": view.mix,
                "lambda": view.lam,
                "partner": f"{view.partner}: {view.partner_target} {view.partner_target_name}" if view.partner else "",
                "top": [f"{name.partition(',')[0] or number} {share:.0%}" for number, name, share in view.topk[:5]],
                "plan": words,
            }
            for view, words in zip((said.views[v] for v in shown), plans, strict=True)
        ],
    }


def _data_url(image: Any) -> str:
    image.save(buffer := io.BytesIO(), "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _summary(store: Store, found: Stats) -> str:
    facts = info(store)
    tiles = {
        "samples": f"{found.samples:,}",
        "views of each": f"{store.views:,}",
        "labels": f"{found.views:,}",
        "complete": f"{found.views / (found.views + facts['labels_missing']):.1%}",
        "agree with the target": f"{found.agreement:.1%}",
        "say the partner's": f"{found.partner:.1%}",
        "never agreed with": f"{found.never:,} samples",
        "bytes a view": f"{facts['bytes_per_view']}",
    }
    if facts["teacher_top1"] is not None:
        tiles["teacher's top-1, held out"] = f"{facts['teacher_top1']:.1f}%"
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles.items())


def _charts(found: Stats) -> str:
    shares = [None if share is None else 100 * share for share in found.by_view]
    lines = {}
    for kind in ("mixup", "cutmix"):
        groups = [group for group in found.by_lambda if group.kind == kind]
        middles = [(group.low + group.high) / 2 for group in groups]
        lines[f"{kind}: target"] = list(zip(middles, [100 * group.agreement for group in groups], strict=True))
        lines[f"{kind}: partner's"] = list(zip(middles, [100 * group.partner for group in groups], strict=True))
    classes = sorted(100 * one.agreement for one in found.by_class if one.agreement is not None)
    by_view = {"agreement": [(float(view), share) for view, share in enumerate(shares) if share is not None]}
    most = math.log2(max(2, len(shares)))
    charts = {
        "Agreement with the target by view, %": svg.lines(by_view, high=100),
        "By lambda, the share of the own view, %": svg.lines({k: v for k, v in lines.items() if v}, high=100),
        "By class, from the least, %": svg.bars(classes, high=100),
        f"Doubt: samples by the entropy of their labels, 0 to {most:.1f} bits": svg.bars(found.entropy_histogram),
    }
    return "".join(f"<figure><figcaption>{escape(k)}</figcaption>{v}</figure>" for k, v in charts.items())


def _confusions(found: Stats) -> str:
    rows = [
        [f"{c.target} {c.target_name}", f"{c.label} {c.label_name}", f"{c.views:,}"] for c in found.confusions[:_ROWS]
    ]
    return _table(["target", "label", "views"], rows)


def _doubts(found: Stats) -> str:
    rows = [
        [d.key, f"{d.target} {d.target_name}", f"{d.label} {d.label_name}", f"{d.share:.0%}"]
        for d in found.never_agreed[:_ROWS]
    ]
    return _table(["key", "target", "says most often", "in"], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
