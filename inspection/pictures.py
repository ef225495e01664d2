"""Views as the teacher saw them: in a captioned grid, step by step, and their plans in words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ..cache.store import Store
from ..datasets.augment import pixels
from ..datasets.augment.kernels import UInt8Image
from ..datasets.augment.plans import Box, MixPlan, ViewPlan
from ..datasets.order import Rows
from ..datasets.samples import Samples
from ..datasets.views import Renderer
from ..runtime.errors import InputError
from .lookup import Position, ViewLabel, find, label
from .relations import MARKS, lambda_text

_LINE, _GAP, _CELL = 14, 8, 160
_PLAIN = ("AutoContrast", "Equalize", "Invert", "Grayscale")  # ops that take no argument
_UNITS = {"Rotate": "°", "TranslateX": " pixels", "TranslateY": " pixels", "Posterize": " bits"}


class Picture(NamedTuple):
    """One picture of a grid and the lines below it."""

    image: UInt8Image
    caption: Sequence[str]


class Planned(NamedTuple):
    """All that is done to make one view of one sample, and the pixels before it."""

    image: UInt8Image
    plan: ViewPlan
    mix: MixPlan
    partner: "Planned | None"


def show(store: Store, keys: Sequence[str], samples: Samples, views: Sequence[int], *, steps: bool = False) -> Any:
    """Return a captioned grid (a PIL image) of what the teacher saw.

    A row a key: first the original, then its `views`; or with `steps` a row a view, from the original to the mixed view
    step by step. Raises ValueError for an unknown key or view, or an image that can't be read.
    """
    rows: list[list[Picture]] = []
    with store.naming_samples():
        for place in [find(store, key) for key in keys]:
            rows += _steps(store, place, samples, views) if steps else [_views(store, place, samples, views)]
    return _grid(rows, cell=max(store.manifest.recipe.size, _CELL))


def plan_in_words(store: Store, place: Position, samples: Samples, views: Sequence[int]) -> list[str]:
    """Return what was done to make each of `views`, a line each."""
    labels = label(store, place)
    with store.naming_samples():
        return [
            "; ".join([*_words(p.image, p.plan), _mix_words(p.mix, labels.views[v], p.partner)])
            for v, p in zip(views, planned(store, place, samples, views), strict=True)
        ]


def planned(store: Store, place: Position, samples: Samples, views: Sequence[int]) -> list[Planned]:
    """Return the plans of `views` of a sample, with those of the partners that they are mixed with."""
    require_views(store, views)
    shard, sample = place
    renderer = Renderer(store.manifest.recipe, samples)
    partners = store.order().partners(shard, range(store.views))[:, sample]

    def one_side(number: int, view: int, mix: MixPlan, partner: Planned | None) -> Planned:
        image = renderer.decode(shard, number)
        return Planned(image, renderer.view_plan(shard, number, view, image), mix, partner)

    found = []
    for view in views:
        partner = int(partners[view])
        mix = renderer.mix_plan(shard, sample, partner, view)
        other = one_side(partner, view, mix, None) if mix.lam < 1 else None
        found.append(one_side(sample, view, mix, other))
    return found


def rendered(store: Store, place: Position, samples: Samples, views: Sequence[int]) -> UInt8Image:
    """Return the mixed views (n, size, size, 3) of a sample as both stages make them."""
    require_views(store, views)
    shard, sample = place
    numbers = np.array(views, np.int32)
    rows = Rows(
        shard=np.full_like(numbers, shard),
        sample=np.full_like(numbers, sample),
        partner=store.order().partners(shard, range(store.views))[numbers, sample],
        view=numbers,
    )
    return Renderer(store.manifest.recipe, samples)(rows).images.numpy()


def require_views(store: Store, views: Sequence[int]) -> None:
    """Raise ValueError if the store was not asked for one of `views`."""
    if views and not 0 <= min(views) <= max(views) < store.views:
        raise InputError("`views`", f"0 to {store.views - 1}, which the store has", max(views))


def _views(store: Store, place: Position, samples: Samples, views: Sequence[int]) -> list[Picture]:
    said = label(store, place)
    original = Renderer(store.manifest.recipe, samples).decode(*place)
    pictures = [Picture(original, (said.key, f"{said.target} {said.target_name}"))]
    for view, image in zip(views, rendered(store, place, samples, views), strict=True):
        pictures.append(Picture(image, _caption(said.views[view])))
    return pictures


def _steps(store: Store, place: Position, samples: Samples, views: Sequence[int]) -> list[list[Picture]]:
    said, rows = label(store, place), []
    for view, own in zip(views, planned(store, place, samples, views), strict=True):
        row = [Picture(own.image, (f"{said.key}, view {view}", f"{said.target} {said.target_name}"))]
        row += [Picture(image, (words,)) for words, image in stages(own)]
        if own.partner:
            other = pixels.render(own.partner.plan, own.partner.image)
            who = said.views[view]
            row.append(Picture(other, (f"partner {who.partner}", f"{who.partner_target} {who.partner_target_name}")))
            row.append(Picture(pixels.mix(own.mix, row[-2].image, other), _caption(who)))
        rows.append(row)
    return rows


def stages(own: Planned) -> list[tuple[str, UInt8Image]]:
    """Return the sample's own view after each step of its plan, with the step in words, by the one renderer."""
    plan, words = own.plan, _words(own.image, own.plan)
    bare = replace(plan, hflip=False, ops=(), erase=None)
    plans = [bare] + [replace(bare, hflip=True)] * plan.hflip
    plans += [replace(plans[-1], ops=plan.ops[:n]) for n in range(1, len(plan.ops) + 1)]
    plans += [plan] * bool(plan.erase)
    return [(text, pixels.render(part, own.image)) for text, part in zip(words, plans, strict=True)]


