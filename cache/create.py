"""Beginning a store: what a user asks for, what the store then says of itself, and its first, empty form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from ..datasets.augment.libraries import library_versions
from ..datasets.augment.recipes import Recipe, named
from ..datasets.samples import SampleError, Samples, samples_of
from ..datasets.shards.excluded import Excluded
from ..datasets.shards.index import Shard, ShardIndex, Skipped
from ..datasets.shards.mirror import DEFAULT, Mirror
from ..runtime.errors import InputError, require_whole
from ..runtime.paths import AnyPath
from ..runtime.typed import require_types
from .claims import Claims
from .manifest import Manifest, TeacherRecord
from .probes import probe
from .quantised import BITS
from .storage import storage_at
from .store import Store
from .teacher import Teacher


class Asked(TypedDict, total=False):
    """What a user may ask of stage 1; what is None or absent is the store's, or else DeiT's."""

    recipe: str | None
    overrides: Sequence[str]
    image_size: int | None
    teacher_size: int | None
    seed: int | None
    topk: int | None
    logits: int | None
    views: int | None
    amp: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked of stage 1."""

    recipe: Recipe
    teacher_size: int | None
    """Pixels at which the teacher sees views; None: its own."""
    seed: int
    topk: int
    logits: int
    """Bits in which every class's logit is kept; 0: they are not."""
    views: int
    amp: bool | None
    """Whether the teacher computes under bfloat16 autocast; None: on a GPU."""

    def __post_init__(self) -> None:
        """Raise ValueError for the first field that is of another type or out of its range."""
        require_types(self)
        require_whole("seed", self.seed, 0, 2**63 - 1)
        require_whole("topk", self.topk, 0)

    @classmethod
    def resolve(cls, store: Store | None = None, **asked: Unpack[Asked]) -> "Request":
        """Return what is asked for, with what is not said taken from `store`, where there is one, or else from DeiT.

        Raises ValueError for a recipe that does not exist, views that are not whole cycles, or logits in two forms.
        """
        if store:
            have, teacher = store.manifest, store.manifest.teacher
            known: dict[str, Any] = {name: getattr(have, name) for name in ("recipe", "seed", "topk", "logits")}
            amp = teacher.dtype == "bfloat16"
            base = cls(**known, views=store.views, teacher_size=teacher.input_size, amp=amp)
        else:
            base = cls(recipe=named("deit"), teacher_size=None, seed=0, topk=0, logits=0, views=300, amp=None)
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        _require_one_form(given.get("topk", 0), given.get("logits", 0))
        recipe, overrides = given.pop("recipe", None), given.pop("overrides", ())
        size = given.pop("image_size", base.recipe.size)
        if recipe is None and not overrides:
            whole = replace(base.recipe, size=size)
        else:
            own = [f"group={base.recipe.group}"] if store else []  # a named recipe is the store's, as it was then
            whole = named(recipe or "deit", size=size, overrides=[*own, *overrides])
            whole = replace(whole, version=base.recipe.version) if store else whole
        request = replace(base, recipe=whole, **given)
        if request.views % whole.repeats:
            raise InputError("`views`", f"a multiple of the recipe's {whole.repeats} repeats", request.views)
        return request


def _require_one_form(topk: int, logits: int) -> None:
    if logits not in (0, *BITS):
        raise InputError("`logits`", f"{' or '.join(map(str, BITS))} bits, or 0 for none", logits)
    if topk and logits:
        raise InputError("`logits`", "all logits or the largest", f"both, with `topk={topk}`", "leave one out")


def describe(
    request: Request,
    teacher: Teacher,
    shards: Sequence[Shard],
    class_names: Sequence[str] = (),
    skipped: Sequence[Skipped] = (),
) -> Manifest:
    """Return the manifest of the store that `request` asks for; ValueError if the teacher has too few classes."""
    if request.topk > teacher.classes:
        raise InputError("`topk`", f"at most the teacher's {teacher.classes} classes", request.topk)
    return Manifest(
        recipe=request.recipe,
        teacher=TeacherRecord(**{field.name: getattr(teacher, field.name) for field in fields(TeacherRecord)}),
        seed=request.seed,
        topk=request.topk,
        logits=request.logits,
        shards=tuple(shards),
        class_names=teacher.class_names or tuple(class_names),
        versions=library_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        skipped=tuple(skipped),
    )


def existing(path: AnyPath, excluded: Excluded | None = None) -> Store | None:
    """Return the store at `path`, if any; ValueError if it left out other samples than those that are `excluded`."""
    store = Store(path) if storage_at(path).exists("zarr.json") else None
    if store and excluded:
        excluded.require_same(store.manifest.skipped)
    return store


def opened(
    path: AnyPath,
    request: Request,
    teacher: Teacher,
    claims: Claims,
    *,
    index: Callable[[], Sequence[ShardIndex]],
    class_names: Sequence[str],
    excluded: Excluded | None = None,
    mirror: Mirror = DEFAULT,
) -> Store:
    """Return the store at `path`; where there is none it is made, of the shards that `index` reads.

    Of processes that start at once, one makes it and the others wait. Raises ValueError as `create` does, and if the
    store is another than what is asked for or left out other samples than those `excluded`.
    """
    with claims.structure():
        if not (store := existing(path, excluded)):
            if isinstance(path, Path) and path.exists() and not (path.is_dir() and not any(path.iterdir())):
                raise InputError(path, "a store, or nothing yet", "something else", "name another place")
            store = create(path, request, index(), teacher, class_names, mirror)
    store.manifest.require_same(describe(request, teacher, store.manifest.shards))
    return store


def note_teacher_top1(store: Store, claims: Claims, measure: Callable[[], float]) -> None:
    """Keep the teacher's top-1 on held-out shards, percent, in a store that has none yet."""
    if store.manifest.teacher_top1 is None:
        percent = float(measure())
        if not 0 <= percent <= 100:
            raise InputError("`top1`", "a function that returns percent, 0 to 100", percent)
        with claims.structure():
            store.record(teacher_top1=percent)


def create(
    path: AnyPath,
    request: Request,
    indexes: Sequence[ShardIndex],
    teacher: Teacher,
    class_names: Sequence[str] = (),
    mirror: Mirror = DEFAULT,
) -> Store:
    """Create the store, empty but for samples and probes, and return it.

    Raises ValueError for a sample of a class that the teacher does not know.
    """
    samples = samples_of(indexes, request.seed, mirror)
    require_known_classes(samples, indexes, teacher.classes)
    skipped = [sample for index in indexes for sample in index.skipped]
    manifest = describe(request, teacher, [index.shard for index in indexes], class_names, skipped)
    try:
        probes = probe(manifest, samples, teacher)
    except SampleError as error:
        key = indexes[error.shard].keys[error.sample]
        raise error.cause.within(f"shard {error.name}, key {key}") from error
    return Store.create(path, manifest, samples, probes)


def require_known_classes(samples: Samples, indexes: Sequence[ShardIndex], classes: int) -> None:
    """Raise ValueError naming the first of the samples whose class is none of the teacher's."""
    if (beyond := np.argwhere(samples.target >= classes)).size:
        shard, sample = beyond[0]
        where = f"{indexes[shard].shard.name}, key {indexes[shard].keys[sample]}"
        expected = f"a class below the teacher's {classes}"
        raise InputError(where, expected, samples.target[shard, sample], "is it another data set's?")
