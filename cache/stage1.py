"""Stage 1: show every view of every sample to the teacher, and keep what it says in a store."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from torch import nn

from ..datasets.augment.evidence import differing
from ..datasets.loader import start_early
from ..datasets.shards.excluded import Excluded
from ..datasets.shards.files import base_name, class_names, expand
from ..datasets.shards.mirror import DEFAULT, Mirror
from ..runtime.crew import join
from ..runtime.errors import InputError, require_whole
from ..runtime.paths import PathLike, path_of
from ..runtime.reporting import SILENT, Reporter
from . import add, create
from .claims import claims_on
from .create import Request
from .fill import fill
from .screening import screened_index
from .store import Store
from .teacher import Teacher
from .verify import require_same_views


def cache_teacher(
    path: PathLike,
    shards: str | Sequence[str],
    teacher: Teacher | Callable[..., Teacher],
    *,
    views: int | None = None,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    image_size: int | None = None,
    teacher_size: int | None = None,
    seed: int | None = None,
    topk: int | None = None,
    logits: int | None = None,
    amp: bool | None = None,
    add_shards: str | Sequence[str] = (),
    part: str | None = None,
    exclude: PathLike | None = None,
    skip_bad_images: bool = False,
    top1: Callable[[Teacher], float] | None = None,
    batch_size: int = 256,
    workers: int = 0,
    wait: bool = True,
    take_over: bool = False,
    mirror: Mirror = DEFAULT,
    reporter: Reporter = SILENT,
) -> Store:
    """Show `teacher` every view of every image, keep what it says in the store at `path`, and return that.

    Called again it goes on; with more `views` or `add_shards` it extends. Under torchrun or srun all ranks call it, and
    share the work. What is None is as the store has it, or else DeiT's.

    Args:
        path: A folder or the URL of an object store.
        shards: WebDataset tars: paths, URLs, with braces and globs.
        teacher: As `as_teacher` or `load_teacher` returns it, or a function that does, of `amp` and `size`, or none.
        views: Views of each image, a multiple of the recipe's repeats; 300.
        recipe: The name of an augmentation; `deit`.
        overrides: Changes of its fields, such as `hflip=0`.
        image_size: Height and width of views, pixels; 224.
        teacher_size: Of the `teacher`, if that is a function: height and width at which it sees views.
        seed: Of all augmentation; 0.
        topk: How many of the largest logits to keep, besides the label; 0.
        logits: Bits in which every class's logit is kept, 8 or 4; 0: not at all.
        amp: Of the `teacher`, if that is a function: whether under bfloat16 autocast.
        add_shards: More shards for a store that is there; its own are `shards`, and keep their labels.
        part: `K/N`: only the K-th of N parts of the shards, from 0, for machines that share nothing.
        exclude: A file of samples to leave out: CSV with the header `shard,key`, or a key a line.
        skip_bad_images: Leave images out that can't be decoded, and note them, instead of refusing them.
        top1: Measures the teacher on held-out images, percent: a store that has no such figure keeps it.
        batch_size: Views shown at once.
        workers: Processes that render; 0: threads of this one.
        wait: See the store whole, instead of ending where all that is missing is other processes'.
        take_over: Go on where a job was killed that wrote to this URL, once it shows no sign of life.
        mirror: Where shards from far away are held.
        reporter: Told how far the work is, and what may surprise.

    Raises:
        InputError: A ValueError, one line of text: for anything that is wrong with shards, store or teacher.
        StopRequested: After SIGINT or SIGTERM, with all whole units kept.
        PeerError: Where another rank failed.
        UnfinishedError: Without `wait`, where what is missing is left to others.
    """
    place = path_of(path)
    if views is not None:
        require_whole("views", views, 1)
    require_whole("batch_size", batch_size, 1)
    require_whole("workers", workers, 0)
    with join() as crew:
        told = reporter if crew.first else SILENT
        excluded = Excluded.read(path_of(exclude)) if exclude else None
        if take_over and not isinstance(place, Path):
            told.log(f"{place}: where a job claims it, that is watched for half a minute")
        # Before what takes time: where processes can't share a store, nothing is done.
        with claims_on(place, take_over=take_over, crew=crew) as claims:
            start_early(workers)
            store = create.existing(place, excluded)
            is_new = crew.agreed("new", lambda: "" if store else "new")
            request = Request.resolve(
                store, recipe=recipe, overrides=[overrides] if isinstance(overrides, str) else overrides,
                image_size=image_size, teacher_size=teacher_size, seed=seed, topk=topk, logits=logits, views=views,
                amp=amp,
            )  # fmt: skip
            urls, more = _named(store, shards, add_shards, part)
            # Which complains of other shards before a large teacher is loaded.
            samples = store.samples(urls, mirror) if store else None
            made = _made(teacher, request)
            names = [] if store else class_names(urls)
            _tell_what_may_surprise(made, request, names, told)
            index = functools.partial(
                screened_index, more or urls, crew, skip=skip_bad_images, excluded=None if more else excluded,
                mirror=mirror, reporter=told,
            )  # fmt: skip
            if (is_new or more) and not crew.first:
                index()
            with crew.first_before_others("made"):
                store = create.opened(
                    place, request, made, claims, index=index, class_names=names, excluded=excluded, mirror=mirror
                )
            samples = samples or store.samples(urls, mirror)
            if not (is_new and crew.first):
                require_same_views(store, samples)
            if more:
                add.add_shards(store, index, claims, crew, mirror)
                samples = store.samples([*urls, *more], mirror)
            elif add_shards:
                told.log("add-shards: the store has them all already")
            if top1 and crew.first:
                create.note_teacher_top1(store, claims, functools.partial(top1, made))
            views = max(request.views, store.views)
            with told.part("cache-teacher", views * int(store.counts.sum()), "views") as counted:
                fill(
                    store, samples, made, claims, views=views, batch_size=batch_size, workers=workers, wait=wait,
                    crew=crew, reporter=counted,
                )  # fmt: skip
    return store


def _named(
    store: Store | None, shards: str | Sequence[str], add_shards: str | Sequence[str], part: str | None
) -> tuple[list[str], list[str]]:
    """Return the shards that the store has or begins with, and those that are to join it."""
    urls = expand(shards)
    urls = urls if part is None else _part(urls, part)
    if not add_shards:
        return urls, []
    if not store or part:
        found = f"`part={part}`" if part else "none yet"
        raise InputError("`add_shards`", "a whole store that they join", found, "make that first, without `add_shards`")
    added, known = expand(add_shards), set(store.manifest.shard_names)
    own = [url for url in urls if url not in added] + [url for url in added if base_name(url) in known]
    return own, [url for url in added if base_name(url) not in known]


def _part(urls: list[str], part: str) -> list[str]:
    """Return the part K of N of the shards, every N-th from K on; ValueError if there is none of that name."""
    number, slash, parts = part.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal() and int(number) < int(parts) <= len(urls)):
        raise InputError("`part`", f"K/N with 0 <= K < N, of {len(urls)} shards", repr(part))
    return urls[int(number) :: int(parts)]


def _made(teacher: Teacher | Callable[..., Teacher], request: Request) -> Teacher:
    made = teacher
    if callable(teacher) and not isinstance(teacher, nn.Module):
        wished = {"amp": request.amp, "size": request.teacher_size}
        takes = inspect.signature(teacher).parameters
        made = teacher(**{name: value for name, value in wished.items() if name in takes})
    if not hasattr(made, "sha256"):
        raise InputError("`teacher`", "what as_teacher or load_teacher returns", type(made).__name__)
    return cast(Teacher, made)


def _tell_what_may_surprise(teacher: Teacher, request: Request, names: Sequence[str], reporter: Reporter) -> None:
    """Say that views are no others' here, or all alike, or that a teacher is of other classes or of another size."""
    if apart := differing():
        told = f"these libraries make other pixels than the golden vectors on this CPU: {', '.join(apart)}"
        reporter.log(f"{told}; machines with others will find views that differ")
    if names and len(names) != teacher.classes:
        reporter.log(f"the teacher tells {teacher.classes} classes apart, the shards have {len(names)}")
    if request.views > 1 and not request.recipe.augments:
        reporter.log(f"all {request.views} views of an image are alike by recipe none; `views=1` is enough")
    if request.recipe.size != teacher.input_size:
        reporter.log(
            f"views are of {request.recipe.size} pixels; the teacher sees them resized to its {teacher.input_size}"
        )
