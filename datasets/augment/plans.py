"""Plans: what will be done to an image, decided before any pixel is touched.

Each plan is a pure function of (recipe, seed, view) and sizes, drawn in one fixed order from one Philox stream. Every
real number that reaches a plan is rounded to a binary fraction: the pixels then come out of exact arithmetic, and the
last bit of a C library's `exp` can't be seen.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

from .own import own_ops
from .philox import Draws, Stream
from .recipes import Recipe

RANDAUGMENT_OPS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)
"""timm's 15 ops with severity increasing in the magnitude (`_RAND_INCREASING_TRANSFORMS`), in timm's order."""
THREE_AUGMENT_OPS = ("Grayscale", "Solarize", "GaussianBlur")
"""DeiT III's three, in the order of its `augment.py`."""
JITTER_OPS = ("Brightness", "Contrast", "Color")
_JITTER_ORDERS = tuple(itertools.permutations(JITTER_OPS))
CROP_PADDING = 4
"""Pixels of reflection (simple) or black (padded) around the resized image that a crop is cut from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SimpleCrop:
    """A square out of the whole image, which is first resized to `height` x `width` and padded by `CROP_PADDING`.

    `top` and `left` are where the square of the view's size begins in the padded image.
    """

    height: int
    width: int
    top: int
    left: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A square of the whole image, which is first resized to `height` x `width`; what lies beside the image is black.

    `top` and `left` are where the square of the view's size begins in the resized image: below zero, before it.
    """

    height: int
    width: int
    top: int
    left: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Op:
    """One op and its argument: degrees, shear factor, pixels, enhancement factor, bits, threshold or radius."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Erase:
    """A box to fill with noise, and the (seed, view) whose words are the noise."""

    box: Box
    seed: int
    view: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewPlan:
    """How to make one view of `size` x `size` pixels from one image: crop, flip, ops, erase, in this order.

    A `Box` is cut out of the image and then resized.
    """

    size: int
    crop: Box | SimpleCrop | Window
    hflip: bool
    ops: tuple[Op, ...]
    erase: Erase | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MixPlan:
    """How to mix two views; the same for both sides of a pair.

    `lam` is the share of a side's own view: of every pixel for mixup, of the area outside `box` for cutmix.
    """

    kind: Literal["none", "mixup", "cutmix"]
    lam: float
    box: Box | None


UNMIXED = MixPlan(kind="none", lam=1.0, box=None)


def plan_view(recipe: Recipe, seed: int, view: int, height: int, width: int) -> ViewPlan:
    """Return the plan of view `view` of a `height` x `width` image whose sample has `seed`."""
    draws = Draws(seed, Stream.VIEW, (view, 0, 0))
    crop = _crop(recipe, draws, height, width)
    hflip = draws.chance(recipe.hflip)
    ops = tuple(op for _ in range(recipe.randaug_ops) if (op := _randaugment_op(recipe, draws)))
    if recipe.three_augment:
        ops += (_three_augment_op(draws),)
    if recipe.color_jitter > 0:
        ops += _jitter_ops(recipe.color_jitter, draws)
    if recipe.own_ops:
        ops += _own_ops(recipe, draws)
    box = _erase_box(recipe, draws)
    erase = Erase(box=box, seed=seed, view=view) if box else None
    return ViewPlan(size=recipe.size, crop=crop, hflip=hflip, ops=ops, erase=erase)


def plan_mix(recipe: Recipe, seed: int, partner_seed: int, view: int) -> MixPlan:
    """Return how view `view` of two samples is mixed: timm's `Mixup`, drawn for the pair; symmetric in the seeds."""
    if not recipe.mixes:
        return UNMIXED
    low, high = sorted((seed, partner_seed))
    draws = Draws(low, Stream.MIX, (view, high, 0))
    mixed, switched = draws.chance(recipe.mix_prob), draws.chance(recipe.switch_prob)
    if not mixed:
        return UNMIXED
    if recipe.cutmix_alpha > 0 and (switched or recipe.mixup_alpha == 0):
        box = _cutmix_box(draws, draws.beta(recipe.cutmix_alpha), recipe.size)
        return MixPlan(kind="cutmix", lam=1 - box.height * box.width / recipe.size**2, box=box)
    return MixPlan(kind="mixup", lam=_binary_fraction(draws.beta(recipe.mixup_alpha), 16), box=None)


def _crop(recipe: Recipe, draws: Draws, height: int, width: int) -> Box | SimpleCrop | Window:
    match recipe.crop:
        case "resized":
            return _resized_crop(recipe, draws, height, width)
        case "simple":
            return _simple_crop(recipe.size, draws, height, width)
        case "padded":
            return _padded_crop(recipe.size, draws, height, width)
    return _centre_box(recipe, height, width) if recipe.version == 1 else _centre_crop(recipe, height, width)


