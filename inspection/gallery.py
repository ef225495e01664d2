"""What the report page holds of samples: a few columns of every one, and pictures of some."""

import base64
import io
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..cache.store import Store
from ..datasets.order import ALONE
from ..datasets.samples import Samples
from ..datasets.views import Renderer
from ..runtime.reporting import SILENT, Reporter
from .counting import spread
from .lookup import Agreement, Position, label
from .pictures import fitted, plan_in_words, rendered
from .relations import mixed, relations

TILE = 128
"""Pixels of a view's picture, at most."""
_ORIGINAL, _QUALITY = 192, 70


def choose(chosen: NDArray[np.bool_], shares: Agreement, count: int) -> list[Position]:
    """Return `count` of the chosen samples (shard, sample): half by the lowest agreement, half evenly spread."""
    positions = np.argwhere(chosen & ~np.isnan(shares.target))
    order = shares.order(tuple(positions.T))
    least = order[: -(-count // 2)]
    others = np.setdiff1d(np.arange(len(positions)), least)
    spread_out = others[_spread_out(len(others), count - len(least))]
    return [(int(shard), int(sample)) for shard, sample in positions[np.concatenate([least, spread_out])]]


def columns(
    store: Store, positions: Sequence[Position], shares: Agreement, views: int, *, reporter: Reporter = SILENT
) -> dict[str, list[Any]]:
    """Return columns of the samples at `positions`, which are in the store's order, and of `views` views of each.

    A row a sample have shard (a number), key, target, agreement, likeliest (the most frequent label), certainty (its
    share) and views (how many there are here); a row a view have view, label, relation, mix (a number of `KINDS`), lam
    and partner (its target, or -1).
    """
    found: dict[str, list[Any]] = {}
    for shard, inside in itertools.groupby(positions, key=lambda position: position[0]):
        samples = np.array([sample for _, sample in inside])
        for name, values in _columns_of(store, shard, samples, shares, views).items():
            found.setdefault(name, []).extend(values)
        reporter.advance()
    return found


def _columns_of(
    store: Store, shard: int, samples: NDArray[np.int64], shares: Agreement, views: int
) -> dict[str, list[Any]]:
    target, keys = store.targets()[shard, : store.counts[shard]], store.keys(shard)
    label = store.labels(shard)[:, : len(target)].astype(np.int64)
    cached = np.flatnonzero(label[:, 0] != store.missing)
    shown = cached[_spread_out(len(cached), views)]
    how = mixed(store, shard, range(store.views))
    partner = how.partner[shown]
    of_views: dict[str, NDArray[Any]] = {
        "view": np.broadcast_to(shown[:, None], partner.shape),
        "label": label[shown],
        "relation": relations(label[shown], target, partner),
        "mix": how.kind[shown],
        "lam": np.round(how.lam[shown], 5),  # a mixup's is never nearer to 1 than 1.5e-5
        "partner": np.where(partner == ALONE, -1, target[partner]),
    }
    return {
        "shard": [shard] * len(samples),
        "key": [keys[sample] for sample in samples],
        "target": target[samples].tolist(),
        "agreement": shares.target[shard, samples].round(4).tolist(),
        "likeliest": spread(label[cached][:, samples]).most.tolist(),
        "certainty": shares.likeliest[shard, samples].round(4).tolist(),
        "views": [len(shown)] * len(samples),
        **{name: table[:, samples].T.ravel().tolist() for name, table in of_views.items()},
    }


def all_there(store: Store, position: Position, samples: Samples, views: Sequence[int]) -> bool:
    """Return whether a copy of the images has all that the `views` of a sample are made of."""
    shard, sample = position
    partners = store.order().partners(shard, range(max(views) + 1))[list(views), sample]
    return bool(samples.there[shard, [sample, *partners[partners != ALONE]]].all())


def picture(store: Store, position: Position, samples: Samples, views: Sequence[int], tile: int) -> dict[str, Any]:
    """Return the original and the `views` of a sample as URLs of data, the views side by side, and how they were made.

    Raises ValueError for an image that can't be read.
    """
    strip = Image.new("RGB", (tile * len(views), tile))
    with store.naming_samples():
        for number, image in enumerate(rendered(store, position, samples, views)):
            strip.paste(fitted(image, tile), (number * tile, 0))
        original = Renderer(store.manifest.recipe, samples).decode(*position)
    of_views = label(store, position).views
    return {
        "tile": tile,
        "original": _data_url(fitted(original, _ORIGINAL)),
        "strip": _data_url(strip),
        "plans": plan_in_words(store, position, samples, views),
        "likely": [
            ", ".join(f"{name.partition(',')[0] or c} {share:.0%}" for c, name, share in of_views[view].topk[:5])
            for view in views
        ],
    }


def _spread_out(among: int, count: int) -> NDArray[np.int64]:
    """Return up to `count` of the numbers below `among`, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, among - 1, min(count, among)).astype(np.int64))


def _data_url(image: Any) -> str:
    image.save(buffer := io.BytesIO(), "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