def _words(image: UInt8Image, plan: ViewPlan) -> list[str]:
    """Return each step of a view's plan in words."""
    height, width, _ = image.shape
    crop = plan.crop
    if isinstance(crop, Box):
        words = [f"crop {_box(crop)} of {width} x {height}"]
    else:
        words = [f"resized to {crop.width} x {crop.height}, {plan.size} pixels from ({crop.left}, {crop.top}) on"]
    words += ["flipped"] * plan.hflip
    words += [op.name if op.name in _PLAIN else f"{op.name} {op.value:.4g}{_UNITS.get(op.name, '')}" for op in plan.ops]
    return words + ([f"erased {_box(plan.erase.box)}"] if plan.erase else [])


def _mix_words(mix: MixPlan, view: ViewLabel, partner: Planned | None) -> str:
    if view.partner is None:
        return "unmixed"
    box = f", box {_box(mix.box)}" if mix.box else ""
    theirs = f" ({'; '.join(_words(partner.image, partner.plan))})" if partner else ""
    return f"{mix.kind} with {view.partner}, lambda {lambda_text(mix.lam)}{box}{theirs}"


def _box(box: Box) -> str:
    return f"{box.width} x {box.height} at ({box.left}, {box.top})"


def _caption(view: ViewLabel) -> tuple[str, str]:
    mix = "unmixed" if view.partner is None else f"{view.mix} {lambda_text(view.lam)}"
    words = "not cached" if view.relation is None else f"{MARKS[view.relation]} {view.label} {view.label_name}"
    return f"view {view.view}: {mix}", words


def _grid(rows: Sequence[Sequence[Picture]], cell: int) -> Any:
    """Draw pictures, each fitted into a square of `cell` pixels, with their captions below."""
    lines = max(len(picture.caption) for row in rows for picture in row)
    wide, high = cell + _GAP, cell + lines * _LINE + 2 * _GAP
    grid = Image.new("RGB", (max(map(len, rows)) * wide + _GAP, len(rows) * high + _GAP), "white")
    draw = ImageDraw.Draw(grid)
    for y, row in enumerate(rows):
        for x, (image, caption) in enumerate(row):
            left, top = _GAP + x * wide, _GAP + y * high
            grid.paste(fitted(image, cell), (left, top))
            for number, line in enumerate(caption):
                draw.text((left, top + cell + _GAP + number * _LINE), _cut(draw, line, cell), fill="black")
    return grid


def fitted(image: UInt8Image, side: int) -> Any:
    """Return an image as a PIL image whose longer side is `side`; small ones are enlarged without smoothing."""
    picture = Image.fromarray(image)
    scale = side / max(picture.size)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), how)


def _cut(draw: Any, text: str, width: int) -> str:
    """Cut a line of a caption to `width` pixels; characters that the font lacks or that do not print become `?`."""
    shown = "".join(c if c.isprintable() else "?" for c in text).encode("latin-1", "replace").decode("latin-1")
    if draw.textlength(shown) <= width:
        return shown
    while shown and draw.textlength(f"{shown}...") > width:
        shown = shown[:-1]
    return f"{shown}..."