def _resized_crop(recipe: Recipe, draws: Draws, height: int, width: int) -> Box:
    """Draw timm's RandomResizedCropAndInterpolation.get_params."""
    for _ in range(10):
        area = draws.uniform(*recipe.crop_scale) * height * width
        ratio = draws.log_uniform(*recipe.crop_ratio)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Box(top=draws.integer(0, height - h), left=draws.integer(0, width - w), height=h, width=w)
    low, high = recipe.crop_ratio
    w = min(width, max(1, round(height * high)))
    h = min(height, max(1, round(width / low)))
    return Box(top=(height - h) // 2, left=(width - w) // 2, height=h, width=w)


def _simple_crop(size: int, draws: Draws, height: int, width: int) -> SimpleCrop:
    """Draw torchvision's RandomCrop(size, padding=4) of what its Resize(size) leaves: two words."""
    high, wide = _resized(size, height, width)
    margin = 2 * CROP_PADDING - size
    top, left = draws.integer(0, high + margin), draws.integer(0, wide + margin)
    return SimpleCrop(height=high, width=wide, top=top, left=left)


def _padded_crop(size: int, draws: Draws, height: int, width: int) -> Window:
    """Draw DeiT's crop of small images, RandomCrop(size, padding=4) with black around them: two words."""
    high, wide = _resized(size, height, width)
    pad = CROP_PADDING
    top, left = draws.integer(0, high + 2 * pad - size), draws.integer(0, wide + 2 * pad - size)
    return Window(height=high, width=wide, top=top - pad, left=left - pad)


def _centre_crop(recipe: Recipe, height: int, width: int) -> Window:
    """Return torchvision's Resize(size / crop_pct) and CenterCrop(size), rounded as they round."""
    size = recipe.size
    high, wide = _resized(int(size / recipe.crop_pct), height, width)
    return Window(height=high, width=wide, top=round((high - size) / 2), left=round((wide - size) / 2))


def _resized(size: int, height: int, width: int) -> tuple[int, int]:
    """Return height and width of what torchvision's Resize(size) leaves: the shorter side has `size` pixels."""
    short, long = sorted((height, width))
    stretched = int(size * long / short)
    return (stretched, size) if width <= height else (size, stretched)


def _centre_box(recipe: Recipe, height: int, width: int) -> Box:
    """Return what recipes of version 1 had for a centre crop: a box of whole pixels, which is then resized."""
    side = max(1, round(recipe.crop_pct * min(height, width)))
    return Box(top=(height - side) // 2, left=(width - side) // 2, height=side, width=side)


def _randaugment_op(recipe: Recipe, draws: Draws) -> Op | None:
    """Draw one op of timm's `rand-m9-mstd0.5-inc1`: four words, applied or not."""
    name = RANDAUGMENT_OPS[draws.integer(0, len(RANDAUGMENT_OPS) - 1)]
    applied = draws.chance(recipe.randaug_prob)
    magnitude = min(max(draws.normal(recipe.randaug_magnitude, recipe.randaug_std), 0.0), 10.0)
    sign = 1 if draws.chance(0.5) else -1
    return Op(name=name, value=_op_value(name, magnitude / 10, sign, recipe.size)) if applied else None


def _op_value(name: str, level: float, sign: int, size: int) -> float:
    """Return the argument of op `name` at `level` 0..1: timm's LEVEL_TO_ARG, rounded to a binary fraction."""
    match name:
        case "Rotate":
            return _binary_fraction(sign * level * 30, 8)
        case "ShearX" | "ShearY":
            return _binary_fraction(sign * level * 0.3, 16)
        case "TranslateX" | "TranslateY":
            return _binary_fraction(sign * level * 0.45 * size, 8)
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return _binary_fraction(max(0.1, 1 + sign * level * 0.9), 12)
        case "Posterize":
            return 4 - int(level * 4)
        case "Solarize":
            return 256 - min(256, int(level * 256))
        case "SolarizeAdd":
            return min(128, int(level * 110))
    return 0


def _three_augment_op(draws: Draws) -> Op:
    """Draw one of DeiT III's three ops: two words, whichever it is."""
    name = THREE_AUGMENT_OPS[draws.integer(0, len(THREE_AUGMENT_OPS) - 1)]
    radius = _binary_fraction(draws.uniform(0.1, 2.0), 12)
    return Op(name=name, value={"Solarize": 128, "GaussianBlur": radius}.get(name, 0))


def _jitter_ops(strength: float, draws: Draws) -> tuple[Op, ...]:
    """Draw torchvision's ColorJitter(strength, strength, strength): one word for the order, one for each factor."""
    order = _JITTER_ORDERS[draws.integer(0, len(_JITTER_ORDERS) - 1)]
    factors = {name: _binary_fraction(draws.uniform(1 - strength, 1 + strength), 12) for name in JITTER_OPS}
    return tuple(Op(name=name, value=factors[name]) for name in order)


def _own_ops(recipe: Recipe, draws: Draws) -> tuple[Op, ...]:
    """Draw a user's own ops, in the recipe's order: as many words as those take."""
    values = ((op.name, op.draw(draws, recipe.size)) for op in own_ops(recipe.own_ops))
    return tuple(Op(name=name, value=value) for name, value in values if value is not None)


def _erase_box(recipe: Recipe, draws: Draws) -> Box | None:
    """Draw timm's RandomErasing for one view."""
    if not draws.chance(recipe.erase_prob):
        return None
    size = recipe.size
    for _ in range(10):
        area = draws.uniform(*recipe.erase_area) * size * size
        ratio = draws.log_uniform(*recipe.erase_ratio)
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w < size and 0 < h < size:
            return Box(top=draws.integer(0, size - h), left=draws.integer(0, size - w), height=h, width=w)
    return None


def _cutmix_box(draws: Draws, lam: float, size: int) -> Box:
    """Draw timm's `rand_bbox` for a share `lam` that stays."""
    side = int(size * math.sqrt(1 - lam))
    centre_y, centre_x = draws.integer(0, size - 1), draws.integer(0, size - 1)
    top, bottom = max(centre_y - side // 2, 0), min(centre_y + (side + 1) // 2, size)
    left, right = max(centre_x - side // 2, 0), min(centre_x + (side + 1) // 2, size)
    return Box(top=top, left=left, height=bottom - top, width=right - left)


def _binary_fraction(value: float, bits: int) -> float:
    scale = 1 << bits
    return round(value * scale) / scale
