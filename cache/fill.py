"""Stage 1: render every view, show it to the teacher, and commit what it says unit by unit."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ..datasets.order import Rows
from ..datasets.recipes import Recipe, named
from ..datasets.shards import Samples, Shard, ShardIndex, samples_of, sha256_of
from ..datasets.views import Renderer, SampleError, Views, load
from .claims import Claims
from .manifest import Manifest, TeacherRecord, library_versions
from .store import Labels, Probes, Store, Unit

_PROBES = 8
_STRUCTURE = 0  # the claim on the arrays' shapes; units have the numbers from 1


class Teacher(Protocol):
    """What stage 1 needs of a teacher."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def mean(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def std(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def input_size(self) -> int: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def classes(self) -> int: ...  # noqa: D102
    @property
    def class_names(self) -> tuple[str, ...]: ...  # noqa: D102

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 logits (n, classes) for uint8 views (n, height, width, RGB)."""
        ...


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
            recipe = replace(have.recipe, size=options["image_size"] or have.recipe.size)
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


def describe(request: Request, teacher: Teacher, shards: Sequence[Shard], class_names: Sequence[str] = ()) -> Manifest:
    """Return the manifest of the store that `request` asks for; ValueError if the teacher has too few classes."""
    if request.topk > teacher.classes:
        raise ValueError(f"topk: expected at most the teacher's {teacher.classes} classes, found {request.topk}")
    return Manifest(
        recipe=request.recipe,
        teacher=TeacherRecord(
            name=teacher.name,
            sha256=teacher.digest,
            mean=teacher.mean,
            std=teacher.std,
            input_size=teacher.input_size,
            dtype=teacher.dtype,
            classes=teacher.classes,
        ),
        seed=request.seed,
        topk=request.topk,
        shards=tuple(shards),
        class_names=tuple(class_names or teacher.class_names),
        versions=library_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


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
                raise ValueError(f"{index.shard.name}, key {key}: {expected}, found {target}")
    manifest = describe(request, teacher, [index.shard for index in indexes], class_names)
    samples = samples_of(indexes, manifest.seed)
    return Store.create(path, manifest, indexes, samples, _probe(manifest, samples, teacher))


def fill(
    store: Store,
    samples: Samples,
    teacher: Teacher,
    *,
    views: int,
    batch_size: int,
    workers: int,
    report: Callable[[int], None] = lambda views: None,
    start_at: Callable[[int], None] = lambda views: None,
) -> None:
    """Fill `store` up to `views` views of each sample.

    `start_at` is told how many views are there already, `report` how many were committed, unit by unit.

    Other processes may fill the same store at the same time; each unit has one writer. Raises ValueError for an image
    that can't be rendered, a shard that was changed, or a teacher whose logits are not finite.
    """
    with Claims(store.path) as claims:
        claims.take(_STRUCTURE, wait=True)
        store.extend(views)
        claims.release(_STRUCTURE)
        start_at(store.views * int(store.counts.sum()) - remaining(store))
        # Again until nothing is left to claim: a unit that another process held may be free if that one was killed.
        while remaining(store) and _fill_once(store, samples, teacher, claims, batch_size, workers, report):
            pass
        if not remaining(store):
            store.sweep()
            claims.remove()


def record_teacher_top1(store: Store, percent: float) -> None:
    """Keep the teacher's measured top-1 on held-out shards in the store."""
    with Claims(store.path) as claims:
        claims.take(_STRUCTURE, wait=True)
        store.record_teacher_top1(percent)


