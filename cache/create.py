"""Beginning a store: what a user asks for, what the store then says of itself, and its first, empty form."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..datasets.augment.recipes import Recipe, named
from ..datasets.samples import SampleError, samples_of
from ..datasets.shards.index import Shard, ShardIndex, Skipped
from .claims import Claims
from .manifest import Manifest, TeacherRecord, library_versions
from .probes import probe
from .store import Store
from .teacher import Teacher


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a user asks of stage 1."""

    recipe: Recipe
    seed: int
    topk: int
    views: int
    amp: bool

    @classmethod
    def resolve(cls, options: Mapping[str, Any], store: Store | None, device: str) -> "Request":
        """Return a command line's options with what is unset taken from the store, or else from DeiT.

        Raises ValueError for a recipe that does not exist, or views that are not whole cycles.
        """
        have = store.manifest if store else None

        def given(name: str, stored: Any, default: Any) -> Any:
            return options[name] if options[name] is not None else stored if have else default

        if have and options["recipe"] is None and not options["overrides"]:
            recipe = replace(have.recipe, size=given("image_size", have.recipe.size, 224))
        else:
            size = given("image_size", have and have.recipe.size, 224)
            recipe = named(options["recipe"] or "deit", size=size, overrides=options["overrides"])
        views = given("views", store and store.views, 300)
        if views % recipe.repeats:
            raise ValueError(f"views: expected a multiple of the recipe's {recipe.repeats} repeats, found {views}")
        return cls(
            recipe=recipe,
            seed=given("seed", have and have.seed, 0),
            topk=given("topk", have and have.topk, 0),
            views=views,
            amp=given("amp", have and have.teacher.dtype == "bfloat16", device == "cuda"),
        )


def describe(
    request: Request,
    teacher: Teacher,
    shards: Sequence[Shard],
    class_names: Sequence[str] = (),
    skipped: Sequence[Skipped] = (),
) -> Manifest:
    """Return the manifest of the store that `request` asks for; ValueError if the teacher has too few classes."""
    if request.topk > teacher.classes:
        raise ValueError(f"topk: expected at most the teacher's {teacher.classes} classes, found {request.topk}")
    return Manifest(
        recipe=request.recipe,
        teacher=TeacherRecord(**{field.name: getattr(teacher, field.name) for field in fields(TeacherRecord)}),
        seed=request.seed,
        topk=request.topk,
        shards=tuple(shards),
        class_names=teacher.class_names or tuple(class_names),
        versions=library_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        skipped=tuple(skipped),
    )


def opened(
    path: Path,
    request: Request,
    teacher: Teacher,
    claims: Claims,
    *,
    index: Callable[[], Sequence[ShardIndex]],
    class_names: Sequence[str],
) -> Store:
    """Return the store at `path`; where there is none it is made, of the shards that `index` reads.

    Of processes that start at once, one makes it and the others wait. Raises ValueError as `create` does, and if the
    store is another than what is asked for.
    """
    with claims.structure():
        store = Store(path) if path.exists() else create(path, request, index(), teacher, class_names)
    store.manifest.require_same(describe(request, teacher, store.manifest.shards))
    return store


def note_teacher_top1(store: Store, claims: Claims, measure: Callable[[], float]) -> None:
    """Keep the teacher's top-1 on held-out shards, percent, in a store that has none yet."""
    if store.manifest.teacher_top1 is None:
        percent = measure()
        with claims.structure():
            store.record_teacher_top1(percent)


def create(
    path: Path, request: Request, indexes: Sequence[ShardIndex], teacher: Teacher, class_names: Sequence[str] = ()
) -> Store:
    """Create the store, empty but for samples and probes, and return it.

    Raises ValueError for a sample of a class that the teacher does not know.
    """
    for index in indexes:
        for key, target in zip(index.keys, index.targets, strict=True):
            if target >= teacher.classes:
                expected = f"expected a class below the teacher's {teacher.classes}"
                raise ValueError(
                    f"{index.shard.name}, key {key}: {expected}, found {target}; is it another data set's?"
                )
    skipped = [sample for index in indexes for sample in index.skipped]
    manifest = describe(request, teacher, [index.shard for index in indexes], class_names, skipped)
    samples = samples_of(indexes, manifest.seed)
    try:
        probes = probe(manifest, samples, teacher)
    except SampleError as error:
        key = indexes[error.shard].keys[error.sample]
        raise ValueError(f"shard {error.name}, key {key}: {error.reason}") from error
    return Store.create(path, manifest, indexes, samples, probes)
