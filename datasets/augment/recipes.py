"""Recipes: frozen, versioned descriptions of an augmentation, kept whole in the store."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from ...runtime.errors import InputError
from ...runtime.spelling import did_you_mean
from ...runtime.typed import require_types
from .own import stored_names

CROPS = ("resized", "simple", "padded", "centre")
_ADDED = frozenset({"three_augment", "color_jitter", "group", "own_ops"})
"""Fields that recipes once did not have. Where one is absent it has its default, which must leave every plan alone."""

_PROBABILITIES = ("hflip", "randaug_prob", "erase_prob", "mix_prob", "switch_prob")
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_PROBABILITIES, (0, 1)),
    "size": (16, 1024),
    "version": (1, 2),
    "crop_scale": (0.001, 1),
    "crop_ratio": (0.01, 100),
    "crop_pct": (0.05, 1),
    "randaug_ops": (0, 16),
    "randaug_magnitude": (0, 10),
    "randaug_std": (0, 10),
    "color_jitter": (0, 1),
    "erase_area": (0.001, 0.99),
    "erase_ratio": (0.01, 100),
    "mixup_alpha": (0, 100),
    "cutmix_alpha": (0, 100),
    "repeats": (1, 64),
    "group": (2, 16),
}
"""The least and the most that a field may be; of a range of its own, both ends."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides how a view is drawn; with (seed, view) and an image it decides every byte.

    Defaults are DeiT's (Touvron et al. 2021, table 9) as timm spells them: `rand-m9-mstd0.5-inc1`, random erasing in
    pixel mode, mixup or cutmix. Geometry fills with ImageNet's mean colour. EXIF orientation is not honoured.
    """

    name: str
    size: int = 224
    """Height and width of a view, pixels."""
    crop: str = "resized"
    """One of `CROPS`: a random resized crop, DeiT III's simple random crop, DeiT's of small images, a centre crop."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Area of the random crop as a share of the image's."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of the random crop."""
    crop_pct: float = 0.875
    """Side of the centre crop as a share of the image's shorter side."""
    hflip: float = 0.5
    randaug_ops: int = 2
    """How many RandAugment ops are drawn for each view; 0 turns it off."""
    randaug_prob: float = 0.5
    """Probability that a drawn op is applied."""
    randaug_magnitude: float = 9.0
    randaug_std: float = 0.5
    """Standard deviation of the magnitude, which is then clipped to 0..10."""
    three_augment: bool = False
    """DeiT III's 3-Augment (Touvron et al. 2022): grey, solarized or blurred, each with probability 1/3."""
    color_jitter: float = 0.0
    """Brightness, contrast and saturation change by factors in 1 -/+ this, in a random order; 0 turns it off."""
    own_ops: tuple[str, ...] = ()
    """Ops of a user's own after all others, as `own.OwnOp.stored` names them."""
    erase_prob: float = 0.25
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    erase_ratio: tuple[float, float] = (0.3, 1 / 0.3)
    mixup_alpha: float = 0.8
    """Mixing weights come from Beta(alpha, alpha); 0 turns mixup off."""
    cutmix_alpha: float = 1.0
    mix_prob: float = 1.0
    """Probability that a pair is mixed at all."""
    switch_prob: float = 0.5
    """Probability of cutmix where both are on."""
    repeats: int = 3
    """Views of an image within one epoch (DeiT's repeated augmentation), and so the views of one cycle."""
    group: int = 2
    """How many images are mixed with each other within a cycle, two by two, in other pairs in each of its views."""
    version: int = 1
    """Of recipes with a centre crop 2 is the published one: Resize and CenterCrop; 1 was a box of whole pixels."""

    def __post_init__(self) -> None:
        """Raise ValueError for the first field that is of another type or out of its range."""
        require_types(self)
        if self.crop not in CROPS:
            raise InputError("recipe field crop", f"one of {', '.join(CROPS)}", repr(self.crop))
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            bounds = value if isinstance(value, tuple) else (value, value)
            if not low <= bounds[0] <= bounds[1] <= high:
                ordered = ", the smaller first" if isinstance(value, tuple) else ""
                raise InputError(f"recipe field {name}", f"{low:g} to {high:g}{ordered}", value)

        if self.group % 2:
            raise InputError("recipe field group", "an even number", self.group)

    @property
    def mixes(self) -> bool:
        """Whether samples are taken in pairs at all."""
        return self.mix_prob > 0 and (self.mixup_alpha > 0 or self.cutmix_alpha > 0)

    @property
    def augments(self) -> bool:
        """Whether the views of an image differ from each other."""
        plain = named("none", size=self.size, overrides=[f"crop_pct={self.crop_pct}"])
        return self.fingerprint != plain.fingerprint

    @property
    def fingerprint(self) -> str:
        """Return 16 hex digits of the SHA-256 of the fields' canonical JSON, without the name.

        Fields of `_ADDED` at their default are left out too: a recipe keeps its fingerprint when a field is added.
        """
        neutral = {
            field.name for field in dataclasses.fields(self) if getattr(self, field.name) == field.default
        } & _ADDED
        fields = {k: v for k, v in self.to_dict().items() if k not in neutral | {"name"}}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON would hold them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Recipe":
        """Return the recipe that `to_dict` described; ValueError names a field that is missing or unknown.

        Fields of `_ADDED` may be missing, as they are in older stores.
        """
        fields = dict(fields)
        if "random_crop" in fields:  # what told the first two crops apart before there was a third
            fields["crop"] = "resized" if fields.pop("random_crop") else "centre"
        known = {field.name for field in dataclasses.fields(cls)}
        if differing := (known ^ set(fields)) - (_ADDED - set(fields)):
            raise InputError("recipe", f"the fields {sorted(known)}", f"others: {sorted(differing)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)

    def override(self, assignments: Iterable[str]) -> "Recipe":
        """Return the recipe with `FIELD=VALUE` assignments applied, such as `hflip=0` or `crop_scale=0.5,1`."""
        changes: dict[str, Any] = {}
        settable = {f.name for f in dataclasses.fields(self)} - {"name", "version", "size"}
        for assignment in assignments:
            name, equals, text = str(assignment).partition("=")
            if not equals:
                raise InputError("recipe field", "FIELD=VALUE", repr(assignment))
            if name not in settable:
                similar = did_you_mean(name, settable)
                expected = "a known one" if similar else f"one of {', '.join(sorted(settable))}"
                raise InputError("recipe field", expected, f"{assignment!r}{similar}")
            if name == "own_ops":
                changes[name] = stored_names(filter(None, text.split(",")))
            else:
                changes[name] = _parse(name, text, getattr(self, name))
        return dataclasses.replace(self, **changes)


def _parse(name: str, text: str, example: Any) -> Any:
    try:
        if isinstance(example, tuple):
            low, high = text.split(",")
            return (float(low), float(high))
        if isinstance(example, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return type(example)(text)
    except (ValueError, KeyError):
        expected = "two numbers such as 0.5,1" if isinstance(example, tuple) else type(example).__name__
        raise InputError(f"recipe field {name}", expected, repr(text)) from None


_RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="deit", group=4),
        Recipe(name="deit3", randaug_ops=0, erase_prob=0.0, three_augment=True, color_jitter=0.3, group=4),
        Recipe(name="crop", randaug_ops=0, erase_prob=0.0, mix_prob=0.0, repeats=1),
        Recipe(name="none", crop="centre", hflip=0.0, randaug_ops=0, erase_prob=0.0, mix_prob=0.0, repeats=1),
    )
}
NAMES = tuple(_RECIPES)