def _fill_once(
    store: Store,
    samples: Samples,
    teacher: Teacher,
    claims: Claims,
    batch_size: int,
    workers: int,
    report: Callable[[int], None],
) -> int:
    """Go through all units once, do those that nobody else has claimed, and return how many those were."""
    renderer = Renderer(store.manifest.recipe, samples)
    order = store.order()
    begun: deque[tuple[Unit, int]] = deque()

    def batches() -> Iterator[Rows]:
        for unit in _claimed(store, samples, claims):
            rows = order.unit(unit.shard, unit.views)
            begun.append((unit, len(rows)))
            yield from rows.batches(batch_size)

    done = 0
    parts: list[tuple[Rows, Labels]] = []
    try:
        for rows, views in load(renderer, batches(), workers=workers, pin_memory=torch.cuda.is_available()):
            parts.append((rows, ask(teacher, views, store.manifest.topk)))
            unit, expected = begun[0]
            if sum(len(part) for part, _ in parts) == expected:
                store.write(unit, _assemble(store, unit, parts))
                claims.release(_number(store, unit))
                report(expected)
                begun.popleft()
                parts = []
                done += 1
    except SampleError as error:
        raise ValueError(f"{store.where(error.shard, error.sample)}: {error}") from error
    return done


def _claimed(store: Store, samples: Samples, claims: Claims) -> Iterator[Unit]:
    """Yield units that are still to do and now ours, from shards that are still what they were."""
    verified: set[int] = set()
    for unit in store.units():
        if not claims.take(_number(store, unit)):
            continue
        if not (missing := store.missing_views(unit.block, unit.shard)):  # another process was faster
            claims.release(_number(store, unit))
            continue
        if unit.shard not in verified:
            shard = store.manifest.shards[unit.shard]
            if (found := sha256_of(samples.urls[unit.shard])) != shard.sha256:
                raise ValueError(
                    f"shard {shard.name}: expected SHA-256 {shard.sha256[:16]}, found {found[:16]}; "
                    "it was changed since the store was made"
                )
            verified.add(unit.shard)
        yield replace(unit, views=missing)


def ask(teacher: Teacher, views: Views, topk: int = 0) -> Labels:
    """Return what the teacher says of a batch: label and check (n,), top-k log-softmax (n, k), largest first.

    Raises ValueError where its logits are not finite.
    """
    logits = teacher.logits(views.images)
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(f"teacher {teacher.name}: expected finite logits, found NaN or infinity; try --no-amp")
    labels = Labels(label=logits.argmax(1).cpu().numpy().astype(np.uint32), check=views.check.numpy().astype(np.uint16))
    if not topk:
        return labels
    values, indices = logits.log_softmax(1).topk(topk, dim=1)
    return replace(
        labels,
        topk_index=indices.cpu().numpy().astype(np.uint16),
        topk_logit=values.cpu().numpy().astype(np.float16),
    )


def _assemble(store: Store, unit: Unit, parts: list[tuple[Rows, Labels]]) -> Labels:
    """Put the batches of a unit into (view, sample) arrays."""
    shape = (len(unit.views), int(store.counts[unit.shard]))
    arrays: dict[str, Any] = {}
    for name in store.by_view:
        first = getattr(parts[0][1], name)
        arrays[name] = np.zeros((*shape, *first.shape[1:]), first.dtype)
        for rows, labels in parts:
            arrays[name][rows.view - unit.views.start, rows.sample] = getattr(labels, name)
    return Labels(**arrays)


def _probe(manifest: Manifest, samples: Samples, teacher: Teacher) -> Probes:
    """Render view 0 of a few samples, unmixed, spread over the shards, and ask the teacher."""
    shards = np.linspace(0, len(samples.urls) - 1, min(_PROBES, int(samples.count.sum()))).astype(int)
    places = [(int(s), i % int(samples.count[s])) for i, s in enumerate(shards)]
    shard, sample = np.array(places, np.int32).T
    rows = Rows(shard=shard, sample=sample, partner=np.full_like(shard, -1), view=np.zeros_like(shard))
    views = Renderer(manifest.recipe, samples)(rows)
    at = np.stack([rows.shard, rows.sample, rows.view], axis=1)
    return Probes(views=views.images.numpy(), logits=teacher.logits(views.images).cpu().numpy(), at=at)


def _number(store: Store, unit: Unit) -> int:
    return 1 + unit.block * len(store.manifest.shards) + unit.shard


def remaining(store: Store) -> int:
    """Return how many views are still to be labelled."""
    counts = store.counts.tolist()
    return sum(len(unit.views) * counts[unit.shard] for unit in store.units())
