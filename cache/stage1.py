"""Stage 1 as one call, for a teacher that is a model in this program."""

import os
from collections.abc import Sequence

from ..datasets.augment import pixels
from ..datasets.shards.files import class_names, expand
from ..datasets.shards.index import ShardIndex, index_shards, without_bad_images
from ..datasets.shards.mirror import DEFAULT, Mirror
from ..runtime.crew import join
from ..runtime.errors import InputError
from ..runtime.paths import path_of
from ..runtime.reporting import SILENT, Reporter
from . import create
from .claims import claims_on
from .fill import fill
from .store import Store
from .teacher import Teacher
from .verify import require_same_views


def cache_teacher(
    path: str | os.PathLike[str],
    shards: str | Sequence[str],
    teacher: Teacher,
    *,
    views: int | None = None,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    image_size: int | None = None,
    seed: int | None = None,
    topk: int | None = None,
    logits: int | None = None,
    batch_size: int = 256,
    workers: int = 0,
    skip_bad_images: bool = False,
    mirror: Mirror = DEFAULT,
    reporter: Reporter = SILENT,
) -> Store:
    """Show `teacher` every view of every image, keep what it says in the store at `path`, and return that.

    Called again it goes on; with more `views` it extends. Under torchrun or srun all ranks call it, and share the work.
    What is None is as the store has it, or else DeiT's.

    Args:
        path: A folder or the URL of an object store.
        shards: WebDataset tars: paths, URLs, with braces and globs.
        teacher: As `as_teacher` or `load_teacher` returns it.
        views: Views of each image, a multiple of the recipe's repeats; 300.
        recipe: The name of an augmentation; `deit`.
        overrides: Changes of its fields, such as `hflip=0`.
        image_size: Height and width of views, pixels; 224.
        seed: Of all augmentation; 0.
        topk: How many of the largest logits to keep, besides the label; 0.
        logits: Bits in which every class's logit is kept, 8 or 4; 0: not at all.
        batch_size: Views shown at once.
        workers: Processes that render; 0: threads of this one.
        skip_bad_images: Leave images out that can't be decoded, and note them, instead of refusing them.
        mirror: Where shards from far away are held.
        reporter: Told how many views are done.

    Raises:
        InputError: A ValueError, one line of text: for anything that is wrong with shards, store or teacher.
        StopRequested: After SIGINT or SIGTERM, with all whole units kept.
        PeerError: Where another rank failed.
    """
    if not hasattr(teacher, "sha256"):
        raise InputError("`teacher`", "what as_teacher or load_teacher returns", type(teacher).__name__)
    place, urls = path_of(path) if isinstance(path, str) else path, expand(shards)
    overrides = [overrides] if isinstance(overrides, str) else overrides

    def index() -> list[ShardIndex]:
        def screen(one: ShardIndex) -> ShardIndex:
            return without_bad_images(one, pixels.decode, skip=skip_bad_images)

        return index_shards(urls, screen=screen, mirror=mirror)

    with join() as crew, claims_on(place, crew=crew) as claims:  # type: ignore[arg-type]
        store = create.existing(place)  # type: ignore[arg-type]
        request = create.Request.resolve(
            store, recipe=recipe, overrides=overrides, image_size=image_size, teacher_size=teacher.input_size,
            seed=seed, topk=topk, logits=logits, views=views, amp=teacher.dtype == "bfloat16",
        )  # fmt: skip
        with crew.first_before_others("made"):
            names = () if store else class_names(urls)
            store = create.opened(place, request, teacher, claims, index=index, class_names=names, mirror=mirror)  # type: ignore[arg-type]
        samples = store.samples(urls, mirror)
        require_same_views(store, samples)
        fill(
            store, samples, teacher, claims, views=max(request.views, store.views), batch_size=batch_size,
            workers=workers, crew=crew, reporter=reporter,
        )  # fmt: skip
    return store