def register_recipe(name: str, *, base: str = "deit", overrides: Iterable[str] = ()) -> None:
    """Let commands take a recipe of your own by name: `base` with `FIELD=VALUE` overrides.

    A store keeps all fields, so who trains from it needs no such registration. Raises InputError, a ValueError, for a
    name that is ours, or for what is wrong with a field.
    """
    if name in NAMES or not name.isidentifier():
        raise InputError(f"recipe {name}", "letters, digits and _, and another name than our own recipes'", repr(name))
    _RECIPES[name] = dataclasses.replace(named(base, overrides=overrides), name=name)


def named(name: str, *, size: int | None = None, overrides: Iterable[str] = ()) -> Recipe:
    """Return the recipe `name` at `size` pixels, or 224, with `FIELD=VALUE` overrides; ValueError says what's wrong."""
    if name not in _RECIPES:
        own = "a recipe of your own is to be registered first, by a module that `import` names"
        raise InputError("recipe", f"one of {', '.join(_RECIPES)}", f"{name!r}{did_you_mean(str(name), _RECIPES)}", own)
    recipe = dataclasses.replace(_RECIPES[name], size=224 if size is None else size)
    recipe = recipe.override([overrides] if isinstance(overrides, str) else overrides)
    return dataclasses.replace(recipe, version=2) if recipe.crop == "centre" else recipe
